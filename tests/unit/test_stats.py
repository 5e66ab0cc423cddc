"""Intervals, paired tests and corrections against closed forms, brute force and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from visiontokens.analyze.significance import holm, mcnemar, permutation_test
from visiontokens.analyze.stats import (
    Estimate,
    compare,
    minimum_detectable_difference,
    paired_bootstrap,
    standard_error,
    with_seeds,
)
from visiontokens.evaluate.bootstrap import bootstrap_interval, cluster, resample_weights
from visiontokens.evaluate.score.base import MEAN_CORRECT, ratio


def terms(values):
    values = np.asarray(values, dtype=float)
    return np.stack([values, np.ones_like(values)], axis=1)


def records(values, groups=None):
    groups = range(len(values)) if groups is None else groups
    return [
        {"question_id": str(i), "group": str(g), "correct": float(v)}
        for i, (v, g) in enumerate(zip(values, groups, strict=True))
    ]


def test_bootstrap_matches_the_binomial_error():
    rng = np.random.default_rng(0)
    outcomes = rng.random(2000) < 0.7
    found = bootstrap_interval(terms(outcomes), ratio, cluster([str(i) for i in range(2000)]), resamples=3000)
    expected = 100 * math.sqrt(0.7 * 0.3 / 2000)
    assert found.se == pytest.approx(expected, rel=0.08)
    assert found.high - found.low == pytest.approx(2 * 1.96 * expected, rel=0.08)
    assert (found.n, found.groups) == (2000, 2000)


def test_clustering_widens_the_interval_when_groups_agree():
    rng = np.random.default_rng(1)
    outcomes = np.repeat(rng.random(200) < 0.5, 5)
    alone = bootstrap_interval(terms(outcomes), ratio, cluster([str(i) for i in range(1000)]))
    grouped = bootstrap_interval(terms(outcomes), ratio, cluster([str(i // 5) for i in range(1000)]))
    assert grouped.se / alone.se == pytest.approx(math.sqrt(5), rel=0.15)
    assert standard_error(outcomes, [str(i // 5) for i in range(1000)]) * 100 == pytest.approx(grouped.se, rel=0.1)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for trial in range(200):
        outcomes = np.repeat(rng.random(60) < 0.6, 2)
        found = bootstrap_interval(
            terms(outcomes), ratio, cluster([str(i // 2) for i in range(120)]), resamples=400, seed=trial
        )
        hits += found.low <= 60 <= found.high
    assert 0.89 <= hits / 200 <= 0.99


def test_same_seed_same_interval():
    data, groups = terms([0, 1, 1, 0, 1]), cluster(list("aabbc"))
    assert bootstrap_interval(data, ratio, groups, seed=3) == bootstrap_interval(data, ratio, groups, seed=3)
    assert bootstrap_interval(data, ratio, groups, seed=3) != bootstrap_interval(data, ratio, groups, seed=4)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=20))
def test_each_resample_draws_as_many_clusters_per_stratum_as_there_are(pairs):
    strata, groups = zip(*pairs, strict=True)
    clusters = cluster(groups, strata)
    for weights in resample_weights(clusters, 20, 0):
        assert weights.shape == (20, len(set(pairs)))
        for members in clusters.strata:
            assert (weights[:, members].sum(axis=1) == len(members)).all()


def test_no_questions_is_an_error():
    with pytest.raises(ValueError, match="no questions"):
        cluster([])


def test_paired_difference_is_tighter_than_independent_ones():
    rng = np.random.default_rng(4)
    first = rng.random(1000) < 0.6
    second = np.where(rng.random(1000) < 0.05, ~first, first)
    clusters = cluster([str(i) for i in range(1000)])
    paired, gaps = paired_bootstrap([terms(first)], [terms(second)], ratio, clusters)
    assert gaps == (paired.value,)
    assert paired.value == pytest.approx(100 * (first.mean() - second.mean()))
    differences = first.astype(float) - second
    assert paired.se == pytest.approx(100 * differences.std() / math.sqrt(1000), rel=0.08)
    single = bootstrap_interval(terms(first), ratio, clusters)
    assert paired.se < single.se / 2


def test_identical_systems_do_not_differ():
    a = records([1, 0, 1, 1, 0])
    found = compare([a], [list(reversed(a))], MEAN_CORRECT)
    assert (found.difference.value, *found.difference.interval()) == (0, 0, 0)
    assert (found.p_value, found.test) == (1, "mcnemar")


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (5, 0), (8, 3), (20, 25)])
def test_mcnemar_is_the_exact_binomial_test(only_first, only_second):
    a = [1] * only_first + [0] * only_second + [1, 0]
    b = [0] * only_first + [1] * only_second + [1, 0]
    n, k = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    found = mcnemar(a, b)
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p_value == pytest.approx(min(1, 2 * tail))


def test_mcnemar_refuses_soft_scores():
    with pytest.raises(ValueError, match="outcomes 0 or 1"):
        mcnemar([0.3, 1], [1, 0])
    with pytest.raises(ValueError, match="equal shapes"):
        mcnemar([1], [1, 0])


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_agrees_with_scipy(only_first, only_second):
    found = mcnemar([1] * only_first + [0] * only_second, [0] * only_first + [1] * only_second)
    total = only_first + only_second
    assert found.p_value == (scipy.stats.binomtest(only_first, total).pvalue if total else 1)


def test_few_clusters_are_enumerated():
    """Six discordant pairs of six one way: 2 of 64 sign patterns are as extreme."""
    a, b = terms([1] * 6), terms([0] * 6)
    found = permutation_test(a, b, ratio, cluster([str(i) for i in range(6)]))
    assert (found.p_value, found.exact) == (2 / 64, True)


def test_permutation_moves_whole_clusters():
    a, b = terms([1] * 6), terms([0] * 6)
    assert permutation_test(a, b, ratio, cluster(list("aaabbb"))).p_value == 0.5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([-1, -0.6, -0.3, 0, 0.3, 1]), min_size=13, max_size=16))
def test_the_counted_distribution_is_that_of_all_sign_patterns(gains):
    """Against brute force: every one of the 2^n assignments."""
    gaps = np.array(gains)
    first, second = terms(np.maximum(gaps, 0)), terms(np.maximum(-gaps, 0))
    signs = 1 - 2 * ((np.arange(2 ** len(gaps))[:, None] >> np.arange(len(gaps))) & 1)
    expected = float((np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-9).mean())
    found = permutation_test(first, second, ratio, cluster([str(i) for i in range(len(gaps))]))
    assert found.exact
    assert found.p_value == pytest.approx(expected)


def test_the_counted_distribution_is_the_exact_binomial_for_outcomes():
    rng = np.random.default_rng(5)
    first, second = rng.random(300) < 0.6, rng.random(300) < 0.5
    found = permutation_test(terms(first), terms(second), ratio, cluster([str(i) for i in range(300)]))
    assert found.exact
    assert found.p_value == pytest.approx(mcnemar(first.astype(float), second.astype(float)).p_value)


def test_a_metric_that_is_no_share_draws_signs_at_random():
    rng = np.random.default_rng(6)
    first, second = terms(rng.random(40)), terms(rng.random(40))
    clusters = cluster([str(i) for i in range(40)])
    found = permutation_test(first, second, ratio, clusters, permutations=4000)
    assert not found.exact
    again = permutation_test(first, second, ratio, clusters, permutations=4000, seed=1)
    assert found.p_value == pytest.approx(again.p_value, abs=0.04)


def test_the_permutation_test_rejects_a_true_null_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    rejected = 0
    for _ in range(200):
        image = np.repeat(rng.random(40), 4)
        first, second = (rng.random(160) < image for _ in range(2))
        groups = cluster([str(i // 4) for i in range(160)])
        rejected += permutation_test(terms(first), terms(second), ratio, groups).p_value < 0.05
    assert rejected / 200 <= 0.09


def test_compare_picks_the_test_by_the_data():
    assert compare([records([1, 0, 1])], [records([0, 0, 1])], MEAN_CORRECT).test == "mcnemar"
    assert compare([records([1, 0, 0.3])], [records([0, 0, 1])], MEAN_CORRECT).test == "permutation, exact"
    grouped = compare([records([1, 0, 1], "aab")], [records([0, 0, 1], "aab")], MEAN_CORRECT)
    assert grouped.test == "permutation, exact"
    assert grouped.difference.value == pytest.approx(100 / 3)
    two = compare([records([1, 0, 1]), records([1, 1, 1])], [records([0, 0, 1])] * 2, MEAN_CORRECT)
    assert (two.test, two.difference.seeds, two.gaps) == ("t", 2, pytest.approx((100 / 3, 200 / 3)))
    assert two.p_value == two.difference.p_value
    assert math.isnan(compare([records([1, 0])], [records([0, 0])], MEAN_CORRECT, test=False).p_value)


def test_compare_refuses_different_questions():
    with pytest.raises(ValueError, match=r"1 are in one only, such as \['2'\]"):
        compare([records([1, 0, 1])], [records([1, 0])], MEAN_CORRECT)
    with pytest.raises(ValueError, match="shorter"):
        compare([records([1, 0])] * 2, [records([1, 0])], MEAN_CORRECT)


def test_minimum_detectable_difference_is_2_8_standard_errors():
    assert minimum_detectable_difference(1.0) == pytest.approx(2.8016, abs=1e-4)
    assert minimum_detectable_difference(0.5, power=0.5) == pytest.approx(0.98, abs=1e-3)


def test_standard_error_needs_two_clusters():
    with pytest.raises(ValueError, match="at least two clusters"):
        standard_error([1, 0], ["a", "a"])
    assert standard_error([1, 0, 1, 0], list("abcd")) == pytest.approx(np.std([1, 0, 1, 0], ddof=1) / 2)


def test_the_mean_over_seeds_has_the_t_interval_of_their_spread():
    found = with_seeds([60.0, 62.0, 64.0], questions=0.0)
    assert (found.value, found.spread, found.seeds) == (62, 2, 3)
    assert found.df == pytest.approx(2)
    assert found.half() == pytest.approx(4.3027 * 2 / math.sqrt(3), rel=1e-4)
    assert found.p_value == pytest.approx(scipy.stats.ttest_1samp([60, 62, 64], 0).pvalue)
    with pytest.raises(ValueError, match="no seeds"):
        with_seeds([], 1.0)


def test_one_seed_covers_questions_only_and_says_so():
    found = with_seeds([3.0], questions=1.0)
    assert (found.se, found.df, found.covers) == (1, math.inf, "questions only, one seed")
    assert found.half() == pytest.approx(1.96, abs=1e-3)
    assert found.detectable == pytest.approx(2.80, abs=0.01)
    assert with_seeds([3.0, 4.0], 1.0).covers == "questions and 2 seeds"


@given(st.floats(0.01, 10), st.floats(0, 10), st.integers(2, 20))
def test_both_levels_widen_the_interval(questions, spread, seeds):
    alone, both = Estimate(0, questions), Estimate(0, questions, spread, seeds)
    assert both.half() >= alone.half() - 1e-9
    assert both.detectable >= alone.detectable - 1e-9
    assert both.half() >= 1.95 * both.training


def test_the_interval_over_seeds_and_questions_covers_the_truth():
    """Crossed data with known variances: few seeds, shared questions, and what the two do together."""
    rng = np.random.default_rng(8)
    hits, alone = 0, 0
    clusters = cluster([str(i) for i in range(150)])
    for trial in range(150):
        question, seeds = rng.normal(0, 0.4, 150), rng.normal(0, 0.05, 3)
        runs = [terms(0.02 + seed + question + rng.normal(0, 0.3, 150)) for seed in seeds]
        found, _ = paired_bootstrap(runs, [terms(np.zeros(150))] * 3, ratio, clusters, resamples=200, seed=trial)
        low, high = found.interval()
        hits += low <= 2 <= high
        alone += abs(found.value - 2) <= 1.96 * found.questions
    assert 0.92 <= hits / 150 <= 1
    assert alone / 150 < 0.9, "questions alone would be too sure"


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    with pytest.raises(ValueError, match="must lie in"):
        holm([1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_and_the_bonferroni_values(p_values):
    for raw, adjusted in zip(p_values, holm(p_values), strict=True):
        assert raw <= adjusted + 1e-12
        assert adjusted <= min(1, raw * len(p_values)) + 1e-12

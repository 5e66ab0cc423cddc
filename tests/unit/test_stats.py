"""Intervals, paired tests and corrections against closed forms, brute force and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visiontokens.analyze.stats import (
    compare,
    holm,
    mcnemar,
    minimum_detectable_difference,
    over_seeds,
    paired_bootstrap,
    permutation_test,
    standard_error,
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
    paired = paired_bootstrap(terms(first), terms(second), ratio, clusters)
    assert paired.value == pytest.approx(100 * (first.mean() - second.mean()))
    differences = first.astype(float) - second
    assert paired.se == pytest.approx(100 * differences.std() / math.sqrt(1000), rel=0.08)
    single = bootstrap_interval(terms(first), ratio, clusters)
    assert paired.se < single.se / 2


def test_identical_systems_do_not_differ():
    a = records([1, 0, 1, 1, 0])
    found = compare(a, list(reversed(a)), MEAN_CORRECT)
    assert (found.difference.value, found.difference.low, found.difference.high) == (0, 0, 0)
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


def test_permutation_approaches_the_exact_p_value():
    """Six discordant pairs of six one way: 2 of 64 sign patterns are as extreme."""
    a, b = terms([1] * 6), terms([0] * 6)
    p = permutation_test(a, b, ratio, cluster([str(i) for i in range(6)]), permutations=20_000)
    assert p == pytest.approx(2 / 64, abs=0.005)


def test_permutation_moves_whole_clusters():
    a, b = terms([1] * 6), terms([0] * 6)
    p = permutation_test(a, b, ratio, cluster(list("aaabbb")), permutations=20_000)
    assert p == pytest.approx(0.5, abs=0.02)


def test_compare_picks_the_test_by_the_data():
    assert compare(records([1, 0, 1]), records([0, 0, 1]), MEAN_CORRECT).test == "mcnemar"
    assert compare(records([1, 0, 0.3]), records([0, 0, 1]), MEAN_CORRECT).test == "permutation"
    grouped = compare(records([1, 0, 1], "aab"), records([0, 0, 1], "aab"), MEAN_CORRECT)
    assert grouped.test == "permutation"
    assert grouped.difference.value == pytest.approx(100 / 3)


def test_compare_refuses_different_questions():
    with pytest.raises(ValueError, match=r"1 are in one only, such as \['2'\]"):
        compare(records([1, 0, 1]), records([1, 0]), MEAN_CORRECT)


def test_minimum_detectable_difference_is_2_8_standard_errors():
    assert minimum_detectable_difference(1.0) == pytest.approx(2.8016, abs=1e-4)
    assert minimum_detectable_difference(0.5, power=0.5) == pytest.approx(0.98, abs=1e-3)


def test_standard_error_needs_two_clusters():
    with pytest.raises(ValueError, match="at least two clusters"):
        standard_error([1, 0], ["a", "a"])
    assert standard_error([1, 0, 1, 0], list("abcd")) == pytest.approx(np.std([1, 0, 1, 0], ddof=1) / 2)


def test_seed_summary():
    found = over_seeds([60.0, 62.0, 64.0])
    assert (found.mean, found.std, found.n) == (62, 2, 3)
    assert found.half_width == pytest.approx(4.3027 * 2 / math.sqrt(3), rel=1e-4)
    assert math.isnan(over_seeds([60.0]).std)
    with pytest.raises(ValueError, match="no seeds"):
        over_seeds([])


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

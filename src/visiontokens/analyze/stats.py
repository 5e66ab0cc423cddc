"""Uncertainty and comparisons of benchmark scores: clustered, paired, exact where possible. Pure numpy and scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from visiontokens.evaluate.bootstrap import Clusters, Combine, FloatArray, resample_weights
from visiontokens.evaluate.score.base import Record, Statistic, clusters_of

_MASK_CELLS = 1 << 22


@dataclass(frozen=True)
class Difference:
    """A paired difference first - second in the metric's unit.

    Attributes:
        value: the difference on all questions.
        low: lower end of the percentile interval over resampled clusters.
        high: upper end.
        se: standard deviation of the difference over resamples.
        level: coverage the interval aims at.
    """

    value: float
    low: float
    high: float
    se: float
    level: float


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test on 0/1 outcomes of the same questions.

    Attributes:
        only_first: questions only the first got right.
        only_second: questions only the second got right.
        p_value: two-sided exact p-value; 1 when the two never disagree.
    """

    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same questions.

    Attributes:
        difference: with its clustered interval.
        p_value: of exact McNemar (`test` = "mcnemar") or of the paired cluster permutation ("permutation").
        test: which of the two.
        n: number of questions.
    """

    difference: Difference
    p_value: float
    test: str
    n: int


@dataclass(frozen=True)
class SeedSummary:
    """Spread over training seeds.

    Attributes:
        mean: mean over seeds.
        std: sample standard deviation; NaN for one seed.
        n: number of seeds.
        half_width: half of the 95% t interval of the mean; NaN for one seed.
    """

    mean: float
    std: float
    n: int
    half_width: float


def paired_bootstrap(
    first: FloatArray,
    second: FloatArray,
    combine: Combine,
    clusters: Clusters,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Return combine(first) - combine(second) with an interval from resampling the same clusters for both.

    Args:
        first: `[n, K]` terms of the first system, one row per question.
        second: `[n, K]` terms of the second, same questions in the same order.
        combine: from sums `[..., K]` to the metric.
        clusters: which questions are drawn together.
        resamples: number of resamples.
        level: coverage.
        seed: seed of the resampling.

    Raises:
        ValueError: the two differ in shape.
    """
    _check_paired(first, second)
    sums_1, sums_2 = clusters.sums(first), clusters.sums(second)
    draws = np.concatenate(
        [combine(w @ sums_1) - combine(w @ sums_2) for w in resample_weights(clusters, resamples, seed)]
    )
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    value = combine(first.sum(axis=0)) - combine(second.sum(axis=0))
    return Difference(float(value), float(low), float(high), float(draws.std(ddof=1)), level)


def permutation_test(
    first: FloatArray,
    second: FloatArray,
    combine: Combine,
    clusters: Clusters,
    *,
    permutations: int = 5000,
    seed: int = 0,
) -> float:
    """Return the two-sided p-value of swapping the two systems' answers cluster by cluster at random.

    Works for any metric; the observed assignment counts as one permutation, so p is at least 1 / (permutations + 1).

    Raises:
        ValueError: the two differ in shape.
    """
    _check_paired(first, second)
    sums_1, sums_2 = clusters.sums(first), clusters.sums(second)
    total, gap = sums_1 + sums_2, sums_1 - sums_2
    observed = abs(float(combine(sums_1.sum(axis=0)) - combine(sums_2.sum(axis=0))))
    rng = np.random.default_rng(seed)
    block = max(1, _MASK_CELLS // clusters.count)
    as_extreme = 0
    for start in range(0, permutations, block):
        signs = rng.choice((-1.0, 1.0), (min(block, permutations - start), clusters.count))
        swing = signs @ gap
        whole = total.sum(axis=0)
        differences = combine((whole + swing) / 2) - combine((whole - swing) / 2)
        as_extreme += int((np.abs(differences) >= observed - 1e-9).sum())
    return (as_extreme + 1) / (permutations + 1)


def mcnemar(first: Sequence[float], second: Sequence[float]) -> McNemar:
    """Test whether two systems differ in 0/1 outcomes on the same questions (binomial test on discordant pairs).

    Raises:
        ValueError: lengths differ or an outcome is neither 0 nor 1.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    _check_paired(a, b)
    if not (_binary(a) and _binary(b)):
        raise ValueError("McNemar's test needs outcomes 0 or 1; use permutation_test for soft scores")
    only_first, only_second = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    discordant = only_first + only_second
    p_value = float(stats.binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p_value)


def compare(
    first: Sequence[Record],
    second: Sequence[Record],
    statistic: Statistic,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two systems by their per-question records, joined by question id.

    Exact McNemar is used where the metric is a mean of 0/1 outcomes of independent questions (every cluster has one
    question and terms are (outcome, 1)); otherwise clusters are permuted.

    Raises:
        ValueError: the two hold different questions.
    """
    by_id = {record["question_id"]: record for record in second}
    ids = [record["question_id"] for record in first]
    if len(by_id) != len(second) or set(by_id) != set(ids) or len(ids) != len(by_id):
        odd = sorted(set(ids) ^ set(by_id))
        raise ValueError(f"the two runs hold different questions: {len(odd)} are in one only, such as {odd[:3]}")
    aligned = [by_id[key] for key in ids]
    terms_1, terms_2, clusters = statistic.matrix(first), statistic.matrix(aligned), clusters_of(first)
    difference = paired_bootstrap(
        terms_1, terms_2, statistic.combine, clusters, resamples=resamples, level=level, seed=seed
    )
    if clusters.count == len(first) and _mean_of_outcomes(terms_1) and _mean_of_outcomes(terms_2):
        p_value, test = mcnemar(terms_1[:, 0].tolist(), terms_2[:, 0].tolist()).p_value, "mcnemar"
    else:
        p_value, test = permutation_test(terms_1, terms_2, statistic.combine, clusters, seed=seed), "permutation"
    return Comparison(difference, p_value, test, len(first))


def minimum_detectable_difference(se: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the true difference that a two-sided z-test at `alpha` finds with probability `power`.

    `se` is the standard error of the (paired) difference; the other failure tail is negligible and left out.
    """
    return float(se * (stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)))


def standard_error(values: Sequence[float], groups: Sequence[str]) -> float:
    """Return the cluster-robust standard error of a mean over questions.

    Raises:
        ValueError: lengths differ or there are fewer than two clusters.
    """
    x = np.asarray(values, dtype=np.float64)
    names, of_row = np.unique(np.asarray(groups), return_inverse=True)
    if len(x) != len(of_row):
        raise ValueError(f"{len(x)} values but {len(of_row)} groups")
    if len(names) < 2:
        raise ValueError("a standard error needs at least two clusters")
    residual = np.bincount(of_row, weights=x - x.mean(), minlength=len(names))
    scale = len(names) / (len(names) - 1)
    return float(np.sqrt(scale * (residual**2).sum()) / len(x))


def over_seeds(values: Sequence[float]) -> SeedSummary:
    """Summarise one score over training seeds.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no seeds to summarise")
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return SeedSummary(mean, float("nan"), 1, float("nan"))
    std = float(np.std(values, ddof=1))
    return SeedSummary(mean, std, n, float(stats.t.ppf(0.975, n - 1) * std / np.sqrt(n)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm-adjusted p-values in the order given (family-wise error rate).

    Raises:
        ValueError: a value is not in 0 … 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if ((p < 0) | (p > 1) | np.isnan(p)).any():
        raise ValueError(f"p-values must lie in 0 … 1, found {p_values}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def _check_paired(first: FloatArray, second: FloatArray) -> None:
    """Raise ValueError unless the two have the same shape."""
    if first.shape != second.shape:
        raise ValueError(f"paired comparison of {first.shape} with {second.shape} values, expected equal shapes")


def _binary(values: FloatArray) -> bool:
    """Return whether all values are 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def _mean_of_outcomes(terms: FloatArray) -> bool:
    """Return whether terms are (0/1 outcome, 1) for every question."""
    return terms.shape[1] == 2 and _binary(terms[:, 0]) and bool((terms[:, 1] == 1).all())

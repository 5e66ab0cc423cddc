"""Uncertainty and comparisons of benchmark scores: clustered, paired, over seeds. Pure numpy and scipy.

A score varies for two reasons: which questions were asked, and which seed the training had. The questions of one seed
are those of all, so the two are crossed, not nested: `Estimate` adds the variance of question sampling (bootstrap of
clusters, the same draw for every seed) to that of the mean over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from visiontokens.analyze.significance import binary, check_paired, mcnemar, permutation_test
from visiontokens.evaluate.bootstrap import Clusters, Combine, FloatArray, resample_weights
from visiontokens.evaluate.score.base import Record, Statistic, clusters_of

LEVEL = 0.95
POWER = 0.8
Z95 = float(stats.norm.ppf((1 + LEVEL) / 2))
"""Half width of a 95% interval in standard errors."""


@dataclass(frozen=True)
class Estimate:
    """A number with the two parts of its uncertainty, in its own unit.

    Assumed: seeds are a random sample of trainings and independent of the questions; the seeds' values vary by their
    own spread and by how questions and seeds interact, and that interaction is also in the question part, so with few
    questions the sum is a little too large. Nothing is said about other data, tasks or recipes. With one seed the
    spread over trainings is unknown and the interval covers question sampling only.

    Attributes:
        value: the estimate.
        questions: standard error from the sampling of questions.
        spread: standard deviation over seeds; 0 for one seed, where it is not known.
        seeds: number of seeds.
    """

    value: float
    questions: float
    spread: float = 0.0
    seeds: int = 1

    @property
    def training(self) -> float:
        """Standard error of the mean over seeds."""
        return self.spread / math.sqrt(self.seeds)

    @property
    def se(self) -> float:
        """Standard error from both."""
        return math.hypot(self.questions, self.training)

    @property
    def df(self) -> float:
        """Degrees of freedom (Satterthwaite): few where the spread of few seeds decides, infinite for one seed."""
        share = (self.training / self.se) ** 4 if self.training else 0.0
        return (self.seeds - 1) / share if share > 1e-300 else math.inf

    @property
    def covers(self) -> str:
        """What the interval is about, in words."""
        return f"questions and {self.seeds} seeds" if self.seeds > 1 else "questions only, one seed"

    def half(self, level: float = LEVEL) -> float:
        """Return half the width of the t interval at this level."""
        return float(stats.t.ppf((1 + level) / 2, self.df)) * self.se if self.se else 0.0

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the t interval at this level."""
        half = self.half(level)
        return self.value - half, self.value + half

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no difference."""
        return float(2 * stats.t.sf(abs(self.value) / self.se, self.df)) if self.se else float(self.value == 0)

    @property
    def detectable(self) -> float:
        """True difference that a test at 5% finds with probability 0.8."""
        return minimum_detectable_difference(self.se, df=self.df)


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same questions.

    Attributes:
        difference: first - second with its uncertainty.
        gaps: the difference of every seed.
        p_value: of `test`.
        test: "mcnemar" (exact), "permutation, exact", "permutation" (random signs), or for several seeds "t".
        n: number of questions.
    """

    difference: Estimate
    gaps: tuple[float, ...]
    p_value: float
    test: str
    n: int


def paired_bootstrap(
    first: Sequence[FloatArray],
    second: Sequence[FloatArray],
    combine: Combine,
    clusters: Clusters,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Estimate, tuple[float, ...]]:
    """Return the mean over seeds of combine(first) - combine(second) with its uncertainty, and each seed's difference.

    A resample draws the same clusters for both systems and all seeds, since the questions are the same.

    Args:
        first: for each seed `[n, K]` terms of the first system, one row per question.
        second: likewise of the second, same questions in the same order.
        combine: from sums `[..., K]` to the metric.
        clusters: which questions are drawn together.
        resamples: number of resamples.
        seed: seed of the resampling.

    Raises:
        ValueError: the two differ in shape or number of seeds.
    """
    pairs = list(zip(first, second, strict=True))
    for ours, theirs in pairs:
        check_paired(ours, theirs)
    gaps = tuple(float(combine(a.sum(axis=0)) - combine(b.sum(axis=0))) for a, b in pairs)
    sums = [(clusters.sums(a), clusters.sums(b)) for a, b in pairs]
    draws = np.concatenate(
        [
            np.mean([combine(w @ a) - combine(w @ b) for a, b in sums], axis=0)
            for w in resample_weights(clusters, resamples, seed)
        ]
    )
    return with_seeds(gaps, float(draws.std(ddof=1))), gaps


def with_seeds(values: Sequence[float], questions: float) -> Estimate:
    """Return the mean of the seeds' values, given its standard error from question sampling.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no seeds to summarise")
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Estimate(float(np.mean(values)), questions, spread, len(values))


def compare(
    first: Sequence[Sequence[Record]],
    second: Sequence[Sequence[Record]],
    statistic: Statistic,
    *,
    resamples: int = 2000,
    seed: int = 0,
    test: bool = True,
) -> Comparison:
    """Compare two systems by their per-question records of one or more seeds, joined by question id.

    One seed: exact McNemar where the metric is a mean of 0/1 outcomes of independent questions (every cluster has one
    question and terms are (outcome, 1)); otherwise clusters are permuted, exactly where that can be counted. Several
    seeds: a t test of the difference with both parts of its uncertainty, because swapping answers of finished trainings
    says nothing about the next one. `test=False` leaves the p-value out (NaN).

    Raises:
        ValueError: two runs hold different questions, or the two have another number of seeds.
    """
    ids = [record["question_id"] for record in first[0]]
    ours, theirs = ([_aligned(run, ids) for run in runs] for runs in (first, second))
    terms_1, terms_2 = ([statistic.matrix(run) for run in runs] for runs in (ours, theirs))
    clusters = clusters_of(first[0])
    difference, gaps = paired_bootstrap(terms_1, terms_2, statistic.combine, clusters, resamples=resamples, seed=seed)
    p_value, name = math.nan, ""
    if test and len(gaps) > 1:
        p_value, name = difference.p_value, "t"
    elif test and clusters.count == len(ids) and _mean_of_outcomes(terms_1[0]) and _mean_of_outcomes(terms_2[0]):
        p_value, name = mcnemar(terms_1[0][:, 0].tolist(), terms_2[0][:, 0].tolist()).p_value, "mcnemar"
    elif test:
        found = permutation_test(terms_1[0], terms_2[0], statistic.combine, clusters, seed=seed)
        p_value, name = found.p_value, "permutation, exact" if found.exact else "permutation"
    return Comparison(difference, gaps, p_value, name, len(ids))


def minimum_detectable_difference(
    se: float, alpha: float = 1 - LEVEL, power: float = POWER, df: float = math.inf
) -> float:
    """Return the true difference that a two-sided t-test at `alpha` finds with probability `power`.

    `se` is the standard error of the (paired) difference, `df` its degrees of freedom; the other failure tail is
    negligible and left out.
    """
    return float(se * (stats.t.ppf(1 - alpha / 2, df) + stats.t.ppf(power, df)))


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


def _aligned(run: Sequence[Record], ids: Sequence[str]) -> list[Record]:
    """Return a run's records in the order of `ids`."""
    by_id = {record["question_id"]: record for record in run}
    if len(by_id) != len(run) or set(by_id) != set(ids) or len(ids) != len(by_id):
        odd = sorted(set(ids) ^ set(by_id))
        raise ValueError(f"the two runs hold different questions: {len(odd)} are in one only, such as {odd[:3]}")
    return [by_id[key] for key in ids]


def _mean_of_outcomes(terms: FloatArray) -> bool:
    """Return whether terms are (0/1 outcome, 1) for every question."""
    return terms.shape[1] == 2 and binary(terms[:, 0]) and bool((terms[:, 1] == 1).all())

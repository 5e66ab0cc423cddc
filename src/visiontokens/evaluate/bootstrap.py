"""Resampling of whole clusters for any metric that is a function of sums.

Accuracy, F1 means, MME's sum of ratios and MMBench's circular accuracy all have the form `combine(sum of terms)`, with
a row of terms per question. A resample of clusters then only reweights the rows, and thousands of resamples are one
matrix product each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Combine = Callable[[FloatArray], FloatArray]
"""Maps sums of terms `[..., K]` to the metric `[...]`."""

_CELLS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A metric with its bootstrap uncertainty, all in the metric's unit.

    Attributes:
        value: the metric on all questions.
        low: lower end of the percentile interval.
        high: upper end.
        se: standard deviation of the metric over resamples.
        level: coverage the interval aims at.
        n: number of questions.
        groups: number of clusters that were resampled.
        resamples: number of resamples.
    """

    value: float
    low: float
    high: float
    se: float
    level: float
    n: int
    groups: int
    resamples: int


@dataclass(frozen=True)
class Clusters:
    """Questions gathered into clusters, and clusters into strata.

    Attributes:
        of_row: `[n]` cluster number of each question.
        strata: cluster numbers of each stratum; a resample draws within each stratum.
    """

    of_row: NDArray[np.intp]
    strata: tuple[NDArray[np.intp], ...]

    @property
    def count(self) -> int:
        """Number of clusters."""
        return sum(len(members) for members in self.strata)

    def sums(self, terms: FloatArray) -> FloatArray:
        """Add up question rows `[n, K]` to cluster rows `[G, K]`."""
        out = np.zeros((self.count, terms.shape[1]))
        np.add.at(out, self.of_row, terms)
        return out


def cluster(groups: Sequence[str], strata: Sequence[str] | None = None) -> Clusters:
    """Gather questions by group; a group in two strata counts as one cluster in each.

    Raises:
        ValueError: there are no questions, or `strata` has another length.
    """
    if not groups:
        raise ValueError("no questions to resample")
    strata = [""] * len(groups) if strata is None else strata
    keys = list(zip(strata, groups, strict=True))
    number = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    members: dict[str, list[int]] = {}
    for (stratum, _), index in number.items():
        members.setdefault(stratum, []).append(index)
    return Clusters(
        of_row=np.array([number[key] for key in keys], dtype=np.intp),
        strata=tuple(np.array(indices, dtype=np.intp) for indices in members.values()),
    )


def resample_weights(clusters: Clusters, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield blocks `[R, G]` of how often each cluster is drawn, `resamples` rows in all; the seed fixes them."""
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS_AT_ONCE // clusters.count)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        weights = np.zeros((rows, clusters.count))
        for members in clusters.strata:
            draws = rng.integers(0, len(members), (rows, len(members)))
            flat = draws + np.arange(rows)[:, None] * len(members)
            counts = np.bincount(flat.ravel(), minlength=rows * len(members))
            weights[:, members] = counts.reshape(rows, len(members))
        yield weights


def bootstrap_interval(
    terms: FloatArray,
    combine: Combine,
    clusters: Clusters,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the metric with a percentile interval over resampled clusters.

    Args:
        terms: `[n, K]` contribution of each question.
        combine: from sums `[..., K]` to the metric.
        clusters: which questions are drawn together.
        resamples: number of resamples.
        level: coverage of the interval.
        seed: seed of the resampling.
    """
    sums = clusters.sums(terms)
    draws = np.concatenate([combine(weights @ sums) for weights in resample_weights(clusters, resamples, seed)])
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        value=float(combine(terms.sum(axis=0))),
        low=float(low),
        high=float(high),
        se=float(draws.std(ddof=1)),
        level=level,
        n=len(terms),
        groups=clusters.count,
        resamples=resamples,
    )

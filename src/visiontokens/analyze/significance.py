"""Tests of paired outcomes, exact where the distribution can be counted, and the correction for many of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from visiontokens.evaluate.bootstrap import Clusters, Combine, FloatArray

_MASK_CELLS = 1 << 22
_ENUMERATED = 12
"""With so many clusters that differ, or fewer, all sign patterns are tried (4096, below the random ones)."""
_COUNTED = 1 << 17
"""Largest sum of whole gaps whose distribution is counted."""
_STEPS = (1, 3, 10, 30)
"""Soft scores are multiples of one over these (VQA accuracies of ten annotators: 1/30)."""


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
class Permutation:
    """Two-sided p-value of swapping two systems' answers cluster by cluster; `exact` if all ways were counted."""

    p_value: float
    exact: bool


def mcnemar(first: Sequence[float], second: Sequence[float]) -> McNemar:
    """Test whether two systems differ in 0/1 outcomes on the same questions (binomial test on discordant pairs).

    Raises:
        ValueError: lengths differ or an outcome is neither 0 nor 1.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    check_paired(a, b)
    if not (binary(a) and binary(b)):
        raise ValueError("McNemar's test needs outcomes 0 or 1; use permutation_test for soft scores")
    only_first, only_second = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    discordant = only_first + only_second
    p_value = float(stats.binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p_value)


def permutation_test(
    first: FloatArray,
    second: FloatArray,
    combine: Combine,
    clusters: Clusters,
    *,
    permutations: int = 5000,
    seed: int = 0,
) -> Permutation:
    """Return the two-sided p-value of swapping the two systems' answers cluster by cluster.

    Works for any metric. The distribution is exact where few clusters differ (all sign patterns), and where the metric
    is a share with equal denominators whose clusters gain whole steps (the distribution of the sum is counted). Else
    signs are drawn at random; the observed assignment counts as one, so p is at least 1 / (permutations + 1).

    Args:
        first: `[n, K]` terms of the first system, one row per question.
        second: `[n, K]` terms of the second, same questions in the same order.
        combine: from sums `[..., K]` to the metric.
        clusters: which questions are swapped together.
        permutations: random sign patterns, where they are drawn.
        seed: seed of the drawing.

    Raises:
        ValueError: the two differ in shape.
    """
    check_paired(first, second)
    sums_1, sums_2 = clusters.sums(first), clusters.sums(second)
    whole, gap = (sums_1 + sums_2).sum(axis=0), sums_1 - sums_2
    gap = gap[(np.abs(gap) > 1e-12).any(axis=1)]
    if not len(gap):
        return Permutation(1.0, True)
    if len(gap) > _ENUMERATED:
        steps = _whole_steps(gap)
        if steps is not None:
            return Permutation(_counted(steps), True)
    observed = abs(float(combine(sums_1.sum(axis=0)) - combine(sums_2.sum(axis=0))))
    exact = len(gap) <= _ENUMERATED
    total = 2 ** len(gap) if exact else permutations
    rng = np.random.default_rng(seed)
    block = max(1, _MASK_CELLS // len(gap))
    as_extreme = 0
    for start in range(0, total, block):
        stop = min(start + block, total)
        signs = _patterns(start, stop, len(gap)) if exact else rng.choice((-1.0, 1.0), (stop - start, len(gap)))
        swing = signs @ gap
        differences = combine((whole + swing) / 2) - combine((whole - swing) / 2)
        as_extreme += int((np.abs(differences) >= observed - 1e-9).sum())
    return Permutation(as_extreme / total if exact else (as_extreme + 1) / (total + 1), exact)


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


def check_paired(first: FloatArray, second: FloatArray) -> None:
    """Raise ValueError unless the two have the same shape."""
    if first.shape != second.shape:
        raise ValueError(f"paired comparison of {first.shape} with {second.shape} values, expected equal shapes")


def binary(values: FloatArray) -> bool:
    """Return whether all values are 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def _patterns(start: int, stop: int, width: int) -> FloatArray:
    """Return sign patterns number `start` to `stop`, `[stop - start, width]` of -1 and 1."""
    bits = (np.arange(start, stop)[:, None] >> np.arange(width)) & 1
    return np.asarray(2.0 * bits - 1.0, dtype=np.float64)


def _whole_steps(gap: FloatArray) -> np.ndarray | None:
    """Return every cluster's gain `[G]` in whole steps, if the metric is (gain, possible) with equal possibilities."""
    if gap.shape[1] != 2 or np.abs(gap[:, 1]).max() > 1e-12:
        return None
    for parts in _STEPS:
        scaled = gap[:, 0] * parts
        steps = np.rint(scaled)
        if np.abs(scaled - steps).max() < 1e-6 and np.abs(steps).sum() <= _COUNTED:
            return steps.astype(np.int64)
    return None


def _counted(steps: np.ndarray) -> float:
    """Return the probability that a sum of +-steps is at least as far from 0 as the sum of all, by convolution."""
    reach = int(np.abs(steps).sum())
    chance = np.zeros(2 * reach + 1)
    chance[reach] = 1.0
    for step in np.abs(steps):
        up, down = np.zeros_like(chance), np.zeros_like(chance)
        up[step:], down[: len(chance) - step] = chance[: len(chance) - step], chance[step:]
        chance = (up + down) / 2
    observed = abs(int(steps.sum()))
    return float(min(1.0, chance[np.abs(np.arange(-reach, reach + 1)) >= observed].sum()))

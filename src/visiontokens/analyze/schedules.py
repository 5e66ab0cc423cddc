"""Searching a falling schedule of ratios with a score: greedily to a floor, or the best sigmoid at a budget."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from visiontokens.compress.ratios import FIRST, meet_budget, whole_tokens

Score = Callable[[Sequence[float]], float]
"""How good a model is with the given ratios, one per layer; more is better."""
CANDIDATES = 256
SEEDED = 6
STEEPNESS = (1.0, 200.0)


def greedy_schedule(
    score: Score, n_layers: int, grid: Sequence[float], floor: float, first: int = FIRST
) -> list[float]:
    """Return the schedule with the fewest tokens whose score reaches `floor` (G-Search).

    From shallow to deep, each layer takes the smallest ratio with which it and all deeper layers still do, found by
    bisection. This is the optimum where more tokens never hurt and deeper layers need no more than shallower ones
    (the paper's assumptions).

    Args:
        score: see `Score`.
        n_layers: L.
        grid: ratios to choose from, falling from 1.
        floor: the score to keep; that of ratios of 1 must reach it.
        first: layers before this one (0-based) keep everything.
    """
    ratios = [1.0] * n_layers
    at = 0
    for layer in range(first, n_layers):
        good, bad = at, len(grid)
        while bad - good > 1:
            middle = (good + bad) // 2
            if score([*ratios[:layer], *[grid[middle]] * (n_layers - layer)]) >= floor:
                good = middle
            else:
                bad = middle
        at = good
        ratios[layer:] = [grid[at]] * (n_layers - layer)
    return ratios


def sigmoid_schedule(
    score: Score,
    n_layers: int,
    n_vision: int,
    cost: Callable[[Sequence[float]], float],
    budget: float,
    *,
    trials: int,
    seed: int = 0,
) -> list[float]:
    """Return the best sigmoid schedule of cost `budget` (P-Sigmoid).

    Bayesian optimisation over steepness and floor: a Gaussian process (Matern 5/2), expected improvement, quasi-random
    candidates; the sigmoid's centre follows from the budget, so every schedule that is tried meets it.

    Args:
        score: see `Score`.
        n_layers: L.
        n_vision: N; ratios keep whole tokens, at least one.
        cost: what a schedule costs, rising in every ratio.
        budget: its cost.
        trials: schedules to score.
        seed: of the candidates and of the process.

    Raises:
        ValueError: no sigmoid has that cost.
    """
    points, schedules = _candidates(n_layers, n_vision, cost, budget, seed)
    if not schedules:
        raise ValueError(
            f"budget: found {budget:g}, which no schedule of {n_layers} layers over {n_vision} tokens meets"
        )
    tried: list[int] = []
    values: list[float] = []
    while len(tried) < min(trials, len(schedules)):
        seeded = len(tried) < SEEDED
        pick = len(tried) if seeded else _most_promising(points, tried, values, seed)
        tried.append(pick)
        values.append(score(schedules[pick]))
    return schedules[tried[int(np.argmax(values))]]


def _candidates(
    n_layers: int, n_vision: int, cost: Callable[[Sequence[float]], float], budget: float, seed: int
) -> tuple[np.ndarray, list[list[float]]]:
    """Return points of the unit square (logarithms of steepness and floor) and their schedules, no schedule twice."""
    from scipy.stats import qmc

    points: list[np.ndarray] = []
    schedules: list[list[float]] = []
    low, high = map(math.log, STEEPNESS)
    for point in qmc.Sobol(2, seed=seed).random(CANDIDATES):
        k, floor = math.exp(low + (high - low) * point[0]), math.exp((point[1] - 1) * math.log(n_vision))
        found = meet_budget(n_layers, k, floor, cost, budget)
        whole = None if found is None else whole_tokens(found, n_vision)
        if whole is not None and whole not in schedules:
            points.append(point)
            schedules.append(whole)
    return np.array(points), schedules


def _most_promising(points: np.ndarray, tried: Sequence[int], values: Sequence[float], seed: int) -> int:
    """Return the untried point of the highest expected improvement."""
    from scipy.stats import norm
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern, WhiteKernel

    kernel: Any = Matern(0.3, (0.05, 3.0), nu=2.5) + WhiteKernel(1e-3, (1e-6, 0.5))
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a bound of the kernel was reached: good enough
        process.fit(points[list(tried)], values)
    mean, spread = process.predict(points, return_std=True)
    spread = np.maximum(spread, 1e-12)
    gain = (mean - max(values)) / spread
    expected = spread * (gain * norm.cdf(gain) + norm.pdf(gain))
    expected[list(tried)] = -1.0
    return int(np.argmax(expected))

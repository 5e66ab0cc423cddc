"""Schedules of kept vision tokens over the layers: the sigmoid of P-Sigmoid, met budgets, whole tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

FIRST = 2
"""The first layer that may see fewer tokens: attention in layer 0 is no guide to what later layers need (G-Search)."""
STEPS = 100


def sigmoid_ratios(n_layers: int, k: float, low: float, centre: float, first: int = FIRST) -> list[float]:
    """Return the share of vision tokens that each layer keeps, `r_i = low + (1 - low) / (1 + exp(k (i - c) / L))`.

    The published form is not known; this one has its properties (falling, from 1 to a floor). Our choice.

    Args:
        n_layers: L.
        k: steepness, 0 or more.
        low: floor `r_min`, 0 ... 1.
        centre: c, counted from 1 as i is.
        first: layers before this one (0-based) keep everything.
    """
    ratios = [low + (1 - low) * _logistic(k * (centre - i) / n_layers) for i in range(1, n_layers + 1)]
    return [1.0 if i < first else ratio for i, ratio in enumerate(ratios)]


def _logistic(x: float) -> float:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def meet_budget(
    n_layers: int, k: float, low: float, cost: Callable[[Sequence[float]], float], budget: float
) -> list[float] | None:
    """Return the sigmoid of steepness `k` and floor `low` whose cost is `budget`, or `None` when none has it.

    The centre is found by bisection: cost grows with it.
    """

    def ratios(centre: float) -> list[float]:
        """Return the share of tokens of every layer for a sigmoid that falls around `centre`."""
        return sigmoid_ratios(n_layers, k, low, centre)

    reach = 60 * n_layers / max(k, 1e-6)
    below, above = -reach, n_layers + reach
    if not cost(ratios(below)) <= budget <= cost(ratios(above)):
        return None
    for _ in range(STEPS):
        middle = (below + above) / 2
        if cost(ratios(middle)) <= budget:
            below = middle
        else:
            above = middle
    return ratios(below)


def tokens_kept(ratio: float, n_vision: int) -> int:
    """Return the tokens of an image of `n_vision` that a ratio keeps, rounded half up as in FastV; at least one."""
    return max(1, math.floor(ratio * n_vision + 0.5))


def whole_tokens(ratios: Sequence[float], n_vision: int, total: float | None = None) -> list[float]:
    """Return falling ratios that keep whole tokens of `n_vision`, as many over all layers as `total` asks for.

    The layers with the largest fractions are rounded up, of equal ones the shallower first, which keeps the ratios
    falling. `total` is the sum over layers; default: that of the ratios, to the nearest token.
    """
    real = [ratio * n_vision for ratio in ratios]
    counts = [max(1, math.floor(value + 1e-9)) for value in real]
    missing = round(sum(real) if total is None else total) - sum(counts)
    order = sorted(range(len(real)), key=lambda i: (counts[i] - real[i], i))
    for i in order[: max(0, missing)]:
        counts[i] = min(n_vision, counts[i] + 1)
    return [count / n_vision for count in counts]

"""Vision tokens per decoder layer, and the compression ratio that LLaVolta defines on them."""

from __future__ import annotations

from collections.abc import Sequence

Stage = tuple[int, int]
"""(layer, stride): pool by `stride` in front of 0-based decoder layer `layer`; stride 1 = no compression."""


def pooled_tokens(n_vision: int, n_layers: int, layer: int, stride: int) -> list[float]:
    """Return the vision tokens each decoder layer sees when a pool of `stride` sits in front of `layer`.

    Layers `0 .. layer-1` see all `n_vision` tokens (LLaVolta, Fig. 2 and eq. 3). A tail that does not fill a
    window is dropped, as a strided average pool does.

    Raises:
        ValueError: `layer` is outside the stack or `stride` is not positive.
    """
    if not 0 <= layer <= n_layers:
        raise ValueError(f"layer: found {layer}, expected 0 .. {n_layers}")
    if stride < 1:
        raise ValueError(f"stride: found {stride}, expected 1 or more")
    return [float(n_vision)] * layer + [float(n_vision // stride)] * (n_layers - layer)


def total_tokens(per_layer: Sequence[float]) -> float:
    """Return the papers' `#Tokens`: vision tokens summed over the decoder layers."""
    return float(sum(per_layer))


def mean_tokens(per_layer: Sequence[float]) -> float:
    """Return the vision tokens of an average decoder layer.

    Raises:
        ValueError: there are no layers.
    """
    if not per_layer:
        raise ValueError("tokens per layer: found none, expected one number per decoder layer")
    return total_tokens(per_layer) / len(per_layer)


def compression_ratio(per_layer: Sequence[float], n_vision: int) -> float:
    """Return `N L / sum of tokens` for N layers and L uncompressed tokens; 1.0 = no compression.

    For one pool this is LLaVolta's `N L / ((N - K) L_out + K L)`. The papers print it in percent.

    Raises:
        ValueError: no vision tokens are left at all.
    """
    total = total_tokens(per_layer)
    if total <= 0:
        raise ValueError("tokens per layer: found a sum of 0, expected at least one vision token")
    return len(per_layer) * n_vision / total


def kept_fraction(per_layer: Sequence[float], n_vision: int) -> float:
    """Return the share of vision tokens that the layers see on average (the x axis of LLaVolta Fig. 1)."""
    return mean_tokens(per_layer) / n_vision


def stage_mean(stages: Sequence[Stage], weights: Sequence[float], n_vision: int, n_layers: int) -> float:
    """Return `#Tokens` averaged over training stages, each weighted by its share of the steps.

    Raises:
        ValueError: as many weights as stages are needed, with a positive sum.
    """
    if len(stages) != len(weights) or sum(weights) <= 0:
        raise ValueError(f"weights: found {list(weights)}, expected {len(stages)} with a positive sum")
    totals = [total_tokens(pooled_tokens(n_vision, n_layers, layer, stride)) for layer, stride in stages]
    return sum(w * t for w, t in zip(weights, totals, strict=True)) / sum(weights)

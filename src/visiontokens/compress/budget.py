"""From a budget to a method's own parameters: mean vision tokens over all decoder layers, translated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from visiontokens.compress.base import Compressor, Geometry, MethodError, MethodSpec, lookup, parse_params

TOLERANCE = 0.01
"""A setting meets a budget when its mean differs by at most this share of it (or by half a token)."""
LISTED = 16
"""An error lists all budgets of a method that has no more than these."""


def mean_tokens(compressor: Compressor[Any]) -> float:
    """Return the vision tokens of one image, averaged over the decoder's layers."""
    geometry = compressor.geometry
    per_layer = compressor.tokens_per_layer(geometry.n_vision, geometry.llm_layers)
    return sum(per_layer) / len(per_layer)


def fit_budget(name: str, geometry: Geometry, budget: float, params: dict[str, Any] | None = None) -> MethodSpec:
    """Return the method with parameters that spend `budget` vision tokens per layer on an image, on average.

    A method lists its settings with those nearest to its published ones first; the first that meets the budget is
    taken.

    Args:
        name: a registered method.
        geometry: of the model that it will run in.
        budget: mean vision tokens over all decoder layers.
        params: parameters that stay as given.

    Raises:
        MethodError: unknown method or parameter, or no setting meets the budget; the message says which budgets can be
            met.
    """
    if not budget > 0:
        raise MethodError(f"budget: found {budget:g}, expected a number of vision tokens above 0")
    fixed = params or {}
    parse_params(name, fixed)
    reachable = set()
    for setting, mean in _settings(lookup(name), geometry, fixed):
        if abs(mean - budget) <= max(0.5, TOLERANCE * budget):
            return MethodSpec(name=name, params=setting)
        reachable.add(mean)
    kept = f" with {', '.join(f'{key}={value}' for key, value in fixed.items())}" if fixed else ""
    listed = _listed(reachable, budget)
    raise MethodError(f"method {name!r}{kept} cannot spend {budget:g} vision tokens per layer; {listed}")


def _settings(
    method: type[Compressor], geometry: Geometry, fixed: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], float]]:
    """Yield the method's settings and their mean tokens, with `fixed` as given, as far as this model allows them."""
    impossible: ValueError | None = None
    count = 0
    for free in method.settings(geometry):
        setting = {**free, **fixed}
        try:
            with torch.device("meta"):
                mean = mean_tokens(method(method.Params.model_validate(setting), geometry))
        except ValueError as err:
            impossible = err
            continue
        count += 1
        yield setting, mean
    if not count and impossible is not None:
        raise MethodError(str(impossible))


def _listed(reachable: set[float], budget: float) -> str:
    """Say which budgets there are: all of them if they are few, else the range and the nearest."""
    values = sorted(reachable)
    if len(values) <= LISTED:
        return f"it can spend {', '.join(f'{value:.4g}' for value in values)}"
    below, above = [v for v in values if v < budget], [v for v in values if v > budget]
    near = [f"{v:.4g}" for v in (*below[-1:], *above[:1])]
    return f"it can spend {values[0]:.4g} to {values[-1]:.4g}; nearest: {' or '.join(near)}"

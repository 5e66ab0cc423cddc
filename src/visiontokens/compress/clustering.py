"""K-Means over runs of tokens `[R, P, D]`, batched and deterministic; all methods that cluster share it.

Runs of different lengths are padded, `ok` `[R, P]` flags the real tokens, and padding changes no result. Everything
works in fp32 without gradient, autocast or random state of the process; means are matrix products, whose sums, unlike
those of scattered additions on a GPU, are the same every time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

FLOOR = 1e-6
"""Added to squared distances in k-means++, so that tokens that are all alike can be drawn too (VQToken's code)."""
A = ParamSpec("A")
T = TypeVar("T")


def in_fp32(function: Callable[A, T]) -> Callable[A, T]:
    """Run a function without gradient and autocast."""

    @wraps(function)
    def run(*args: A.args, **kwargs: A.kwargs) -> T:
        """Call the function without gradients and autocast."""
        x: Any = args[0]
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            return function(*args, **kwargs)

    return run


@in_fp32
def evenly_spaced(x: Tensor, k: int) -> Tensor:
    """Return `k` tokens of every run `[R, P, D]` at even distances as first centres, `[R, k, D]`."""
    index = torch.linspace(0, x.shape[1] - 1, k, device=x.device).round().long()
    return x[:, index].float()


@in_fp32
def plus_plus(x: Tensor, k: int, seed: int, ok: Tensor | None = None) -> Tensor:
    """Return first centres `[R, k, D]` of runs `[R, P, D]` by k-means++ (Arthur and Vassilvitskii 2007).

    Each next centre is drawn with probability proportional to the squared distance to the nearest one so far. Draw j
    uses the j-th number of a generator seeded with `seed`, in every run: a run's centres depend neither on its batch
    nor on the process, and the first j of k centres are those for k = j.
    """
    draws = torch.rand(k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(x.device)
    x = x.float()
    real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if ok is None else ok
    nearest = torch.ones(x.shape[:2], dtype=torch.float64, device=x.device)
    centres: list[Tensor] = []
    for draw in draws:
        total = ((nearest + FLOOR * bool(centres)) * real).cumsum(1)
        index = torch.searchsorted(total, draw * total[:, -1:], right=True).minimum(real.sum(1, keepdim=True) - 1)
        centres.append(x.gather(1, index[..., None].expand(-1, -1, x.shape[-1])))
        if len(centres) < k:
            distance = _squared_distance(x, centres[-1])[..., 0].double()
            nearest = distance if len(centres) == 1 else nearest.minimum(distance)
    return torch.cat(centres, 1)


@in_fp32
def lloyd(
    x: Tensor,
    centre: Tensor,
    iterations: int,
    *,
    ok: Tensor | None = None,
    metric: Literal["cosine", "euclidean"] = "euclidean",
    empty: Literal["keep", "farthest"] = "keep",
    until_fixed: bool = False,
) -> tuple[Tensor, Tensor]:
    """Assign and average `iterations` times; return labels `[R, P]` and the means of what they label `[R, K, D]`.

    Args:
        x: `[R, P, D]`.
        centre: first centres `[R, K, D]`.
        iterations: steps, always as many: a fixed cost, and no waiting for the device.
        ok: real tokens `[R, P]`; the others get the label K.
        metric: how the nearest centre is found; `cosine` expects tokens of norm 1.
        empty: a cluster without members keeps its centre, or takes the token farthest from its own.
        until_fixed: stop when no label changes; the result is the same.
    """
    x, k = x.float(), centre.shape[1]
    label = torch.full(x.shape[:2], -1, device=x.device)
    for _ in range(iterations):
        before = label
        label = _nearest(x, centre, metric, empty, ok)
        centre, _ = means(x, label, k, otherwise=centre)
        if until_fixed and torch.equal(before, label):
            break
    return label, centre


def means(x: Tensor, label: Tensor, k: int, otherwise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the mean of every cluster's members `[R, K, D]` and their number `[R, K]`; differentiable in `x`.

    Args:
        x: `[R, P, D]`.
        label: 0 ... K-1, or K for tokens that count nowhere, `[R, P]`.
        k: number of clusters.
        otherwise: what stands for the mean of no members, `[R, K, D]`; default zeros.
    """
    member = _members(label, k)
    size = member.sum(1)
    with torch.autocast(x.device.type, enabled=False):
        mean = member.transpose(1, 2).to(x.dtype) @ x / size.clamp_min(1)[..., None]
    return mean if otherwise is None else torch.where(size[..., None] > 0, mean, otherwise), size


def flops(tokens: int, k: int, width: int, iterations: int) -> float:
    """Matrix FLOPs of `lloyd` on a run: distances and means in every step, two per multiply-add."""
    return 4.0 * tokens * k * width * iterations


def _members(label: Tensor, k: int) -> Tensor:
    """Return bool `[R, P, K]`: which token is in which cluster."""
    return label[..., None] == torch.arange(k, device=label.device)


def _squared_distance(x: Tensor, centre: Tensor) -> Tensor:
    """Return `[R, P, K]`."""
    product = x @ centre.transpose(1, 2)
    return (x.square().sum(2)[..., None] + centre.square().sum(2)[:, None] - 2 * product).clamp_min(0)


def _nearest(x: Tensor, centre: Tensor, metric: str, empty: str, ok: Tensor | None) -> Tensor:
    """Return the nearest centre of every token, `[R, P]`, K for padding."""
    if metric == "cosine":
        distance = 1 - x @ functional.normalize(centre, dim=2).transpose(1, 2)
    else:
        distance = _squared_distance(x, centre)
    nearest, label = distance.min(2)
    k = centre.shape[1]
    label = label if ok is None else label.masked_fill(~ok, k)
    if empty == "keep":
        return label
    nearest = nearest if ok is None else nearest.masked_fill(~ok, -1.0)
    # the i-th cluster without members takes the i-th farthest token; column P swallows what the others would write
    order = nearest.argsort(dim=1, descending=True, stable=True)
    missing = ~_members(label, k).any(1)
    farthest = order.gather(1, (missing.long().cumsum(1) - 1).clamp_min(0))
    target = torch.where(missing, farthest, x.shape[1])
    spare = functional.pad(label, (0, 1))
    return spare.scatter(1, target, torch.arange(k, device=x.device).expand_as(target))[:, :-1]

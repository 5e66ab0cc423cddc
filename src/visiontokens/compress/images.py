"""The vision tokens of every image at once: counting, choosing and gathering without a loop over rows or images."""

from __future__ import annotations

import torch
from torch import Tensor


def sizes(image: Tensor) -> Tensor:
    """Return the vision tokens alive of every image, `[I]`; `image` `[B, S]` numbers them (-1: text, padding)."""
    return torch.bincount(image.flatten() + 1)[1:]


def places(image: Tensor, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sort the tokens of a batch by image.

    Args:
        image: the image of every token, `[B, S]`; -1 is text or padding.
        order: flat indices `[B * S]` in the order that tokens of one image shall have; default: reading order.

    Returns:
        Flat indices sorted by image (text first), and how many come before those of each image, `[I]`.
    """
    group = image.flatten() + 1
    by_image = group.argsort(stable=True) if order is None else order[group[order].argsort(stable=True)]
    count = torch.bincount(group, minlength=1)
    return by_image, count.cumsum(0)[:-1]


def top_per_image(score: Tensor, image: Tensor, count: Tensor) -> Tensor:
    """Flag the highest-scoring vision tokens of every image.

    Args:
        score: `[B, S]`; of equal scores the earlier token wins.
        image: the image of every token, `[B, S]`; -1 is text or padding.
        count: how many to flag of each image, `[I]`.

    Returns:
        bool `[B, S]`, False for text and padding.
    """
    order, first = places(image, score.flatten().argsort(descending=True, stable=True))
    own = image.flatten()[order]
    number = own.clamp_min(0)
    steps = torch.arange(len(order), device=order.device)
    if not len(first):
        return torch.zeros_like(image, dtype=torch.bool)
    best = (own >= 0) & (steps - first[number] < count[number])
    return torch.empty_like(best).scatter(0, order, best).view_as(image)


def slots(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the tokens of every image stand: flat indices into `[B * S]`, and which of them are real.

    Both are `[I, M]` with M the tokens of the largest image; tokens keep their reading order.
    """
    order, first = places(image)
    count = sizes(image)
    steps = torch.arange(int(count.max()) if len(count) else 0, device=image.device)
    ok = steps < count[:, None]
    return order[(first[:, None] + steps).clamp_max(len(order) - 1)], ok

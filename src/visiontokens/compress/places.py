"""Arithmetic on the places of a sequence: which token may see which, and where flagged tokens are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from visiontokens.compress.sequence import Seq


def compact(mask: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return where the tokens flagged in `mask` `[B, S]` are, in order, `[B, W]`; W is the longest row's number.

    Shorter rows are filled up with places of other tokens, each at most once, where the second result `[B, W]` is
    False; it is `None` when there are none.
    """
    count = mask.sum(1)
    width = int(count.max())
    index = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)[:, :width]
    ok = torch.arange(width, device=index.device) < count[:, None]
    return index, None if bool(ok.all()) else ok


def take(values: Tensor, index: Tensor) -> Tensor:
    """Return the rows `[B, W, D]` of `values` `[B, S, D]` at `index` `[B, W]`."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def put(values: Tensor, index: Tensor, ok: Tensor | None, new: Tensor) -> Tensor:
    """Return `values` `[B, S, D]` with `new` `[B, W, D]` at the places that `compact` gave."""
    if ok is not None:
        new = torch.where(ok[..., None], new, take(values, index).to(new.dtype))
    return values.scatter(1, index[..., None].expand_as(new), new.to(values.dtype))


def visible(seq: Seq, start: int = 0) -> Tensor:
    """Return which keys the queries from `start` on may see, bool `[B, 1, S - start, S]`; each sees itself.

    Causal, inside a packed sample, the shared prefix and the own turn, real tokens only.
    """
    size = seq.pos.shape[1]
    steps = torch.arange(size, device=seq.pos.device)
    allowed = (steps[start:, None] >= steps)[None].expand(seq.pos.shape[0], -1, -1)
    if seq.doc is not None:
        allowed = allowed & (seq.doc[:, start:, None] == seq.doc[:, None, :])
    if seq.seg is not None:
        allowed = allowed & ((seq.seg[:, None, :] == 0) | (seq.seg[:, start:, None] == seq.seg[:, None, :]))
    if seq.ok is not None:
        allowed = allowed & seq.ok[:, None, :]
    return (allowed | (steps[start:, None] == steps))[:, None]

"""The output layer: which rows it runs on, and the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from visiontokens.compress.base import Seq
from visiontokens.models.splice import IGNORE

Rows = tuple[Tensor, Tensor, Tensor, Tensor | None]


def labelled_rows(
    seq: Seq, labels: Tensor, segments: Tensor | None, valid: Tensor, weights: Tensor | None = None
) -> Rows:
    """Return batch rows, places in `seq`, targets and loss weights of every labelled token.

    A token is predicted by its left neighbour, or by the end of the shared prefix when it opens an isolated turn.
    Labels whose predictor was dropped inside the language model are left out.

    Args:
        seq: what survived the last layer.
        labels: `[B, S]` over the full spliced sequence, -100 = ignore.
        segments: `[B, S]` or `None`.
        valid: real tokens of the full sequence, bool `[B, S]`.
        weights: loss weight of every token as a target, `[B, S]`, or `None` (all alike).
    """
    row, col = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)
    before = col
    target = labels[row, col + 1]
    if segments is not None:
        steps = torch.arange(labels.shape[1], device=labels.device)
        end = torch.where(segments == 0, steps, -1).amax(1)
        opens = (segments[row, col + 1] > 0) & (segments[row, col] != segments[row, col + 1])
        before = torch.where(opens, end[row], col)
    steps = torch.arange(seq.src.shape[1], device=labels.device).expand_as(seq.src)
    place = torch.full_like(labels, -1)
    place.scatter_reduce_(1, seq.src, torch.where(seq.valid, steps, -1), "amax")
    at = place[row, before.clamp_min(0)]
    usable = (at >= 0) & (before >= 0) & valid[row, before.clamp_min(0)]
    return row[usable], at[usable], target[usable], None if weights is None else weights[row, col + 1][usable]


def next_token_loss(hidden: Tensor, rows: Rows, head: nn.Module, items: Tensor | int | None = None) -> Tensor:
    """Return the weighted cross-entropy summed over labelled rows, divided by their total weight or by `items`.

    Args:
        hidden: normed states `[B, S, D]`.
        rows: from `labelled_rows`.
        head: the output layer, D -> V.
        items: total weight (number) of the labelled tokens of the whole optimizer step, when gradients are accumulated.
    """
    batch, place, target, weight = rows
    logits = head(hidden[batch, place]).float()
    if weight is None:
        total = functional.cross_entropy(logits, target, reduction="sum")
        return total / (max(len(target), 1) if items is None else items)
    total = (functional.cross_entropy(logits, target, reduction="none") * weight).sum()
    return total / (weight.sum().clamp_min(1e-9) if items is None else items)


def share(rows: Rows, items: Tensor | int | None = None) -> Tensor | float:
    """Return the part of an optimizer step's target weight that these rows hold (1 without `items`)."""
    if items is None:
        return 1.0
    weight = rows[3]
    return (len(rows[2]) if weight is None else weight.sum()) / items


def scatter_back(hidden: Tensor, seq: Seq, size: int) -> Tensor:
    """Write surviving states to their places in a zero sequence of the full length, `[B, size, D]`."""
    if hidden.shape[1] == size and seq.ok is None:
        return hidden
    if hidden.shape[1] == size and bool((seq.src[:, 1:] > seq.src[:, :-1]).all()):
        return hidden
    src = torch.where(seq.valid, seq.src, size)  # one spare slot takes the padding
    full = hidden.new_zeros(hidden.shape[0], size + 1, hidden.shape[-1])
    return full.scatter(1, src[..., None].expand_as(hidden), hidden)[:, :size]


def keep_rows(hidden: Tensor, logits_to_keep: int | Tensor) -> Tensor:
    """Return the rows whose logits are wanted, as `logits_to_keep` means in transformers."""
    if isinstance(logits_to_keep, Tensor):
        return hidden[:, logits_to_keep]
    return hidden[:, -logits_to_keep:] if logits_to_keep else hidden

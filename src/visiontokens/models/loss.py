"""The output layer: which rows it runs on, and the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from visiontokens.compress.base import Seq
from visiontokens.models.splice import IGNORE

Rows = tuple[Tensor, Tensor, Tensor, Tensor | None]
CHUNK = 2**25
"""Logits that the loss holds at a time (128 MiB in float32); all labelled rows together if they are fewer."""


def labelled_rows(seq: Seq, full: Seq, labels: Tensor, weights: Tensor | None = None) -> Rows:
    """Return batch rows, places in `seq`, targets and loss weights of every labelled token.

    A token is predicted by its left neighbour, or by the end of the shared prefix when it opens an isolated turn.
    Labels whose predictor was dropped inside the language model are left out, and so is the first token of a packed
    sample, which nothing predicts.

    Args:
        seq: what survived the last layer.
        full: what entered the first one, S tokens a row.
        labels: `[B, S]`, -100 = ignore.
        weights: loss weight of every token as a target, `[B, S]`, or `None` (all alike).
    """
    segments, documents = full.seg, full.doc
    row, col = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)
    before = col
    target = labels[row, col + 1]
    if segments is not None:
        steps = torch.arange(labels.shape[1], device=labels.device)
        doc = torch.zeros_like(labels) if documents is None else documents.clamp_min(0)
        end = torch.full((len(labels), int(doc.max()) + 1), -1, device=labels.device)
        end = end.scatter_reduce(1, doc, torch.where(segments == 0, steps, -1), "amax")
        opens = (segments[row, col + 1] > 0) & (segments[row, col] != segments[row, col + 1])
        before = torch.where(opens, end[row, doc[row, col + 1]], col)
    steps = torch.arange(seq.src.shape[1], device=labels.device).expand_as(seq.src)
    place = torch.full_like(labels, -1)
    place.scatter_reduce_(1, seq.src, torch.where(seq.valid, steps, -1), "amax")
    at = place[row, before.clamp_min(0)]
    usable = (at >= 0) & (before >= 0) & full.valid[row, before.clamp_min(0)]
    if documents is not None:
        usable &= documents[row, before.clamp_min(0)] == documents[row, col + 1]
    return row[usable], at[usable], target[usable], None if weights is None else weights[row, col + 1][usable]


def next_token_loss(hidden: Tensor, rows: Rows, head: nn.Linear, items: Tensor | int | None = None) -> Tensor:
    """Return the weighted cross-entropy summed over labelled rows, divided by their total weight or by `items`.

    Logits exist for at most `CHUNK / V` rows at a time, forward and backward: those of long batches are computed in
    chunks and again in the backward pass, which costs one more product with the output layer and no memory.

    Args:
        hidden: normed states `[B, S, D]`.
        rows: from `labelled_rows`.
        head: the output layer, D -> V.
        items: total weight (number) of the labelled tokens of the whole optimizer step, when gradients are accumulated.
    """
    batch, place, target, weight = rows
    states = hidden[batch, place]
    size = max(1, CHUNK // head.out_features)
    total = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, max(len(target), 1), size):
        part = slice(start, start + size)
        chunk = states[part], target[part], None if weight is None else weight[part], head
        if len(target) <= size or not torch.is_grad_enabled():
            total = total + _cross_entropy(*chunk)
        else:
            # Under ZeRO-3 the output layer's weight is whole only while its own forward runs, so that shapes seen in
            # forward and recomputation may differ: the check for that is off.
            total = total + checkpoint(_cross_entropy, *chunk, use_reentrant=False, determinism_check="none")
    if items is None:
        items = max(len(target), 1) if weight is None else weight.sum().clamp_min(1e-9)
    return total / items


def _cross_entropy(states: Tensor, target: Tensor, weight: Tensor | None, head: nn.Module) -> Tensor:
    """Return the summed (weighted) cross-entropy of states `[R, D]`."""
    logits = head(states).float()
    if weight is None:
        return functional.cross_entropy(logits, target, reduction="sum")
    return (functional.cross_entropy(logits, target, reduction="none") * weight).sum()


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
    """Return the rows whose logits are wanted, as `logits_to_keep` means in transformers.

    `[B, R]` names the rows of every sample by themselves.
    """
    if isinstance(logits_to_keep, Tensor):
        if logits_to_keep.ndim == 2:
            return hidden[torch.arange(len(hidden), device=hidden.device)[:, None], logits_to_keep]
        return hidden[:, logits_to_keep]
    return hidden[:, -logits_to_keep:] if logits_to_keep else hidden

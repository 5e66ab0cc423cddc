"""Putting image tokens in the place of their placeholders, and everything else in step with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

IGNORE = -100


class PlaceholderError(ValueError):
    """Image placeholders and images of a batch do not fit together."""


@dataclass(frozen=True)
class Layout:
    """Where every slot of the spliced sequence `[B, S2]` comes from.

    `source` indexes a table of all text embeddings (row-major), all image tokens and one zero row; `slot` is the
    input column; `image` and `rank` are the image number in reading order and the place in it (-1 and 0 for text);
    `ok` is False for padding (`None`: nothing is padded).
    """

    source: Tensor
    slot: Tensor
    image: Tensor
    rank: Tensor
    ok: Tensor | None
    shape: tuple[int, int]  # of the input

    @property
    def valid(self) -> Tensor:
        """Slots that are not padding, bool `[B, S2]`."""
        return torch.ones_like(self.slot, dtype=torch.bool) if self.ok is None else self.ok

    def embed(self, text: Tensor, images: Sequence[Tensor]) -> Tensor:
        """Return the spliced embeddings `[B, S2, D]` from text `[B, S, D]` and images `[M_i, D]`."""
        rows = [text.flatten(0, 1), *(image.to(text.dtype) for image in images), text.new_zeros(1, text.shape[-1])]
        return torch.cat(rows).index_select(0, self.source.flatten()).unflatten(0, self.source.shape)

    def labels(self, labels: Tensor) -> Tensor:
        """Return labels `[B, S2]`: vision tokens and padding are ignored (-100)."""
        self._check("labels", labels)
        return labels.gather(1, self.slot).masked_fill((self.image >= 0) | ~self.valid, IGNORE)

    def weights(self, weights: Tensor) -> Tensor:
        """Return loss weights `[B, S2]`; they count where there is a label."""
        self._check("loss_weights", weights)
        return weights.gather(1, self.slot)

    def segments(self, segments: Tensor) -> Tensor:
        """Return segments `[B, S2]`: vision tokens have that of their placeholder, padding -1."""
        self._check("segment_ids", segments)
        return segments.gather(1, self.slot).masked_fill(~self.valid, -1)

    def documents(self, documents: Tensor) -> Tensor:
        """Return every slot's packed sample `[B, S2]`: vision tokens have that of their placeholder, padding -1."""
        self._check("document_ids", documents)
        return documents.gather(1, self.slot).masked_fill(~self.valid, -1)

    def _check(self, name: str, value: Tensor) -> None:
        if tuple(value.shape) != self.shape:
            raise ValueError(f"{name} must have the shape of input_ids {self.shape}; found {tuple(value.shape)}")


def plan(
    input_ids: Tensor, attention_mask: Tensor | None, image_token: int, counts: Sequence[int], patches: Sequence[int]
) -> Layout:
    """Lay out a batch.

    Args:
        input_ids: `[B, S]`; an image is one placeholder, or a run of as many as it has tokens or patches.
        attention_mask: `[B, S]`, 0 = padding; may be missing.
        image_token: id of the placeholder.
        counts: tokens M_i of every image of the batch, in reading order.
        patches: uncompressed tokens of every image.

    Raises:
        PlaceholderError: placeholders and images do not match.
    """
    ids = input_ids.cpu().numpy()
    real = np.ones(ids.shape, bool) if attention_mask is None else attention_mask.cpu().numpy().astype(bool)
    starts, spans = _find((ids == image_token) & real, counts, patches)
    width = real.astype(np.int64)
    number = np.full(ids.shape, -1)
    for i, ((row, col), span) in enumerate(zip(starts, spans, strict=True)):
        width[row, col : col + span] = 0
        width[row, col] = counts[i]
        number[row, col] = i
    if list(spans) == list(counts):
        width[~real] = 1  # nothing changes length: keep the caller's padding where it is
    return _layout(width=width, number=number, real=real, counts=np.asarray(counts, np.int64), device=input_ids.device)


def image_rows(
    input_ids: Tensor, attention_mask: Tensor | None, image_token: int, counts: Sequence[int], patches: Sequence[int]
) -> list[int]:
    """Return the row of every image; arguments and errors as in `plan`."""
    mask = input_ids == image_token
    mask = mask if attention_mask is None else mask & attention_mask.bool()
    return [row for row, _ in _find(mask.cpu().numpy(), counts, patches)[0]]


def _find(mask: np.ndarray, counts: Sequence[int], patches: Sequence[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Return where each image starts and how many placeholders stand for it."""
    rows, cols = np.nonzero(mask)
    found = len(rows)
    for spans in ([1] * len(counts), list(counts), list(patches)):
        if sum(spans) == found:
            break
    else:
        raise PlaceholderError(
            f"{found} image placeholders for {len(counts)} images: expected {len(counts)} (one each), "
            f"{sum(counts)} (one per token) or {sum(patches)} (one per patch)"
        )
    starts, at = [], 0
    for i, span in enumerate(spans):
        end = at + span - 1
        if rows[at] != rows[end] or cols[end] - cols[at] != span - 1:
            raise PlaceholderError(f"row {rows[at]}: the {span} placeholders of image {i} are not one unbroken run")
        starts.append((int(rows[at]), int(cols[at])))
        at += span
    return starts, spans


def _layout(
    *, width: np.ndarray, number: np.ndarray, real: np.ndarray, counts: np.ndarray, device: torch.device
) -> Layout:
    """Build the index tables from how many slots every input slot fills and which image starts there."""
    batch, size = width.shape
    total = width.sum(1)
    longest = int(total.max())
    left = bool((~real[:, 0]).any())
    zero_row = batch * size + int(counts.sum())
    source = np.full((batch, longest), zero_row)
    slot, rank = np.zeros((2, batch, longest), np.int64)
    image = np.full((batch, longest), -1)
    ok = np.zeros((batch, longest), bool)
    image_start = batch * size + np.concatenate([[0], np.cumsum(counts)])
    for b in range(batch):
        place = slice(longest - total[b], longest) if left else slice(0, total[b])
        cols = np.repeat(np.arange(size), width[b])
        offset = np.arange(total[b]) - np.repeat(np.cumsum(width[b]) - width[b], width[b])
        img = number[b, cols]
        slot[b, place], rank[b, place], image[b, place], ok[b, place] = cols, offset, img, real[b, cols]
        source[b, place] = np.where(img >= 0, image_start[img] + offset, b * size + cols)
    mask = None if ok.all() else torch.from_numpy(ok).to(device)
    source_t, slot_t, image_t, rank_t = (torch.from_numpy(a).to(device) for a in (source, slot, image, rank))
    return Layout(source_t, slot_t, image_t, rank_t, mask, (batch, size))

"""What is alive inside the language model: one record that methods shorten without touching masks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from visiontokens.compress.places import compact


@dataclass
class Seq:
    """The sequence as one decoder layer sees it.

    `image` numbers the images of the batch in reading order (-1: text or padding); `rank` is a token's place in its
    image. `src` is the index in the full, uncompressed sequence, to which results are written back. `ok` is False
    for padding (`None`: nothing is padded). `seg` holds isolated turns (0 shared prefix, t>=1 turn t, -1 padding;
    `None`: plain causal attention). `doc` numbers the samples packed into a row (-1 padding; `None`: one sample a row);
    a token sees its own sample only. `mask` overrides the attention mask: bool `[B, 1, S, S]`, True = may attend.
    `shift` counts, per row, the positions that renumbering has closed up (`None`: none): what comes behind the
    sequence later stands so many positions lower than in the uncompressed one.
    """

    h: Tensor  # [B, S, D]
    pos: Tensor  # [B, S] rotary positions
    src: Tensor  # [B, S]
    image: Tensor  # [B, S]
    rank: Tensor  # [B, S]
    ok: Tensor | None = None  # [B, S]
    seg: Tensor | None = None  # [B, S]
    mask: Tensor | None = None  # [B, 1, S, S]
    doc: Tensor | None = None  # [B, S]
    shift: Tensor | None = None  # [B]
    memo: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def vis(self) -> Tensor:
        """Vision tokens, bool `[B, S]`."""
        return self.image >= 0

    @property
    def valid(self) -> Tensor:
        """Tokens that are not padding, bool `[B, S]`."""
        return torch.ones_like(self.pos, dtype=torch.bool) if self.ok is None else self.ok

    def last(self) -> Tensor:
        """Index of the last real token of each row, `[B]`."""
        steps = torch.arange(self.pos.shape[1], device=self.pos.device)
        return torch.where(self.valid, steps, -1).amax(1)

    def asking(self) -> tuple[Tensor, Tensor]:
        """Return the last real token of each row, `[B]`, and the keys that it may see, bool `[B, S]`.

        Raises:
            ValueError: samples are packed, so that a row has no one last token.
        """
        if self.doc is not None:
            raise ValueError(
                "packed rows have no one last token to watch: a method that asks declares packable = False"
            )
        rows = self.last()
        steps = torch.arange(self.pos.shape[1], device=rows.device)
        allowed = self.valid & (steps <= rows[:, None])
        if self.seg is not None:
            own = self.seg.gather(1, rows[:, None])
            allowed &= (self.seg == 0) | (self.seg == own)
        return rows, allowed

    def select(self, index: Tensor, ok: Tensor | None = None) -> Seq:
        """Return the tokens at `index` `[B, S2]`; slots where `ok` `[B, S2]` is False become padding."""
        old = self.valid.gather(1, index) if self.ok is not None else None
        both = old if ok is None else ok if old is None else old & ok
        h = self.h.gather(1, index[..., None].expand(-1, -1, self.h.shape[-1]))
        return self._rebuilt(h, self.pos.gather(1, index), index, both)

    def keep(self, mask: Tensor, *, renumber: bool = False) -> Seq:
        """Return only the tokens flagged in `mask` `[B, S]`, in order; shorter rows are padded on the right.

        With `renumber` the gaps are closed: survivors and the text behind them move down to consecutive positions.
        """
        index, ok = compact(mask & self.valid)
        kept = self.select(index, ok)
        return self._renumbered(kept, index) if renumber else kept

    def merge(self, start: Tensor, *, renumber: bool = False) -> Seq:
        """Average runs of neighbouring tokens: `start` `[B, S]` flags the first token of every run.

        A run's position is the floor of the mean position (exact integers) and its `src` is that of its last token,
        so the slot just before the text that follows stays occupied. Padding is dropped and re-made on the right.
        With `renumber` positions are consecutive afterwards, as in `keep`.
        """
        valid = self.valid
        start = start & valid
        group = (start.long().cumsum(1) - 1).clamp_min(0)
        count = start.sum(1)
        width = int(count.max())
        ones = valid.to(self.pos.dtype)
        size = torch.zeros_like(self.pos[:, :width]).scatter_add_(1, group, ones)
        total = torch.zeros_like(size).scatter_add_(1, group, self.pos * ones)
        steps = torch.arange(self.pos.shape[1], device=self.pos.device).expand_as(self.pos)
        last = torch.zeros_like(size).scatter_reduce_(1, group, steps * ones, "amax")
        h = self._averaged(group, valid, size, width)
        ok = torch.arange(width, device=size.device) < count[:, None]
        merged = self._rebuilt(h, total // size.clamp_min(1), last, None if bool(ok.all()) else ok)
        return self._renumbered(merged, last) if renumber else merged

    def _renumbered(self, new: Seq, index: Tensor) -> Seq:
        """Return `new`, whose tokens stood at `index` `[B, S2]` here, with the gaps between its positions closed."""
        offset = (self.pos - positions(self.valid, self.seg, self.doc)).gather(1, index)
        removed = self.valid.sum(1) - new.valid.sum(1)
        pos = (positions(new.valid, new.seg, new.doc) + offset).masked_fill(~new.valid, 0)
        return replace(new, pos=pos, shift=removed if self.shift is None else self.shift + removed, memo={})

    def _averaged(self, group: Tensor, valid: Tensor, size: Tensor, width: int) -> Tensor:
        source = self.h if self.ok is None else self.h * valid[..., None]
        out = self.h.new_zeros(self.h.shape[0], width, self.h.shape[-1])
        out = out.scatter_add(1, group[..., None].expand_as(source), source)
        return out / size.clamp_min(1)[..., None].to(out.dtype)

    def _rebuilt(self, h: Tensor, pos: Tensor, index: Tensor, ok: Tensor | None) -> Seq:
        """Return a sequence of new states whose bookkeeping is that of the tokens at `index`."""
        image, rank = self.image.gather(1, index), self.rank.gather(1, index)
        seg = None if self.seg is None else self.seg.gather(1, index)
        doc = None if self.doc is None else self.doc.gather(1, index)
        if ok is not None:
            image = image.masked_fill(~ok, -1)
            seg = None if seg is None else seg.masked_fill(~ok, -1)
            doc = None if doc is None else doc.masked_fill(~ok, -1)
        mask = None if self.mask is None else _take_mask(self.mask, index)
        return replace(
            self,
            h=h,
            pos=pos,
            src=self.src.gather(1, index),
            image=image,
            rank=rank,
            ok=ok,
            seg=seg,
            mask=mask,
            doc=doc,
            memo={},
        )


def positions(ok: Tensor, segments: Tensor | None = None, documents: Tensor | None = None) -> Tensor:
    """Return rotary positions `[B, S]`: real tokens of a sample count from 0; every isolated turn restarts after the
    sample's prefix. Without `documents` a row is one sample.
    """
    pos = (ok.long().cumsum(1) - 1).clamp_min(0)
    if documents is not None:
        pos = pos - _first(pos, documents.clamp_min(0), ok).gather(1, documents.clamp_min(0))
        pos = pos.clamp_min(0)  # padding
    if segments is None:
        return pos
    doc = torch.zeros_like(pos) if documents is None else documents.clamp_min(0)
    turn = segments.clamp_min(0)
    place = doc * (int(turn.max()) + 1) + turn
    first = _first(pos, place, ok)
    prefix = torch.zeros(len(pos), int(doc.max()) + 1, dtype=pos.dtype, device=pos.device)
    prefix = prefix.scatter_add(1, doc, ((segments == 0) & ok).to(pos.dtype))
    return torch.where(segments > 0, pos - first.gather(1, place) + prefix.gather(1, doc), pos)


def _first(pos: Tensor, group: Tensor, ok: Tensor) -> Tensor:
    """Return the lowest position in every group of real tokens, `[B, groups]`."""
    far = torch.full((len(pos), int(group.max()) + 1), pos.shape[1], device=pos.device, dtype=pos.dtype)
    return far.scatter_reduce(1, group, torch.where(ok, pos, pos.shape[1]), "amin")


def _take_mask(mask: Tensor, index: Tensor) -> Tensor:
    size = index.shape[1]
    rows = mask.expand(index.shape[0], -1, -1, -1).gather(2, index[:, None, :, None].expand(-1, -1, -1, mask.shape[-1]))
    return rows.gather(3, index[:, None, None, :].expand(-1, -1, size, -1))


@dataclass
class Probe:
    """Asks one attention layer for a row of its weights; see `Compressor.watch`.

    After the layer ran, `weights` `[B, S]` holds the attention of query `rows[b]`, averaged over heads, without
    gradient. `allowed` `[B, S]` are the keys that the query may see.
    """

    rows: Tensor  # [B]
    allowed: Tensor  # [B, S]
    weights: Tensor | None = None

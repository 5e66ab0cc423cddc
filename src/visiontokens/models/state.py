"""The key-value cache with a key mask per layer, and the state a predictor branches from."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from visiontokens.compress.places import compact


@dataclass(frozen=True)
class _Kept:
    """What `VisionCache.keep` worked out for one mask over one set of keys."""

    mask: Tensor
    before: Tensor | None
    index: Tensor
    ok: Tensor | None
    vision: Tensor


class VisionCache(DynamicCache):
    """A dynamic cache whose layers may hold different tokens.

    `key_ok[i]` `[B, K_i]` flags the real keys of layer i (`None`: all are); `next_pos` `[B]` is the rotary position
    of the next token, which counts uncompressed tokens; `shifts[i]` `[B]` is how many positions lower it stands in
    layer i, where a method has renumbered (`None`: in its own place). `vision[i]` `[B, P_i]` flags which of the keys
    that the prompt left in layer i are vision tokens; keys behind them are text.
    """

    def __init__(self) -> None:
        super().__init__()
        self.key_ok: list[Tensor | None] = []
        self.vision: list[Tensor] = []
        self.shifts: list[Tensor | None] = []
        self.next_pos: Tensor | None = None
        self._kept: _Kept | None = None

    def lengths(self) -> list[int]:
        """Keys held by every layer."""
        layers: list[Any] = self.layers
        return [layer.keys.shape[-2] for layer in layers]

    def fork(self) -> VisionCache:
        """Return a copy that can grow on its own; tensors are shared, which is safe as growing makes new ones."""
        twin = VisionCache()
        twin.layers = [copy.copy(layer) for layer in self.layers]
        twin.key_ok = list(self.key_ok)
        twin.vision = list(self.vision)
        twin.shifts = list(self.shifts)
        twin.next_pos = self.next_pos
        return twin

    def keep(self, layer: int, mask: Tensor) -> None:
        """Keep only the keys of one layer that are flagged in `mask` `[B, K]`, in order; for the end of a prefill.

        Rows that keep fewer are padded on the right. Layers that had the same keys and get the same mask share the
        record of what is real, so that one attention mask serves them all while decoding.
        """
        old, kept = self.key_ok[layer], self._kept
        if kept is None or kept.mask is not mask or kept.before is not old:
            index, ok = compact(mask if old is None else mask & old)
            vision = self.vision[layer].gather(1, index)
            kept = self._kept = _Kept(mask, old, index, ok, vision if ok is None else vision & ok)
        stored: Any = self.layers[layer]
        rows = kept.index[:, None, :, None].expand(-1, stored.keys.shape[1], -1, stored.keys.shape[3])
        stored.keys, stored.values = stored.keys.gather(2, rows), stored.values.gather(2, rows)
        self.key_ok[layer], self.vision[layer] = kept.ok, kept.vision

    def select(self, index: Tensor) -> VisionCache:
        """Return the rows at `index` as a new cache."""
        twin = self.fork()
        twin.batch_select_indices(index)
        return twin

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the given rows, in place."""
        super().batch_select_indices(indices)
        self._move_rows(indices)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder rows in place (beam search)."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self._move_rows(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row in place."""
        super().batch_repeat_interleave(repeats)
        if self.next_pos is not None:
            rows = torch.arange(len(self.next_pos), device=self.next_pos.device)
            self._move_rows(rows.repeat_interleave(repeats))

    def crop(self, max_length: int) -> None:
        """Refuse: layers of different lengths have no common place to cut.

        Raises:
            NotImplementedError: always (assisted decoding is not supported with compression).
        """
        raise NotImplementedError("a cache whose layers hold different tokens cannot be cropped")

    def _move_rows(self, index: Tensor) -> None:
        moved: dict[int, Tensor] = {}
        for held in (self.key_ok, self.shifts, self.vision):
            for i, rows in enumerate(held):
                if rows is not None:
                    if id(rows) not in moved:
                        moved[id(rows)] = rows[index]
                    held[i] = moved[id(rows)]
        if self.next_pos is not None:
            self.next_pos = self.next_pos[index]


@dataclass
class State:
    """A prompt that has been read: cache, and logits `[B, V]` after each row's last real token.

    `image_tokens` are the tokens that entered the language model for every image of the prompts, in reading order;
    states made from this one do not carry it.
    """

    cache: VisionCache
    logits: Tensor
    image_tokens: tuple[int, ...] = ()

    @property
    def next_pos(self) -> Tensor:
        """Rotary position of the next token of each row, `[B]`."""
        assert self.cache.next_pos is not None
        return self.cache.next_pos

    def __len__(self) -> int:
        return len(self.logits)

    def select(self, index: Tensor) -> State:
        """Return the rows at `index`; this state stays as it is."""
        return State(self.cache.select(index), self.logits[index])

    def expand(self, repeats: int | Tensor) -> State:
        """Repeat every row `repeats` times (or row b `repeats[b]` times), keeping copies of a row together."""
        rows = torch.arange(len(self), device=self.logits.device)
        return self.select(rows.repeat_interleave(repeats))

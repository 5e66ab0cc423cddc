"""Attention masks of a prefill and of its continuation, in the form that each kernel wants, built only when needed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from visiontokens.compress.base import Seq
from visiontokens.compress.places import visible

SDPA = "visiontokens_sdpa"
FLASH_2, FLASH_3 = "visiontokens_flash_attention_2", "visiontokens_flash_attention_3"
FLASH = (FLASH_2, FLASH_3)
"""Our attention functions, as `config._attn_implementation` names them; `attention` registers them."""


@dataclass
class PrefixMask:
    """Plain causal attention for the first `prefix` queries, an explicit mask for the others.

    Packed isolated turns share a long prefix (system prompt and image), for which the causal kernel does half the
    work of a masked one.
    """

    prefix: int
    tail: Tensor  # [B, 1, S - prefix, S], added to the scores


@dataclass(frozen=True)
class Block:
    """One packed sample: the tokens `start` to `stop` of a row, which see nothing else; `mask` as for one sample."""

    row: int
    start: int
    stop: int
    mask: PrefixMask | Tensor | None


@dataclass(frozen=True)
class BlockMask:
    """The block-diagonal mask of packed samples: attention runs block by block, so nothing is computed to be masked."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Runs:
    """What variable-length kernels take: runs of queries, each causal over a run of keys, aligned at their ends.

    `queries` and `keys` index the flattened `[B * S]` and `[B * K]`; run r is `queries[query_ends[r]:query_ends[r+1]]`
    over `keys[key_ends[r]:key_ends[r+1]]`. A shared prefix stands in the keys of each of its turns.
    """

    queries: Tensor  # [Q] int64
    keys: Tensor  # [K] int64
    query_ends: Tensor  # [R + 1] int32
    key_ends: Tensor  # [R + 1] int32
    longest_query: int
    longest_key: int

    @classmethod
    def of(cls, pairs: list[tuple[Tensor, Tensor]], device: torch.device) -> Runs:
        """Join runs, each given by its query and key indices."""
        lengths = [[len(pair[side]) for pair in pairs] for side in (0, 1)]
        ends = [torch.tensor([0, *side]).cumsum(0).to(device, torch.int32) for side in lengths]
        queries, keys = (torch.cat([pair[side] for pair in pairs]).to(device) for side in (0, 1))
        return cls(queries, keys, ends[0], ends[1], max(lengths[0]), max(lengths[1]))


def additive(allowed: Tensor, like: Tensor) -> Tensor:
    """Turn a bool mask (True = may attend) into one that is added to scores, in the dtype attention runs in."""
    kind = like.device.type
    autocast = torch.is_autocast_enabled(kind) and kind != "cpu"  # on the CPU `vision_sdpa` runs in float32
    dtype = torch.get_autocast_dtype(kind) if autocast else like.dtype
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)


def build_mask(seq: Seq, implementation: str) -> Any:
    """Return the attention mask of a prefill in the form the attention implementation wants.

    `None` (fast causal kernel) when there are no isolated turns, no packed samples, and padding, if any, is on the
    right: real queries then see real keys only, and what padded queries compute is never read.

    Raises:
        ValueError: the implementation cannot express a method's own mask.
    """
    plain = seq.mask is None and seq.seg is None and seq.doc is None
    if implementation in FLASH:
        if seq.mask is not None:
            raise ValueError(
                f"{implementation} cannot apply a mask of four dimensions; a method that sets one declares dense_mask"
            )
        return None if plain and seq.ok is None else prefill_runs(seq)
    causal_kernel = "sdpa" in implementation
    if plain and causal_kernel and (seq.ok is None or _right_padded(seq.ok)):
        return None
    if seq.mask is not None:
        eye = torch.eye(seq.pos.shape[1], dtype=torch.bool, device=seq.pos.device)
        return additive(seq.mask & seq.valid[:, None, None, :] | eye, seq.h)
    if seq.doc is not None and implementation == SDPA:
        return _blocks(seq)
    prefix = _shared_prefix(seq.seg, seq.ok) if implementation == SDPA else 0
    allowed = visible(seq, prefix)
    return PrefixMask(prefix, additive(allowed, seq.h)) if prefix else additive(allowed, seq.h)


def _right_padded(ok: Tensor) -> bool:
    return bool((ok[:, 1:] <= ok[:, :-1]).all())


def _shared_prefix(seg: Tensor | None, ok: Tensor | None) -> int:
    """Return how many leading queries of every row need nothing but causality."""
    if seg is None or (ok is not None and not _right_padded(ok)):
        return 0
    steps = torch.arange(seg.shape[1], device=seg.device)
    first = torch.where(seg > 0, steps, seg.shape[1]).amin()
    return int(first)


def _spans(doc: list[int]) -> list[tuple[int, int]]:
    """Return where the samples of one row start and stop; padding (-1) belongs to none."""
    edges = [0, *(i for i in range(1, len(doc)) if doc[i] != doc[i - 1]), len(doc)]
    return [(a, b) for a, b in pairwise(edges) if doc[a] >= 0]


def _blocks(seq: Seq) -> BlockMask:
    """Return packed samples as blocks, each with the mask it would have in a row of its own."""
    assert seq.doc is not None
    blocks = []
    for row, doc in enumerate(seq.doc.tolist()):
        for start, stop in _spans(doc):
            seg = None if seq.seg is None else seq.seg[row : row + 1, start:stop]
            inner: PrefixMask | Tensor | None = None
            if seg is not None and bool((seg > 0).any()):
                prefix = _shared_prefix(seg, None)
                steps = torch.arange(stop - start, device=seg.device)
                seen = (steps[prefix:, None] >= steps) & ((seg == 0) | (seg[0, prefix:, None] == seg))
                added = additive(seen[None, None], seq.h)
                inner = PrefixMask(prefix, added) if prefix else added
            blocks.append(Block(row, start, stop, inner))
    return BlockMask(tuple(blocks))


def prefill_runs(seq: Seq) -> Runs:
    """Return who sees whom in a prefill as runs: every sample's shared prefix, then each isolated turn behind it."""
    size = seq.pos.shape[1]
    ok = seq.valid.cpu()
    doc = ok.long() - 1 if seq.doc is None else torch.where(ok, seq.doc.cpu(), -1)
    seg = torch.zeros_like(doc) if seq.seg is None else seq.seg.cpu()
    pairs = []
    for row in range(len(doc)):
        for number in doc[row][ok[row]].unique_consecutive().tolist():
            own = (doc[row] == number).nonzero()[:, 0]
            turn = seg[row, own]
            prefix = own[turn == 0] + row * size
            if len(prefix):
                pairs.append((prefix, prefix))
            for t in turn[turn > 0].unique_consecutive().tolist():
                queries = own[turn == t] + row * size
                pairs.append((queries, torch.cat([prefix, queries])))
    return Runs.of(pairs, seq.pos.device)


def extension_mask(
    old_ok: Tensor | None, old_len: int, new_ok: Tensor | None, like: Tensor, implementation: str
) -> Any:
    """Return the mask of new tokens over a cache: all valid old keys, and new keys up to themselves.

    Args:
        old_ok: valid cached keys `[B, K]`; `None`: all.
        old_len: K.
        new_ok: valid new tokens `[B, T]`; `None`: all.
        like: new hidden states `[B, T, D]`.
        implementation: attention implementation name.

    Returns:
        `None` when a single new token sees everything (or any number of them with a flash kernel), `Runs` for flash
        kernels, else an additive mask `[B, 1, T, K + T]`.
    """
    batch, size = like.shape[:2]
    if old_ok is None and new_ok is None and (size == 1 or implementation in FLASH):
        return None
    ones = torch.ones(batch, 1, dtype=torch.bool, device=like.device)
    old = ones.expand(-1, old_len) if old_ok is None else old_ok
    new = ones.expand(-1, size) if new_ok is None else new_ok
    if implementation in FLASH:
        keys = torch.cat([old, new], 1)
        rows = [(q.nonzero()[:, 0], k.nonzero()[:, 0]) for q, k in zip(new, keys, strict=True)]
        pairs = [(q + row * size, k + row * keys.shape[1]) for row, (q, k) in enumerate(rows) if len(q)]
        return Runs.of(pairs, like.device)
    steps = torch.arange(size, device=like.device)
    own = (steps[:, None] >= steps) & new[:, None, :] | (steps[:, None] == steps)
    return additive(torch.cat([old[:, None, :].expand(-1, size, -1), own], 2)[:, None], like)

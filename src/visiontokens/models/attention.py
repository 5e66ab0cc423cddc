"""Attention masks built only when needed, and the attention function that understands them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from visiontokens.compress.base import Probe, Seq

SDPA = "visiontokens_sdpa"
LONG = 256  # tokens from which blocks are faster than torch's kernel on a CPU
BLOCK = 192  # queries


@dataclass
class PrefixMask:
    """Plain causal attention for the first `prefix` queries, an explicit mask for the others.

    Packed isolated turns share a long prefix (system prompt and image), for which the causal kernel does half the
    work of a masked one.
    """

    prefix: int
    tail: Tensor  # [B, 1, S - prefix, S], added to the scores


def vision_sdpa(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """Run torch's scaled dot-product attention; accept a `PrefixMask` and answer a `Probe`.

    Args:
        module: the attention layer; `module.probe`, when set, is filled and removed.
        query: `[B, H, S, d]`.
        key: `[B, H_kv, K, d]`.
        value: `[B, H_kv, K, d]`.
        attention_mask: `None` (causal), an additive mask `[B, 1, S, K]`, or a `PrefixMask`.
        **kwargs: passed on.

    Returns:
        The output `[B, S, H, d]` and `None`.
    """
    probe: Probe | None = getattr(module, "probe", None)
    if probe is not None:
        _answer(probe, module, query, key, kwargs.get("scaling"))
    if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            if _in_blocks(query, key, attention_mask):
                dtype = torch.get_autocast_dtype("cpu")
                scaled = query * (kwargs.get("scaling") or query.shape[-1] ** -0.5)
                out = blocked_attention(scaled.to(dtype), key.to(dtype), value.to(dtype), attention_mask)
                return out.transpose(1, 2), None
            # the CPU kernel's bfloat16 backward is slower than its float32 one
            return _attend(module, query.float(), key.float(), value.float(), attention_mask, **kwargs)
    return _attend(module, query, key, value, attention_mask, **kwargs)


def _in_blocks(query: Tensor, key: Tensor, mask: Any) -> bool:
    """Whether a prefill is long enough for `blocked_attention` to be faster than torch's kernel on a CPU."""
    fits = query.shape[1] == key.shape[1] and query.shape[2] == key.shape[2] > LONG
    return fits and (mask is None or isinstance(mask, PrefixMask))


def blocked_attention(query: Tensor, key: Tensor, value: Tensor, mask: PrefixMask | None) -> Tensor:
    """Attend causally, blocks of queries to the keys before them: half the work of torch's CPU kernel.

    In bfloat16 at 770 tokens and heads of 32 it takes 0.7 of the kernel's time, forward and backward.

    Args:
        query: `[B, H, S, d]`, already scaled.
        key: `[B, H, S, d]`.
        value: `[B, H, S, d]`.
        mask: `None` (causal) or what the queries behind the prefix may see.

    Returns:
        `[B, H, S, d]`.
    """
    size = query.shape[2]
    prefix = size if mask is None else mask.prefix
    ahead = torch.full((BLOCK, BLOCK), float("-inf"), dtype=query.dtype).triu(1)
    tail = None if mask is None else mask.tail.to(query.dtype)
    rows = []
    for row, (q, k, v) in enumerate(zip(query, key, value, strict=True)):  # row by row: what it reads stays in cache
        parts = []
        for start in range(0, prefix, BLOCK):
            end = min(start + BLOCK, prefix)
            scores = q[:, start:end] @ k[:, :end].mT
            scores[..., start:] += ahead[: end - start, : end - start]
            parts.append(scores.softmax(-1) @ v[:, :end])
        if tail is not None:
            parts.append((q[:, prefix:] @ k.mT + tail[row]).softmax(-1) @ v)
        rows.append(torch.cat(parts, 1))
    return torch.stack(rows)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    if not isinstance(attention_mask, PrefixMask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    p = attention_mask.prefix
    head, _ = sdpa_attention_forward(module, query[:, :, :p], key[:, :, :p], value[:, :, :p], None, **kwargs)
    tail, _ = sdpa_attention_forward(module, query[:, :, p:], key, value, attention_mask.tail, **kwargs)
    return torch.cat([head, tail], dim=1), None


@torch.no_grad()
def _answer(probe: Probe, module: Any, query: Tensor, key: Tensor, scaling: float | None) -> None:
    """Store the head-mean attention row that `probe` asks for, and switch the probe off."""
    rows = probe.rows[:, None, None, None].expand(-1, query.shape[1], 1, query.shape[-1])
    q = query.gather(2, rows).float()
    k = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1).float()
    scores = q @ k.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = scores.masked_fill(~probe.allowed[:, None, None, :], float("-inf"))
    probe.weights = scores.softmax(-1).mean(1)[:, 0]
    module.probe = None


AttentionInterface.register(SDPA, vision_sdpa)
AttentionMaskInterface.register(SDPA, sdpa_mask)


def additive(allowed: Tensor, like: Tensor) -> Tensor:
    """Turn a bool mask (True = may attend) into one that is added to scores, in the dtype attention runs in."""
    kind = like.device.type
    autocast = torch.is_autocast_enabled(kind) and kind != "cpu"  # on the CPU `vision_sdpa` runs in float32
    dtype = torch.get_autocast_dtype(kind) if autocast else like.dtype
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)


def build_mask(seq: Seq, implementation: str) -> Any:
    """Return the attention mask of a prefill in the form the attention implementation wants.

    `None` (fast causal kernel) when there are no isolated turns and padding, if any, is on the right: real queries
    then see real keys only, and what padded queries compute is never read.

    Raises:
        ValueError: the implementation cannot express isolated turns or a method's own mask.
    """
    plain = seq.mask is None and seq.seg is None
    if implementation.startswith("flash_attention"):
        if not plain:
            raise ValueError(f"{implementation} cannot isolate turns or apply a method's mask; use sdpa or eager")
        return None if seq.ok is None else seq.ok
    causal_kernel = "sdpa" in implementation
    if plain and causal_kernel and (seq.ok is None or _right_padded(seq.ok)):
        return None
    if seq.mask is not None:
        eye = torch.eye(seq.pos.shape[1], dtype=torch.bool, device=seq.pos.device)
        return additive(seq.mask & seq.valid[:, None, None, :] | eye, seq.h)
    prefix = _shared_prefix(seq) if implementation == SDPA else 0
    allowed = _allowed(seq, prefix)
    return PrefixMask(prefix, additive(allowed, seq.h)) if prefix else additive(allowed, seq.h)


def _right_padded(ok: Tensor) -> bool:
    return bool((ok[:, 1:] <= ok[:, :-1]).all())


def _shared_prefix(seq: Seq) -> int:
    """Return how many leading queries of every row need nothing but causality."""
    if seq.seg is None or (seq.ok is not None and not _right_padded(seq.ok)):
        return 0
    steps = torch.arange(seq.pos.shape[1], device=seq.pos.device)
    first = torch.where(seq.seg > 0, steps, seq.pos.shape[1]).amin()
    return int(first)


def _allowed(seq: Seq, start: int) -> Tensor:
    """Return which keys the queries from `start` on may see, bool `[B, 1, S - start, S]`; each sees itself."""
    size = seq.pos.shape[1]
    steps = torch.arange(size, device=seq.pos.device)
    allowed = (steps[start:, None] >= steps)[None].expand(seq.pos.shape[0], -1, -1)
    if seq.seg is not None:
        allowed = allowed & ((seq.seg[:, None, :] == 0) | (seq.seg[:, start:, None] == seq.seg[:, None, :]))
    if seq.ok is not None:
        allowed = allowed & seq.ok[:, None, :]
    return (allowed | (steps[start:, None] == steps))[:, None]


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
        `None` when a single new token sees everything, a key mask `[B, K + T]` for flash attention, else an additive
        mask `[B, 1, T, K + T]`.
    """
    batch, size = like.shape[:2]
    if old_ok is None and new_ok is None and (size == 1 or implementation.startswith("flash_attention")):
        return None
    ones = torch.ones(batch, 1, dtype=torch.bool, device=like.device)
    old = ones.expand(-1, old_len) if old_ok is None else old_ok
    new = ones.expand(-1, size) if new_ok is None else new_ok
    if implementation.startswith("flash_attention"):
        return torch.cat([old, new], 1)
    steps = torch.arange(size, device=like.device)
    own = (steps[:, None] >= steps) & new[:, None, :] | (steps[:, None] == steps)
    return additive(torch.cat([old[:, None, :].expand(-1, size, -1), own], 2)[:, None], like)

"""The attention functions: torch's kernel and flash attention, with masks of our own and probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask, sdpa_mask

from visiontokens.compress.base import Probe
from visiontokens.models.masks import FLASH_2, FLASH_3, SDPA, BlockMask, PrefixMask, Runs

LONG = 256  # tokens from which blocks are faster than torch's kernel on a CPU
BLOCK = 192  # queries


def vision_sdpa(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """Run torch's scaled dot-product attention; accept our masks and answer a `Probe`.

    Args:
        module: the attention layer; `module.probe`, when set, is filled and removed.
        query: `[B, H, S, d]`.
        key: `[B, H_kv, K, d]`.
        value: `[B, H_kv, K, d]`.
        attention_mask: `None` (causal), an additive mask `[B, 1, S, K]`, a `PrefixMask` or a `BlockMask`.
        **kwargs: passed on.

    Returns:
        The output `[B, S, H, d]` and `None`.
    """
    probe: Probe | None = getattr(module, "probe", None)
    if probe is not None:
        _answer(probe, module, query, key, kwargs.get("scaling"))
    if isinstance(attention_mask, BlockMask):
        return _per_block(module, query, key, value, attention_mask, **kwargs), None
    return _dense(module, query, key, value, attention_mask, **kwargs)


def _per_block(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, **kwargs: Any) -> Tensor:
    """Attend block by block and lay the results side by side; what belongs to no block is zero."""
    batch, heads, size, width = query.shape
    rows: list[list[Tensor]] = [[] for _ in range(batch)]
    ends = [0] * batch
    for block in mask.blocks:
        row, span = slice(block.row, block.row + 1), slice(block.start, block.stop)
        rows[block.row].append(query.new_zeros(1, block.start - ends[block.row], heads, width))
        part, _ = _dense(module, query[row, :, span], key[row, :, span], value[row, :, span], block.mask, **kwargs)
        rows[block.row].append(part)
        ends[block.row] = block.stop
    for parts, end in zip(rows, ends, strict=True):
        parts.append(query.new_zeros(1, size - end, heads, width))
    return torch.cat([torch.cat(parts, 1) for parts in rows])


def _dense(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
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


@dataclass(frozen=True)
class FlashFunctions:
    """The two entry points of a flash-attention package; both align the causal mask at the last key."""

    dense: Callable[..., Any]
    ragged: Callable[..., Any]


PACKAGES = {FLASH_2: "flash_attn", FLASH_3: "flash_attn_interface"}
"""Package that each flash implementation imports."""


@lru_cache
def flash_functions(implementation: str) -> FlashFunctions:
    """Import and return the kernels of an implementation.

    Raises:
        ImportError: the package is not installed or does not load here.
    """
    package = import_module(PACKAGES[implementation])
    return FlashFunctions(package.flash_attn_func, package.flash_attn_varlen_func)


def vision_flash(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """Run flash attention; accept `Runs` and answer a `Probe`.

    Args:
        module: the attention layer; `module.config` names the implementation, `module.probe` as in `vision_sdpa`.
        query: `[B, H, S, d]`.
        key: `[B, H_kv, K, d]`.
        value: `[B, H_kv, K, d]`.
        attention_mask: `None` (causal, aligned at the last key), valid keys `[B, K]`, or `Runs`.
        **kwargs: `scaling` is used.

    Returns:
        The output `[B, S, H, d]`, zero for queries that are in no run, and `None`.
    """
    owner: Any = module
    probe: Probe | None = getattr(owner, "probe", None)
    if probe is not None:
        _answer(probe, module, query, key, kwargs.get("scaling"))
    functions = flash_functions(owner.config._attn_implementation)
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    q, k, v = (x.transpose(1, 2).to(dtype) for x in (query, key, value))
    if isinstance(attention_mask, Tensor):
        attention_mask = _padded_runs(attention_mask, q.shape[1])
    options = {"softmax_scale": kwargs.get("scaling"), "causal": True}
    if attention_mask is None:
        return _first(functions.dense(q, k, v, **options)), None
    runs: Runs = attention_mask
    out = functions.ragged(
        q.flatten(0, 1)[runs.queries], k.flatten(0, 1)[runs.keys], v.flatten(0, 1)[runs.keys],
        cu_seqlens_q=runs.query_ends, cu_seqlens_k=runs.key_ends,
        max_seqlen_q=runs.longest_query, max_seqlen_k=runs.longest_key, **options,
    )  # fmt: skip
    flat = q.new_zeros(q.shape[0] * q.shape[1], *q.shape[2:])
    return flat.index_copy(0, runs.queries, _first(out)).unflatten(0, q.shape[:2]), None


def _first(out: Any) -> Tensor:
    """Return the attention output; some versions return the log-sum-exp too."""
    return out[0] if isinstance(out, tuple) else out


def _padded_runs(valid: Tensor, queries: int) -> Runs:
    """Return the runs of a batch whose last `queries` keys ask; `valid` `[B, K]` flags real keys."""
    size = valid.shape[1]
    pairs = []
    for row, ok in enumerate(valid.bool()):
        keys = ok.nonzero()[:, 0]
        asking = keys[keys >= size - queries] - (size - queries)
        pairs.append((asking + row * queries, keys + row * size))
    return Runs.of([pair for pair in pairs if len(pair[0])], valid.device)


AttentionInterface.register(SDPA, vision_sdpa)
AttentionMaskInterface.register(SDPA, sdpa_mask)
for _name in (FLASH_2, FLASH_3):
    AttentionInterface.register(_name, vision_flash)
    AttentionMaskInterface.register(_name, flash_attention_mask)

"""A stock decoder layer with only some tokens as queries and all tokens as keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward, rotate_half

from visiontokens.compress.base import Seq
from visiontokens.compress.places import compact, take, visible
from visiontokens.models.masks import FLASH, additive

Rope = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Asking:
    """The queries of a layer: where they are `[B, Q]`, and their additive mask `[B, 1, Q, S]` and rotary angles."""

    index: Tensor
    mask: Tensor
    rope: Rope


def asking(seq: Seq, queries: Tensor, rope: Rope, implementation: str) -> Asking:
    """Return what the tokens flagged in `queries` `[B, S]` need to be the queries of a layer.

    Args:
        seq: the keys; its own mask, if it has one, decides who sees whom.
        queries: padding among them is left out.
        rope: rotary angles of all tokens.
        implementation: attention implementation name.

    Raises:
        ValueError: a flash kernel, which cannot express it.
    """
    if implementation in FLASH:
        raise ValueError(
            f"{implementation} cannot run a layer with some of its tokens as queries; a method that does so declares "
            "dense_mask"
        )
    index, _ = compact(queries & seq.valid)
    allowed = visible(seq) if seq.mask is None else seq.mask & seq.valid[:, None, None, :]
    size = seq.pos.shape[1]
    allowed = allowed.gather(2, index[:, None, :, None].expand(-1, -1, -1, size))
    itself = index[:, None, :, None] == torch.arange(size, device=index.device)
    angles = [angle.expand(len(index), -1, -1) for angle in rope]
    return Asking(index, additive(allowed | itself, seq.h), (take(angles[0], index), take(angles[1], index)))


def run_queries(layer: Any, seq: Seq, who: Asking, rope: Rope, cache: Any | None, **kwargs: Any) -> Tensor:
    """Return the states `[B, Q, D]` of the queries after a LLaMA layer; all tokens of `seq` give keys and values.

    The layer's norms, projections, attention and MLP are used as they are, and it is recomputed in the backward pass
    where the layer itself would be. A padded query's state means nothing.
    """

    def run(h: Tensor) -> Tensor:
        """Run the layer on states `[B, S, D]`."""
        return _run(layer, h, who, rope, cache, **kwargs)

    if layer.gradient_checkpointing and layer.training:
        out: Tensor = layer._gradient_checkpointing_func(run, seq.h)
        return out
    return run(seq.h)


def _run(layer: Any, h: Tensor, who: Asking, rope: Rope, cache: Any | None, **kwargs: Any) -> Tensor:
    attention = layer.self_attn
    normed = layer.input_layernorm(h)
    query, key, value = (
        project(states).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for project, states in (
            (attention.q_proj, take(normed, who.index)),
            (attention.k_proj, normed),
            (attention.v_proj, normed),
        )
    )
    query, key = _turn(query, who.rope), _turn(key, rope)
    if cache is not None:
        key, value = cache.update(key, value, attention.layer_idx)
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
    dropout = attention.attention_dropout if attention.training else 0.0
    mixed, _ = attend(attention, query, key, value, who.mask, dropout=dropout, scaling=attention.scaling, **kwargs)
    states: Tensor = take(h, who.index) + attention.o_proj(mixed.flatten(2))
    return states + layer.mlp(layer.post_attention_layernorm(states))


def _turn(x: Tensor, rope: Rope) -> Tensor:
    """Return `x` `[B, H, S, d]` with rotary positions applied."""
    cos, sin = (angle[:, None] for angle in rope)
    turned: Tensor = x * cos + rotate_half(x) * sin
    return turned

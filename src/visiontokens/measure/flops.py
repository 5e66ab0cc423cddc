"""Analytic cost of a LLaMA decoder with a different number of tokens in every layer.

One multiply-accumulate counts as two FLOPs. Attention scores are counted densely (query times key rows, causal
masks are not halved), which is what kernels without block skipping compute and what PyTorch's own counter reports.
Norms, activations, rotary embeddings and softmax are left out, as usual.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

LLAVOLTA_TFLOPS_FIXED = 0.80
"""TFLOPs that do not depend on vision tokens (text and output head) in LLaVolta's Table 5."""
LLAVOLTA_TFLOPS_PER_TOKEN = 404.75e-6
"""TFLOPs per vision token and layer of a 7B LLaMA: `2 (4 D^2 + 3 D F)` with D = 4096, F = 11008."""


class _LlamaConfig(Protocol):
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int


@dataclass(frozen=True)
class LlamaShape:
    """The sizes that fix a LLaMA decoder's cost."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vocab: int

    @classmethod
    def of(cls, config: _LlamaConfig) -> LlamaShape:
        """Read the sizes from a transformers LLaMA configuration."""
        return cls(
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            mlp=config.intermediate_size,
            vocab=config.vocab_size,
        )

    @property
    def kv_width(self) -> int:
        """Channels of the keys (and of the values) of one token."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def layer_flops(self) -> int:
        """FLOPs of one layer's linear maps for one token: q, k, v, o and the gated MLP."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_width
        return 2 * (attention + 3 * self.hidden * self.mlp)

    @property
    def head_flops(self) -> int:
        """FLOPs of the output head for one token."""
        return 2 * self.hidden * self.vocab


VICUNA_7B = LlamaShape(hidden=4096, layers=32, heads=32, kv_heads=32, mlp=11008, vocab=32000)
"""The language model of both papers' main tables."""
VICUNA_13B = LlamaShape(hidden=5120, layers=40, heads=40, kv_heads=40, mlp=13824, vocab=32000)
"""The larger language model (LLaVolta, Table 6; LLaVA-STF's scripts)."""


def score_flops(shape: LlamaShape, queries: float, keys: float) -> float:
    """Return the FLOPs of one layer's two attention products, `q k^T` and `weights v`, counted densely."""
    return 2 * 2 * queries * keys * shape.hidden


def _rows(shape: LlamaShape, vision: Sequence[float], text: float) -> list[float]:
    if len(vision) != shape.layers:
        raise ValueError(f"vision tokens per layer: found {len(vision)} numbers, expected {shape.layers}")
    return [v + text for v in vision]


def prefill_flops(
    shape: LlamaShape,
    vision_per_layer: Sequence[float],
    text: int,
    *,
    queries: Sequence[float] | None = None,
    attention: bool = True,
    head: Literal["all", "last", "none"] = "last",
) -> float:
    """Return the decoder's FLOPs for a prompt of vision and `text` tokens, batch 1.

    Args:
        shape: the decoder.
        vision_per_layer: vision tokens each layer sees, length `shape.layers`.
        text: tokens around the image, the same in all layers.
        queries: those of the vision tokens that are queries and pass the MLP in each layer, where not all are; the
            others cost their keys and values.
        attention: count the attention products too (LLaVolta's TFLOPs column leaves them out).
        head: output head for every position of the last layer, for the last one, or not at all.

    Raises:
        ValueError: the list has another length than the decoder has layers.
    """
    rows = _rows(shape, vision_per_layer, text)
    asking = rows if queries is None else _rows(shape, queries, text)
    keys_and_values = 2 * 2 * shape.hidden * shape.kv_width
    total = sum(asking) * shape.layer_flops + (sum(rows) - sum(asking)) * keys_and_values
    if attention:
        total += sum(score_flops(shape, q, n) for q, n in zip(asking, rows, strict=True))
    return total + {"all": asking[-1], "last": 1, "none": 0}[head] * shape.head_flops


def decode_flops(shape: LlamaShape, vision_per_layer: Sequence[float], text: int, *, attention: bool = True) -> float:
    """Return the FLOPs of generating one token after that prompt; its query also sees its own key.

    `vision_per_layer` are the vision tokens left in the cache (`Compressor.kv_per_layer`).

    Raises:
        ValueError: the list has another length than the decoder has layers.
    """
    rows = _rows(shape, vision_per_layer, text)
    total = float(shape.layers * shape.layer_flops + shape.head_flops)
    if attention:
        total += sum(score_flops(shape, 1, n + 1) for n in rows)
    return total


def kv_bytes(
    shape: LlamaShape, vision_per_layer: Sequence[float], text: int, *, bytes_per_value: int = 2
) -> list[float]:
    """Return the bytes of cached keys and values of each layer after the prompt.

    `vision_per_layer` are the vision tokens left in the cache (`Compressor.kv_per_layer`).

    Raises:
        ValueError: the list has another length than the decoder has layers.
    """
    return [n * 2 * shape.kv_width * bytes_per_value for n in _rows(shape, vision_per_layer, text)]


def mlp_flops(widths: Sequence[int], tokens: float) -> float:
    """Return the FLOPs of a stack of linear maps `widths[0] -> widths[1] -> ...` on `tokens` rows."""
    return 2 * tokens * sum(a * b for a, b in itertools.pairwise(widths))


def llavolta_tflops(total_vision_tokens: float) -> float:
    """Return TFLOPs by the law that LLaVolta's printed column follows: `0.80 + 404.75e-6 x #Tokens`.

    The slope is a 7B layer's linear maps (2 x 202.375e6 weights), so attention products are not in it; the
    constant was fitted to the seven rows of its Table 5 (residuals up to 0.007).
    """
    return LLAVOLTA_TFLOPS_FIXED + LLAVOLTA_TFLOPS_PER_TOKEN * total_vision_tokens

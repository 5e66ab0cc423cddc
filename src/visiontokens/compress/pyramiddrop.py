"""PyramidDrop (arXiv 2410.17247): drop vision tokens step by step, ranked by what the next layer will attend to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor

from visiontokens.compress.base import Compressor, Decoder, Geometry, PositionParams, Seq, register
from visiontokens.compress.images import sizes, top_per_image
from visiontokens.compress.schedule import Depth, DepthField


class PyramidDropParams(PositionParams):
    """Before each of `layers`, keep int(N * ratio) vision tokens; `ratios` are shares of the original number."""

    layers: tuple[DepthField, ...] = (Depth(8), Depth(16), Depth(24))
    ratios: tuple[float, ...] = (0.5, 0.25, 0.125)
    positions: Literal["keep", "renumber"] = "renumber"

    @model_validator(mode="after")
    def _steps(self) -> Self:
        depths = [depth.layer / depth.of for depth in self.layers]
        if not depths or min(depths) <= 0 or sorted(set(depths)) != depths:
            raise ValueError(f"layers must be above 0 and rise; found {[str(d) for d in self.layers]}")
        falling = list(self.ratios) == sorted(self.ratios, reverse=True)
        if len(self.ratios) != len(depths) or not falling or not all(0 < r <= 1 for r in self.ratios):
            raise ValueError(
                f"ratios: expected {len(depths)} that do not rise, above 0 and up to 1; found {self.ratios}"
            )
        return self


@register("pyramiddrop")
class PyramidDrop(Compressor[PyramidDropParams]):
    """Keeps 1, 1/2, 1/4, 1/8 of the vision tokens in the four quarters of the decoder.

    A token's score is the attention, averaged over heads, that the last prompt token would pay it in the layer behind
    the cut (its input norm and q/k projections, on the states before it). Positions are renumbered after every drop,
    as in the official code. In training the last token of the sequence asks; the official code averages over the
    tokens just before each answer, which it knows from the labels.
    """

    Params = PyramidDropParams
    identity = MappingProxyType({"ratios": (1.0, 1.0, 1.0)})
    prefix_safe = False
    packable = False

    def _cuts(self, n_layers: int) -> dict[int, float]:
        """Return the ratio that holds from each cut on; of cuts that fall together in a shallow model the last."""
        return {depth.at(n_layers): r for depth, r in zip(self.params.layers, self.params.ratios, strict=True)}

    def begin(self, seq: Seq, lm: Decoder) -> Seq:
        """Count the tokens that the ratios are shares of."""
        self._original = sizes(seq.image)
        return seq

    def before_layer(self, index: int, seq: Seq, lm: Decoder) -> Seq:
        """Rank and drop at every cut."""
        ratio = self._cuts(self.geometry.llm_layers).get(index, 1.0)
        if ratio == 1.0 or not len(self._original):
            return seq
        count = (self._original.double() * ratio).long()
        best = top_per_image(attention_row(lm, index, seq), seq.image, count)
        return seq.keep(~seq.vis | best, renumber=self.params.renumber)

    @classmethod
    def settings(cls, geometry: Geometry) -> Iterator[dict[str, Any]]:
        """Ratios r, r^2, r^3 at cuts c, 2c, 3c: those near the published r = 1/2 and c = 8 of 32 first."""
        depth = geometry.llm_layers
        first = Depth(8).at(depth)
        every = [(step / 64, cut) for step in range(8, 65) for cut in range(1, -(-depth // 3))]
        for r, cut in sorted(every, key=lambda pair: abs(math.log2(2 * pair[0])) + abs(math.log2(pair[1] / first))):
            yield {"layers": [f"{n * cut}/{depth}" for n in (1, 2, 3)], "ratios": [r, r**2, r**3]}

    def tokens_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """int(N * ratio) from every cut on."""
        cuts, alive, counts = self._cuts(n_layers), n_vision, []
        for index in range(n_layers):
            alive = int(n_vision * cuts[index]) if index in cuts else alive
            counts.append(float(alive))
        return counts

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Projector; at every cut the keys of all tokens, one query, and one row of scores."""
        geometry = self.geometry
        before = [float(n_vision), *self.tokens_per_layer(n_vision, geometry.llm_layers)]
        ranked = [before[cut] + n_text for cut, r in self._cuts(geometry.llm_layers).items() if r < 1]
        width = geometry.llm_width
        return super().extra_flops(n_vision, n_text) + sum(2.0 * width * (width * (keys + 1) + keys) for keys in ranked)


@torch.no_grad()
def attention_row(lm: Decoder, index: int, seq: Seq) -> Tensor:
    """Return what the last token of each row would attend to in layer `index`, mean over heads, `[B, S]`.

    Raises:
        ValueError: samples are packed, so that a row has no one last token.
    """
    rows, allowed = seq.asking()
    layer: Any = lm.layers[index]
    attention, size = layer.self_attn, layer.self_attn.head_dim
    h = layer.input_layernorm(seq.h)
    last = torch.arange(len(rows), device=rows.device), rows
    cos, sin = lm.rotary_emb(h, position_ids=seq.pos)
    key = attention.k_proj(h).unflatten(-1, (-1, size))  # [B, S, H_kv, d]
    query = attention.q_proj(h[last]).unflatten(-1, (-1, size))  # [B, H, d]
    key = _rotated(key, cos[:, :, None], sin[:, :, None])
    query = _rotated(query, cos[last][:, None], sin[last][:, None])
    key = key.repeat_interleave(query.shape[1] // key.shape[2], 2).float()
    scores = torch.einsum("bhd,bshd->bhs", query.float(), key) / math.sqrt(size)
    return scores.masked_fill(~allowed[:, None], -torch.inf).softmax(-1).mean(1)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply LLaMA's rotary embedding, which pairs a channel of the first half with one of the second."""
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin

"""Random dropping of vision tokens inside the language model (LLaVolta, sec. 4.4: ratio 1 - 1/S before layer K)."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import torch
from pydantic import Field

from visiontokens.compress.base import Compressor, Decoder, Geometry, PositionParams, Seq, register
from visiontokens.compress.schedule import Depth, DepthField, cuts_and_strides


class RandomParams(PositionParams):
    """Drop all but one in `stride` vision tokens before `layer`; `seed` fixes the draw at test time."""

    layer: DepthField = Depth(2)
    stride: int = Field(default=8, ge=1)
    seed: int = 0


@register("random")
class RandomDrop(Compressor[RandomParams]):
    """Keeps N/S random vision tokens of every image from layer K on; survivors keep their order.

    In training every forward draws afresh. At test time one draw serves all images, so that an answer does not
    depend on which other questions are in the batch.
    """

    Params = RandomParams
    identity = MappingProxyType({"stride": 1})

    def before_layer(self, index: int, seq: Seq, lm: Decoder) -> Seq:
        """Drop tokens once, before layer K."""
        if index != self.params.layer.at(self.geometry.llm_layers):
            return seq
        n = self.geometry.n_vision
        if not bool(seq.vis.any()):
            return seq
        keep = n // self.params.stride
        draws = seq.pos.shape[0] if seq.doc is None else int(seq.image.max()) + 1  # one a row, or one an image
        chosen = torch.zeros(draws, n, dtype=torch.bool)
        if self.training:
            scores = torch.rand(draws, n)
        else:
            scores = torch.rand(1, n, generator=torch.Generator().manual_seed(self.params.seed)).expand_as(chosen)
        chosen = chosen.scatter(1, scores.topk(keep).indices, True).to(seq.pos.device)
        rank = seq.rank % n  # the frames of a video share a draw
        kept = chosen.gather(1, rank) if seq.doc is None else chosen[seq.image.clamp_min(0), rank]
        return seq.keep(~seq.vis | kept, renumber=self.params.renumber)

    @classmethod
    def settings(cls, geometry: Geometry) -> Iterator[dict[str, Any]]:
        """Every cut and stride, cuts near layer 2 of 32 first."""
        return cuts_and_strides(Depth(2), geometry.llm_layers, geometry.n_vision)

    def tokens_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """All tokens below layer K, N/S from it on."""
        cut = self.params.layer.at(n_layers)
        return [float(n_vision if i < cut else n_vision // self.params.stride) for i in range(n_layers)]

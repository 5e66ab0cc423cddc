"""FastV-style dropping: keep the vision tokens that the last prompt token attends to (LLaVolta, sec. 4.4)."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

from pydantic import Field

from visiontokens.compress.base import Compressor, Decoder, Geometry, PositionParams, Probe, Seq, register
from visiontokens.compress.images import sizes, top_per_image
from visiontokens.compress.schedule import Depth, DepthField, cuts_and_strides


class FastVParams(PositionParams):
    """Before `layer`, keep the N/`stride` vision tokens with the highest attention in the layer before it."""

    layer: DepthField = Depth(2)
    stride: int = Field(default=8, ge=1)


@register("fastv")
class FastV(Compressor[FastVParams]):
    """Ranks by the head-averaged attention of the last prompt token in layer K-1; by default positions are kept.

    The ranking looks at the question, so an image's prefill cannot be shared between questions. In training the last
    token of the sequence asks (LLaVolta released no code; FastV itself is not trained).
    """

    Params = FastVParams
    identity = MappingProxyType({"stride": 1})
    prefix_safe = False
    packable = False

    @property
    def cut(self) -> int:
        """Decoder layer whose input is shortened."""
        return self.params.layer.at(self.geometry.llm_layers)

    def begin(self, seq: Seq, lm: Decoder) -> Seq:
        """Watch the layer before the cut."""
        self._probe: Probe | None = self.watch(lm, self.cut - 1, seq) if self.params.stride > 1 else None
        return seq

    def before_layer(self, index: int, seq: Seq, lm: Decoder) -> Seq:
        """Drop tokens once, before layer K."""
        if index != self.cut or self._probe is None:
            return seq
        assert self._probe.weights is not None
        best = top_per_image(self._probe.weights, seq.image, sizes(seq.image) // self.params.stride)
        return seq.keep(~seq.vis | best, renumber=self.params.renumber)

    @classmethod
    def settings(cls, geometry: Geometry) -> Iterator[dict[str, Any]]:
        """Every cut and stride, cuts near layer 2 of 32 first."""
        return cuts_and_strides(Depth(2), geometry.llm_layers, geometry.n_vision)

    def tokens_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """All tokens below layer K, N/S from it on."""
        cut = self.params.layer.at(n_layers)
        return [float(n_vision if i < cut else n_vision // self.params.stride) for i in range(n_layers)]

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Projector and one row of attention scores."""
        return super().extra_flops(n_vision, n_text) + 2.0 * self.geometry.llm_width * (n_vision + n_text)

"""Layer-wise progressive compression (LLaVolta, Table 7, "multi"): pool a little more every few layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from pydantic import Field, model_validator

from visiontokens.compress.base import Compressor, Decoder, Geometry, PositionParams, Seq, register
from visiontokens.compress.schedule import Depth, DepthField


class ProgressiveParams(PositionParams):
    """Before each of `layers`, average every `factor` neighbouring vision tokens that are still alive."""

    layers: tuple[DepthField, ...] = (Depth(4), Depth(12), Depth(24))
    factor: int = Field(default=2, ge=2)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        depths = [depth.layer / depth.of for depth in self.layers]
        if not depths or min(depths) <= 0 or sorted(set(depths)) != depths:
            raise ValueError(f"layers must be above 0 and rise; found {[str(d) for d in self.layers]}")
        return self


@register("progressive")
class Progressive(Compressor[ProgressiveParams]):
    """Strides 1, 2, 4, 8 in layers 0-3, 4-11, 12-23, 24-31 of 32; the operator is LLaVolta's 1-D average pooling."""

    Params = ProgressiveParams

    @classmethod
    def settings(cls, geometry: Geometry) -> Iterator[dict[str, Any]]:
        """The first two cuts moved together, the last on its own; those near layers 4, 12 and 24 of 32 first."""
        depth, published = geometry.llm_layers, [cut.at(geometry.llm_layers) for cut in ProgressiveParams().layers]
        moved = {(first, first * published[1] // published[0]) for first in range(1, depth)}
        every = [(*pair, last) for pair in moved for last in range(pair[1] + 1, depth)]
        for cuts in sorted(every, key=lambda cuts: sum(abs(a - b) for a, b in zip(cuts, published, strict=True))):
            yield {"layers": [f"{cut}/{depth}" for cut in cuts]}

    def _cuts(self, n_layers: int) -> list[int]:
        return [depth.at(n_layers) for depth in self.params.layers]

    def _stride(self, index: int, n_layers: int) -> int:
        """Patches that one vision token stands for in layer `index`."""
        return self.params.factor ** sum(cut <= index for cut in self._cuts(n_layers))

    def before_layer(self, index: int, seq: Seq, lm: Decoder) -> Seq:
        """Pool once more at every listed layer."""
        if index == 0:
            return seq
        depth = self.geometry.llm_layers
        old, new = self._stride(index - 1, depth), self._stride(index, depth)
        if old == new:
            return seq
        # A pooled token carries the rank of its last patch: the first of every new run lies in the run's first part.
        return seq.merge((seq.image < 0) | (seq.rank % new < old), renumber=self.params.renumber)

    def tokens_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """N divided by the stride that each layer has reached."""
        return [float(-(-n_vision // self._stride(index, n_layers))) for index in range(n_layers)]

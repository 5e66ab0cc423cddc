"""Visual Context Compressor: average pooling of vision tokens inside the language model (LLaVolta, sec. 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from visiontokens.compress.base import (
    Compressor,
    Decoder,
    Geometry,
    MethodError,
    PositionParams,
    Seq,
    VisionIn,
    register,
)
from visiontokens.compress.schedule import Depth, DepthField, Stage, cuts_and_strides


class VccParams(PositionParams):
    """Parameters of `vcc`.

    Attributes:
        layer: decoder layer whose input is pooled, as a depth ("2/32"); -1 pools before the language model.
        stride: neighbouring tokens (row-major) that become one; 1 is no compression.
    """

    layer: DepthField = Depth(2)
    stride: int = Field(default=8, ge=1)

    @model_validator(mode="after")
    def _as_stage(self) -> Self:
        Stage(layer=self.layer, stride=self.stride)
        return self


@register("vcc")
class VisualContextCompressor(Compressor[VccParams]):
    """Layers before K see all vision tokens, layers from K on see N / stride; text keeps its positions by default."""

    Params = VccParams
    identity = MappingProxyType({"stride": 1})

    def __init__(self, params: VccParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        self.set_stage(None)

    def set_stage(self, stage: Stage | None) -> None:
        """Use the layer and stride of a training stage; `None`: those of the method file.

        Raises:
            MethodError: the stride does not divide the number of vision tokens.
        """
        used = Stage(layer=self.params.layer, stride=self.params.stride) if stage is None else stage
        if self.geometry.n_vision % used.stride:
            raise MethodError(
                f"method 'vcc': stride {used.stride} does not divide {self.geometry.n_vision} vision tokens"
            )
        super().set_stage(stage)
        self.stride = used.stride
        self.layer = used.layer.at(self.geometry.llm_layers)

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor:
        """Return `[F, N, D]`, or `[F, N / stride, D]` when pooling before the language model."""
        tokens = projector(vision.features)
        if self.layer >= 0 or self.stride == 1:
            return tokens
        return functional.avg_pool1d(tokens.transpose(1, 2), self.stride).transpose(1, 2)

    def before_layer(self, index: int, seq: Seq, lm: Decoder) -> Seq:
        """Pool the input of layer K within every image."""
        if index != self.layer or self.stride == 1:
            return seq
        return seq.merge((seq.image < 0) | (seq.rank % self.stride == 0), renumber=self.params.renumber)

    def n_tokens(self, n_vision: int) -> int:
        """N, or N / stride when pooling before the language model."""
        return n_vision // self.stride if self.layer < 0 else n_vision

    @classmethod
    def settings(cls, geometry: Geometry) -> Iterator[dict[str, Any]]:
        """Every cut and stride (strides must divide the tokens), cuts near layer 2 of 32 first."""
        return cuts_and_strides(Depth(2), geometry.llm_layers, geometry.n_vision)

    def tokens_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """N in the first K layers, N / stride from there on."""
        few = n_vision / self.stride
        return [float(n_vision) if index < self.layer else few for index in range(n_layers)]

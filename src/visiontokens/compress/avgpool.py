"""Average pooling of neighbouring patches: the plain baseline of LLaVA-STF (Fig. 1) and of M3."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from visiontokens.compress.base import Compressor, Geometry, MethodError, MethodParams, VisionIn, register


class AvgPoolParams(MethodParams):
    """Parameters of `avgpool`.

    Attributes:
        window: side of the square of patches that becomes one token.
        where: pool tower features before the projector, or projected tokens after it.
    """

    window: int = Field(default=2, ge=1)
    where: Literal["before", "after"] = "before"


def check_window(name: str, window: int, grid: tuple[int, int]) -> None:
    """Raise `MethodError` unless `window` divides the patch grid."""
    if grid[0] % window or grid[1] % window:
        raise MethodError(f"method {name!r}: window {window} does not divide the {grid[0]}x{grid[1]} patch grid")


def pool_grid(tokens: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Average `window` x `window` squares: `[F, N, C]` -> `[F, N / window**2, C]`, row-major."""
    image = tokens.transpose(1, 2).unflatten(2, grid)
    return functional.avg_pool2d(image, window).flatten(2).transpose(1, 2)


@register("avgpool")
class AveragePooling(Compressor[AvgPoolParams]):
    """Mean over non-overlapping squares of patches."""

    Params = AvgPoolParams
    identity = MappingProxyType({"window": 1})

    def __init__(self, params: AvgPoolParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        check_window(self.name, params.window, geometry.grid)

    @classmethod
    def settings(cls, geometry: Geometry) -> Iterator[dict[str, Any]]:
        """Every window that divides the grid."""
        sides = range(1, min(geometry.grid) + 1)
        return ({"window": side} for side in sides if not (geometry.grid[0] % side or geometry.grid[1] % side))

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor:
        """Return `[F, N / window**2, D]`."""
        if self.params.where == "before":
            return projector(pool_grid(vision.features, vision.grid, self.params.window))
        return pool_grid(projector(vision.features), vision.grid, self.params.window)

    def n_tokens(self, n_vision: int) -> int:
        """N / window**2."""
        return n_vision // self.params.window**2

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """The projector on pooled or on all tokens."""
        return self.projector_flops(self.n_tokens(n_vision) if self.params.where == "before" else n_vision)

"""M3, Matryoshka Multimodal Models (arXiv 2405.17430): one model for nested grids of pooled tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from visiontokens.compress.avgpool import pool_grid
from visiontokens.compress.base import Compressor, Geometry, MethodError, MethodParams, VisionIn, register


class M3Params(MethodParams):
    """Parameters of `m3`.

    Attributes:
        scale: vision tokens an image has at test time; `None` = all patches.
        scales: scales whose losses are averaged in training; `None` = the nested ones (`nested_scales`), which on a
            24x24 grid are the paper's 576, 144, 36, 9, 1.
        place: pool projected tokens, as the official code does, or patches before the projector, as the paper (sec. 3)
            draws it; the projector's GELU makes these two functions.
    """

    scale: int | None = Field(default=None, ge=1)
    scales: tuple[int, ...] | None = Field(default=None, min_length=1)
    place: Literal["after", "before"] = "after"


def valid_scales(grid: tuple[int, int]) -> dict[int, int]:
    """Return the window side of every scale that equal squares of a patch grid can give, fewest tokens first."""
    sides = [side for side in range(1, min(grid) + 1) if not (grid[0] % side or grid[1] % side)]
    return {grid[0] * grid[1] // side**2: side for side in reversed(sides)}


def nested_scales(grid: tuple[int, int]) -> tuple[int, ...]:
    """Return the scales of repeated 2x2 pooling, then of one square for all that is left, most tokens first.

    On 24x24 patches these are 576, 144, 36, 9, 1 (paper, sec. 3: 2x2 three times, then 3x3).
    """
    rows, columns = grid
    scales = [rows * columns]
    while not (rows % 2 or columns % 2):
        rows, columns = rows // 2, columns // 2
        scales.append(rows * columns)
    rest = math.gcd(rows, columns)
    return (*scales, rows * columns // rest**2) if rest > 1 else tuple(scales)


@register("m3")
class M3(Compressor[M3Params]):
    """Average pooling whose scale is chosen at test time, trained on all scales at once.

    The scales are `variants`: a training step averages their losses with equal weights (paper, sec. 3). No parameter
    belongs to a scale, so the weights of one training serve every scale. Left out: training the vision tower, which
    the paper does and the official code does not (its tower runs without gradient).
    """

    Params = M3Params
    identity = MappingProxyType({"scale": None})

    def __init__(self, params: M3Params, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        self._sides = valid_scales(geometry.grid)
        self.scale = geometry.n_vision if params.scale is None else params.scale
        self._own = self.scale
        self.scales = nested_scales(geometry.grid) if params.scales is None else params.scales
        for key, scales in (("scale", (self.scale,)), ("scales", self.scales)):
            for scale in scales:
                if scale not in self._sides:
                    raise MethodError(
                        f"method {self.name!r}: {key}: found {scale}, expected one of "
                        f"{', '.join(map(str, self._sides))} on {geometry.grid[0]}x{geometry.grid[1]} patches"
                    )

    @classmethod
    def settings(cls, geometry: Geometry) -> Iterator[dict[str, Any]]:
        """Every scale of the grid, the nested ones first: the same weights serve all of them."""
        nested = nested_scales(geometry.grid)
        others = [scale for scale in reversed(valid_scales(geometry.grid)) if scale not in nested]
        return ({"scale": scale} for scale in (*nested, *others))

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor:
        """Return `[F, scale, D]`; scales that divide each other are means of means."""
        side = self._sides[self.scale]
        if self.params.place == "before":
            return projector(pool_grid(vision.features, vision.grid, side))
        return pool_grid(projector(vision.features), vision.grid, side)

    def variants(self) -> list[dict[str, Any]]:
        """One variant for each scale of the training."""
        return [{"scale": scale} for scale in self.scales]

    def use_variant(self, variant: dict[str, Any]) -> None:
        """Switch to a scale of the training; `{}` returns to the parameter `scale`."""
        self.scale = variant.get("scale", self._own)

    def n_tokens(self, n_vision: int) -> int:
        """The scale's share of the patches."""
        return n_vision * self.scale // self.geometry.n_vision

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """The projector on all patches, or on the pooled ones."""
        return self.projector_flops(n_vision if self.params.place == "after" else self.n_tokens(n_vision))

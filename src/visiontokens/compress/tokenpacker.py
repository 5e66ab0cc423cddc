"""TokenPacker: a coarse grid of queries reads the patches of its own cell at four levels (arXiv 2407.02392)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from visiontokens.compress.avgpool import check_window
from visiontokens.compress.base import Compressor, Geometry, MethodError, MethodParams, VisionIn, register
from visiontokens.compress.mbtf import linear_flops

LEVELS = (12, 16, 22, 23)
"""Hidden states of CLIP ViT-L that keys and values are made of (official code); 23 is the level LLaVA projects."""
EPS = 1e-6
"""Of the layer norms (official code; torch's default is 1e-5)."""


class TokenPackerParams(MethodParams):
    """Parameters of `tokenpacker`.

    Attributes:
        window: side k of the square of patches that one query reads and becomes.
        heads: attention heads (official code: 8 at width 1024).
    """

    window: int = Field(default=4, ge=1)
    heads: int = Field(default=8, ge=1)


def multi_levels(geometry: Geometry) -> tuple[int, ...]:
    """Return the hidden-state indices of `LEVELS` in their order, which repeat in a shallow tower.

    None lies above the default level, as none does in the 24 blocks of CLIP ViT-L.
    """
    return tuple(min(geometry.level(level), geometry.default_level) for level in LEVELS)


def cells(tokens: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Cut the grid into squares: `[F, N, C]` -> `[F * N / k**2, k**2, C]`, cells and patches row-major."""
    frames, _, width = tokens.shape
    rows, cols = grid[0] // window, grid[1] // window
    blocks = tokens.reshape(frames, rows, window, cols, window, width).transpose(2, 3)
    return blocks.reshape(frames * rows * cols, window * window, width)


def mlp(width_in: int, width: int) -> nn.Sequential:
    """Return linear, exact GELU, linear, layer norm."""
    return nn.Sequential(
        nn.Linear(width_in, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width, eps=EPS)
    )  # fmt: skip


class RegionToPoint(Compressor[Any]):
    """What `tokenpacker` and `quecc` share: keys and values of four levels, and attention inside every cell."""

    def __init__(self, params: TokenPackerParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        check_window(self.name, params.window, geometry.grid)
        width = geometry.vision_width
        if width % params.heads:
            raise MethodError(f"method {self.name!r}: {params.heads} heads do not divide the tower's width {width}")
        self.multi = multi_levels(geometry)
        self.k_proj, self.v_proj = mlp(len(LEVELS) * width, width), mlp(len(LEVELS) * width, width)
        self.clip_attn = nn.MultiheadAttention(width, params.heads, batch_first=True)

    @property
    def levels(self) -> tuple[int, ...]:
        """The four levels and the default one."""
        return tuple(sorted({*self.multi, self.geometry.default_level}))

    def reset_parameters(self) -> None:
        """Draw linears as torch does, and the attention's packed weights, which torch keeps apart."""
        super().reset_parameters()
        self.clip_attn._reset_parameters()

    def gather(self, vision: VisionIn) -> Tensor:
        """Return the four levels joined on channels, `[F, N, 4C]`."""
        return torch.cat([vision.levels[level] for level in self.multi], -1)

    def attend(self, query: Tensor, levels: Tensor, grid: tuple[int, int]) -> Tensor:
        """Let every query `[F, M, C]` read the patches of its cell in `levels` `[F, N, 4C]`; `[F, M, C]`."""
        window = self.params.window
        keys, values = (cells(part(levels), grid, window) for part in (self.k_proj, self.v_proj))
        read = self.clip_attn(query.reshape(-1, 1, query.shape[-1]), keys, values, need_weights=False)[0]
        return read.reshape(query.shape)

    def n_tokens(self, n_vision: int) -> int:
        """N / k**2."""
        return n_vision // self.params.window**2

    def attend_flops(self, n_vision: int) -> float:
        """FLOPs of `attend`: both MLPs and the attention's maps on all patches, scores and sums inside cells."""
        few, width = self.n_tokens(n_vision), self.geometry.vision_width
        maps = linear_flops([*self.k_proj, *self.v_proj], n_vision)
        return maps + 2.0 * width * (2 * few * width + 2 * n_vision * width + 2 * n_vision)


@register("tokenpacker")
class TokenPacker(RegionToPoint):
    """Queries are the default level, bilinearly down-sampled; the image is all that they see."""

    Params = TokenPackerParams

    def __init__(self, params: TokenPackerParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        width = geometry.vision_width
        self.q_proj = nn.Sequential(nn.Linear(width, width, bias=False), nn.LayerNorm(width, eps=EPS))

    def reset_parameters(self) -> None:
        """Draw linears from a normal cut at two, standard deviation 0.02, biases 0 (official code)."""
        super().reset_parameters()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def query_grid(self, features: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the queries `[F, M, C]` from the default level `[F, N, C]`."""
        size = [side // self.params.window for side in grid]
        image = features.transpose(1, 2).unflatten(2, grid)
        small = functional.interpolate(image.float(), size=size, mode="bilinear", align_corners=False)
        return self.q_proj(small.to(features.dtype).flatten(2).transpose(1, 2))

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor:
        """Return `[F, N / k**2, D]`."""
        query = self.query_grid(vision.features, vision.grid)
        return projector(self.attend(query, self.gather(vision), vision.grid))

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Queries, attention inside cells, and the projector on M tokens."""
        few = self.n_tokens(n_vision)
        return linear_flops([*self.q_proj], few) + self.attend_flops(n_vision) + self.projector_flops(few)

"""Spatial Token Fusion, alone and after Multi-Block Token Fusion (LLaVA-STF, sec. 3.2 and 3.4)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from visiontokens.compress.avgpool import check_window
from visiontokens.compress.base import Compressor, Geometry, MethodError, MethodParams, VisionIn, register
from visiontokens.compress.mbtf import MbtfParams, MultiBlockFusion, linear_flops

Fusion = Literal["concat2x2", "mix4x4", "after_projector", "window_attention"]

# Row-major places in a 4x4 neighbourhood: four tokens, each of four patches that lie two apart (LLaVA-STF's order
# 0 3 2 9 12 15 14 5 8 11 10 1 4 7 6 13, of which every second entry of every second row forms a token).
MIX = (0, 2, 8, 10, 3, 9, 11, 1, 12, 14, 4, 6, 15, 5, 7, 13)


class StfParams(MethodParams):
    """Parameters of `stf`.

    Attributes:
        window: side k of the square of patches that becomes one token.
        expand: hidden width of the projector as a multiple of the tower width C.
        fusion: how the k x k tokens are joined; `concat2x2` is the paper's (for any k), the others are its ablations.
    """

    window: int = Field(default=2, ge=1)
    expand: int = Field(default=16, ge=1)
    fusion: Fusion = "concat2x2"


class StfMbtfParams(StfParams):
    """Parameters of `stf_mbtf`: those of `stf`, and `levels` and `hidden` of `mbtf`."""

    levels: Literal["all8", "four", "triples_linear", "triples_mean", "groups4", "thirds_mean"] = "all8"
    hidden: int = Field(default=4, ge=1)


def fuse_windows(tokens: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Join each `window` x `window` square into one token: `[F, N, C]` -> `[F, N / k**2, k**2 C]`.

    Windows are row-major; inside a token the channel is the slowest index (feature c * k**2 + dy * k + dx), which
    is pixel-unshuffle order and that of the published weights.
    """
    image = tokens.transpose(1, 2).unflatten(2, grid)
    return nn.functional.pixel_unshuffle(image, window).flatten(2).transpose(1, 2)


def mix_windows(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Join four tokens that do not touch, from each 4x4 neighbourhood: `[F, N, C]` -> `[F, N / 4, 4 C]`.

    The four new tokens of a neighbourhood lie in its quarters, so the output is again row-major on half the grid.
    """
    frames, _, width = tokens.shape
    rows, cols = grid[0] // 4, grid[1] // 4
    blocks = tokens.view(frames, rows, 4, cols, 4, width).transpose(2, 3).flatten(3, 4)
    mixed = blocks[:, :, :, list(MIX)].unflatten(3, (2, 2, 4))  # [F, rows, cols, 2, 2, 4, C]
    joined = mixed.transpose(5, 6).flatten(5)
    return joined.transpose(2, 3).reshape(frames, -1, 4 * width)


class WindowAttention(nn.Module):
    """One post-norm transformer block inside each window; `[F, N, C]` -> `[F, N / k**2, k**2 C]` token by token."""

    def __init__(self, width: int, window: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.window = window
        self.attention = nn.MultiheadAttention(width, max(1, width // 32), batch_first=True)
        self.norm_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))
        self.norm_2 = nn.LayerNorm(width)

    def reset_parameters(self) -> None:
        """Draw the attention's packed weights anew (its own default initialisation)."""
        self.attention._reset_parameters()

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Attend within windows, then lay the window's tokens side by side."""
        k, (frames, _, width) = self.window, tokens.shape
        rows, cols = grid[0] // k, grid[1] // k
        x = tokens.view(frames, rows, k, cols, k, width).transpose(2, 3).reshape(-1, k * k, width)
        x = x + self.norm_1(self.attention(x, x, x, need_weights=False)[0])
        x = x + self.norm_2(self.mlp(x))
        return x.reshape(frames, rows * cols, k * k * width)

    def flops(self, n_vision: int) -> float:
        """FLOPs on one image: four projections, scores and sums inside windows, MLP."""
        width = self.norm_1.normalized_shape[0]
        return 2.0 * n_vision * (4 * width**2 + 2 * self.window**2 * width) + linear_flops([*self.mlp], n_vision)


class _Fusing(Compressor[Any]):
    """What `stf` and `stf_mbtf` share: joining k x k tokens and the wide projector."""

    def __init__(self, params: StfParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        check_window(self.name, params.window, geometry.grid)
        if params.fusion == "mix4x4":
            if params.window != 2:
                raise MethodError(f"method {self.name!r}: fusion 'mix4x4' joins four tokens; window must be 2")
            check_window(self.name, 4, geometry.grid)
        area = params.window**2
        self.attend = (
            WindowAttention(geometry.vision_width, params.window) if params.fusion == "window_attention" else None
        )
        late = params.fusion == "after_projector"
        self.join = nn.Linear(area * geometry.llm_width, geometry.llm_width) if late else None

    def projector_sizes(self) -> tuple[int, int, int]:
        """(k**2 C, expand C, D); stock when fusing after the projector."""
        if self.join is not None:
            return super().projector_sizes()
        width = self.geometry.vision_width
        return self.params.window**2 * width, self.params.expand * width, self.geometry.llm_width

    def fuse(self, features: Tensor, grid: tuple[int, int], projector: nn.Module) -> Tensor:
        """Return `[F, N / k**2, D]` from features `[F, N, C]`."""
        if self.join is not None:
            return self.join(fuse_windows(projector(features), grid, self.params.window))
        if self.attend is not None:
            return projector(self.attend(features, grid))
        if self.params.fusion == "mix4x4":
            return projector(mix_windows(features, grid))
        return projector(fuse_windows(features, grid, self.params.window))

    def n_tokens(self, n_vision: int) -> int:
        """N / k**2."""
        return n_vision // self.params.window**2

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Fusion modules and projector."""
        few = self.n_tokens(n_vision)
        if self.join is not None:
            return self.projector_flops(n_vision) + linear_flops([self.join], few)
        return self.projector_flops(few) + (self.attend.flops(n_vision) if self.attend is not None else 0.0)


@register("stf")
class SpatialFusion(_Fusing):
    """STF alone, on the feature that LLaVA projects."""

    Params = StfParams

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor:
        """Return `[F, N / k**2, D]`."""
        return self.fuse(vision.features, vision.grid, projector)


@register("stf_mbtf")
class SpatialAndMultiBlockFusion(_Fusing):
    """The paper's model: MBTF, then STF."""

    Params = StfMbtfParams

    def __init__(self, params: StfMbtfParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        self.mbtf = MultiBlockFusion(MbtfParams(levels=params.levels, hidden=params.hidden), geometry)

    @property
    def levels(self) -> tuple[int, ...]:
        """All fused levels."""
        return tuple(sorted({level for group in self.mbtf.groups for level in group}))

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor:
        """Return `[F, N / k**2, D]`."""
        return self.fuse(self.mbtf(vision.levels), vision.grid, projector)

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """MBTF on all tokens, then as STF."""
        return self.mbtf.flops(n_vision) + super().extra_flops(n_vision, n_text)

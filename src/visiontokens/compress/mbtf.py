"""Multi-Block Token Fusion: hidden states of several tower blocks fused into one (LLaVA-STF, sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from visiontokens.compress.base import Compressor, Geometry, MethodParams, VisionIn, register

# Blocks of the 24-block tower that enter each input of the fusion, in channel order. A group of several blocks is
# averaged or has its own linear. Block -2 is the feature that LLaVA projects.
BLOCKS: dict[str, tuple[tuple[int, ...], ...]] = {
    "single": ((-2,),),
    "all8": ((-2,), (21,), (18,), (15,), (12,), (9,), (6,), (3,)),
    "four": ((-2,), (18,), (12,), (6,)),
    "triples_linear": ((-2,), *((i, i + 1, i + 2) for i in range(1, 24, 3))),
    "triples_mean": ((-2,), *((i, i + 1, i + 2) for i in range(1, 24, 3))),
    "groups4": ((12,), (13, 14, 15, 16), (17, 18, 19, 20), (21, 22, 23, 24)),
    "thirds_mean": ((-2,), tuple(range(1, 9)), tuple(range(9, 17)), tuple(range(17, 25))),
}
LevelSet = Literal["single", "all8", "four", "triples_linear", "triples_mean", "groups4", "thirds_mean"]


class MbtfParams(MethodParams):
    """Parameters of `mbtf`.

    Attributes:
        levels: which tower blocks are fused; `all8` is the paper's.
        hidden: width of the hidden layer as a multiple of the tower width C.
    """

    levels: LevelSet = "all8"
    hidden: int = Field(default=4, ge=1)


class MultiBlockFusion(nn.Module):
    """k blocks `[F, N, C]` each -> concat on channels kC -> linear -> exact GELU -> linear -> `[F, N, C]`."""

    def __init__(self, params: MbtfParams, geometry: Geometry) -> None:
        super().__init__()
        width = geometry.vision_width
        self.groups = [[geometry.level(block) for block in group] for group in BLOCKS[params.levels]]
        self.reduce = nn.ModuleList(
            nn.Linear(len(group) * width, width)
            if params.levels == "triples_linear" and len(group) > 1
            else nn.Identity()
            for group in self.groups
        )
        self.linear_1 = nn.Linear(len(self.groups) * width, params.hidden * width)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(params.hidden * width, width)

    def gather(self, levels: dict[int, Tensor]) -> Tensor:
        """Return the channel concatenation `[F, N, kC]`."""
        parts = []
        for group, reduce in zip(self.groups, self.reduce, strict=True):
            if isinstance(reduce, nn.Linear):
                parts.append(reduce(torch.cat([levels[level] for level in group], -1)))
            elif len(group) == 1:
                parts.append(levels[group[0]])
            else:
                parts.append(torch.stack([levels[level] for level in group]).mean(0))
        return torch.cat(parts, -1)

    def forward(self, levels: dict[int, Tensor]) -> Tensor:
        """Fuse hidden states by level index, `[F, N, C]` each."""
        return self.linear_2(self.act(self.linear_1(self.gather(levels))))

    def flops(self, tokens: int) -> float:
        """FLOPs on `tokens` tokens."""
        return linear_flops([*self.reduce, self.linear_1, self.linear_2], tokens)


def linear_flops(modules: Sequence[nn.Module], tokens: int) -> float:
    """FLOPs (two per multiply-add) of every linear in `modules` on `tokens` tokens."""
    return 2.0 * tokens * sum(m.in_features * m.out_features for m in modules if isinstance(m, nn.Linear))


@register("mbtf")
class MultiBlock(Compressor[MbtfParams]):
    """MBTF alone: all patch tokens stay, their features come from several blocks; stock projector."""

    Params = MbtfParams

    def __init__(self, params: MbtfParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        self.mbtf = MultiBlockFusion(params, geometry)

    @property
    def levels(self) -> tuple[int, ...]:
        """All fused levels and the default one."""
        return tuple(sorted({level for group in self.mbtf.groups for level in group}))

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor:
        """Return `[F, N, D]`."""
        return projector(self.mbtf(vision.levels))

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Fusion and projector on all tokens."""
        return self.mbtf.flops(n_vision) + self.projector_flops(n_vision)

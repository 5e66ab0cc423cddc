"""VisToG: learned tokens pass through the frozen tower and gather its patches into groups before the projector.

Source: VisToG (arXiv 2411.17773); no code was released. The grouping follows GroupViT's equations; what the paper does
not say is marked as our choice in docs/methods/vistog.md.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from visiontokens.compress.base import Compressor, Geometry, MethodParams, VisionIn, register
from visiontokens.compress.tower import block, read_along, read_along_flops


class VisToGParams(MethodParams):
    """Parameters of `vistog`.

    Attributes:
        groups: semantic tokens S, all that the language model sees (64 is the smallest number in the paper).
        assign: a patch goes to one group (`gumbel`: a draw in training, the best one at test time) or to all by weight
            (`soft`).
        temperature: of the softmax over groups (our choice: 1, as in GroupViT).
        mlp_ratio: hidden width of the grouping's MLP as a multiple of the tower width (our choice).
    """

    groups: int = Field(default=64, ge=1)
    assign: Literal["gumbel", "soft"] = "gumbel"
    temperature: float = Field(default=1.0, gt=0)
    mlp_ratio: int = Field(default=4, ge=1)


class Grouping(nn.Module):
    """Semantic tokens `[F, S, C]` and patches `[F, N, C]` -> grouped tokens `[F, S, C]`."""

    def __init__(self, params: VisToGParams, width: int) -> None:
        super().__init__()
        self.params = params
        self.norm_group, self.norm_patch, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        hidden = params.mlp_ratio * width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def assignment(self, group: Tensor, patches: Tensor) -> Tensor:
        """Return how much of every normed patch goes to each group, `[F, S, N]`; a patch's shares sum to 1."""
        scores = self.query(self.norm_group(group)) @ self.key(patches).transpose(1, 2)
        scores = scores.float() * group.shape[-1] ** -0.5
        if self.params.assign == "soft":
            return (scores / self.params.temperature).softmax(1)
        if not self.training:
            return _one_hot(scores)
        # Drawn on the CPU from torch's generator, which the run seeds and checkpoints: the same draws on any device.
        noise = -torch.empty(scores.shape).exponential_().log().to(scores.device)
        soft = ((scores + noise) / self.params.temperature).softmax(1)
        return _one_hot(soft) - soft.detach() + soft

    def forward(self, group: Tensor, patches: Tensor) -> Tensor:
        """Return the groups with the mean of their patches added, after an MLP; both have residuals."""
        patches = self.norm_patch(patches)
        share = self.assignment(group, patches)
        share = (share / (share.sum(-1, keepdim=True) + 1)).to(group.dtype)
        group = group + self.out(share @ self.value(patches))
        return group + self.mlp(self.norm_mlp(group))

    def flops(self, patches: int) -> float:
        """FLOPs (two per multiply-add) for N patches."""
        groups, width = self.params.groups, self.query.in_features
        linear = width * width * (2 * groups + 2 * patches) + 2 * groups * width * width * self.params.mlp_ratio
        return 2.0 * (linear + 2 * groups * patches * width)


def _one_hot(scores: Tensor) -> Tensor:
    """Return 1 for the best group of every patch, 0 for the others, `[F, S, N]`."""
    return torch.zeros_like(scores).scatter(1, scores.argmax(1, keepdim=True), 1.0)


@register("vistog")
class VisToG(Compressor[VisToGParams]):
    """S learned tokens instead of N patches.

    In the tower they see the image and each other, and the image does not see them, so that its states are those of
    the tower alone: they are read from the kept states, and only the learned tokens run through the blocks. Trained in
    both stages together with the grouping; the draw of the groups in training follows torch's generator.
    """

    Params = VisToGParams

    def __init__(self, params: VisToGParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        self.semantic = nn.Parameter(torch.zeros(params.groups, geometry.vision_width))
        self.grouping = Grouping(params, geometry.vision_width)

    def reset_parameters(self) -> None:
        """Draw the semantic tokens with standard deviation 0.02 (our choice), linears as torch does."""
        super().reset_parameters()
        nn.init.normal_(self.semantic, std=0.02)

    @property
    def levels(self) -> tuple[int, ...]:
        """Everything that the blocks up to the projected level see."""
        return tuple(range(self.geometry.default_level + 1))

    @property
    def class_levels(self) -> tuple[int, ...]:
        """All that enter a block."""
        return self.levels[:-1]

    def through_tower(self, vision: VisionIn) -> Tensor:
        """Return the semantic tokens `[F, S, C]` at the projected level."""
        group = self.semantic.expand(len(vision.features), -1, -1)
        for level in self.class_levels:
            group = read_along(block(vision, level), vision.whole(level), group)
        return group.to(vision.features.dtype)

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor:
        """Return `[F, S, D]`."""
        return projector(self.grouping(self.through_tower(vision), vision.features))

    def n_tokens(self, n_vision: int) -> int:
        """S, whatever the image."""
        return self.params.groups

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Semantic tokens through the tower (with keys and values of the kept states), grouping, projector."""
        width, groups = self.geometry.vision_width, self.params.groups
        hidden = 4 * width if self.geometry.vision_mlp is None else self.geometry.vision_mlp
        inside = len(self.class_levels) * read_along_flops(n_vision, groups, width, hidden)
        return inside + self.grouping.flops(n_vision) + self.projector_flops(groups)

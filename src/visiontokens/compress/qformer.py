"""A small Q-Former: learned queries read the image before the language model (LLaVolta, Table 4; BLIP-2)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from visiontokens.compress.base import Compressor, Geometry, MethodParams, VisionIn, register


class QFormerParams(MethodParams):
    """`queries` learned tokens pass `depth` blocks of self-attention, cross-attention and MLP with `heads` heads."""

    queries: int = Field(default=32, ge=1)
    depth: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    mlp_ratio: int = Field(default=4, ge=1)


class Block(nn.Module):
    """Pre-norm self-attention among the queries, cross-attention to the image, MLP; all with residuals."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        hidden = mlp_ratio * width
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, query: Tensor, image: Tensor) -> Tensor:
        """Return updated queries `[F, Q, C]` that have read `image` `[F, N, C]`."""
        x = self.norms[0](query)
        query = query + self.self_attention(x, x, x, need_weights=False)[0]
        query = query + self.cross_attention(self.norms[1](query), image, image, need_weights=False)[0]
        return query + self.mlp(self.norms[2](query))


@register("qformer")
class QFormer(Compressor[QFormerParams]):
    """Replaces N vision tokens by Q queries, then the stock projector.

    BLIP-2's Q-Former is a BERT-base with pretrained weights (105M parameters in LLaVolta's Table 4); this one is its
    attention pattern at the tower's width, trained from scratch in the two LLaVA stages.
    """

    Params = QFormerParams

    def __init__(self, params: QFormerParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        width = geometry.vision_width
        self.query = nn.Parameter(torch.zeros(params.queries, width))
        self.position = nn.Parameter(torch.zeros(geometry.n_vision, width))
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, params.heads, params.mlp_ratio) for _ in range(params.depth))

    def reset_parameters(self) -> None:
        """Draw queries and positions with standard deviation 0.02 (BLIP-2), linears as torch does."""
        super().reset_parameters()
        for block in self.blocks:
            attentions: tuple[Any, ...] = (block.self_attention, block.cross_attention)
            for attention in attentions:
                attention._reset_parameters()
        nn.init.normal_(self.query, std=0.02)
        nn.init.normal_(self.position, std=0.02)

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor:
        """Return `[F, Q, D]`."""
        image = self.norm(vision.features) + self.position
        query = self.query.expand(len(image), -1, -1)
        for block in self.blocks:
            query = block(query, image)
        return projector(query)

    def n_tokens(self, n_vision: int) -> int:
        """Q, whatever the image."""
        return self.params.queries

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Blocks and the projector on Q tokens (two FLOPs per multiply-add)."""
        q, c = self.params.queries, self.geometry.vision_width
        linear = q * c * c * (4 + 2 + 2 * self.params.mlp_ratio) + 2 * n_vision * c * c
        scores = 2 * q * c * (q + n_vision)
        return self.params.depth * 2.0 * (linear + scores) + self.projector_flops(q)

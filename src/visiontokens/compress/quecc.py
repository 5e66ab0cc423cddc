"""QueCC: TokenPacker whose queries know the question (arXiv 2411.03312, sec. 4)."""

from __future__ import annotations

from torch import Tensor, nn

from visiontokens.compress.base import Geometry, VisionIn, register
from visiontokens.compress.mbtf import linear_flops
from visiontokens.compress.tokenpacker import EPS, RegionToPoint, TokenPackerParams, mlp


class QueccParams(TokenPackerParams):
    """Parameters of `quecc`, those of `tokenpacker`; kernel and stride of the convolution are both `window`."""


@register("quecc")
class Quecc(RegionToPoint):
    """The question's state is added to every patch, and a depthwise strided convolution makes the queries of it."""

    Params = QueccParams
    text_query = True
    prefix_safe = False
    packable = False

    def __init__(self, params: QueccParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        width, window = geometry.vision_width, params.window
        self.text_projection = nn.Sequential(nn.Linear(geometry.llm_width, width), nn.LayerNorm(width, eps=EPS))
        self.q_proj = mlp(width, width)
        self.q_downsample = nn.Conv2d(width, width, window, stride=window, groups=width)

    def informed(self, features: Tensor, text: Tensor) -> Tensor:
        """Return what the convolution reads, `[F, N, C]`, from patches `[F, N, C]` and question states `[F, D]`."""
        return self.q_proj(features + self.text_projection(text)[:, None])

    def query_grid(self, features: Tensor, text: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the queries `[F, M, C]`."""
        image = self.informed(features, text).transpose(1, 2).unflatten(2, grid)
        return self.q_downsample(image).flatten(2).transpose(1, 2)

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor:
        """Return `[F, N / k**2, D]`."""
        assert vision.query is not None, "a method with text_query is given one"
        query = self.query_grid(vision.features, vision.query, vision.grid)
        return projector(self.attend(query, self.gather(vision), vision.grid))

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """The text pass of the language model, queries, attention inside cells, and the projector on M tokens.

        The text pass is over the beginning token and all `n_text` tokens, the most that a question can be of a prompt.
        """
        queries = linear_flops([*self.q_proj], n_vision) + 2.0 * n_vision * self.geometry.vision_width
        text = self.geometry.llm_flops(n_text + 1) + linear_flops([*self.text_projection], 1)
        return text + queries + self.attend_flops(n_vision) + self.projector_flops(self.n_tokens(n_vision))

"""VisionZip: the patches that the class token attends to, and averages of the rest, before the projector.

Source: VisionZip (CVPR 2025) and the code released with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from visiontokens.compress.base import Compressor, Geometry, MethodError, MethodParams, VisionIn, register
from visiontokens.compress.tower import (
    block,
    class_attention,
    class_attention_flops,
    class_query_and_keys,
    gather_rows,
    unmixed,
)

PAPER_PATCHES = 576
PAPER_BUDGETS = ((54, 10), (108, 20), (162, 30))
"""Dominant and contextual tokens of the published 64, 128 and 192."""


class VisionZipParams(MethodParams):
    """Parameters of `visionzip`; numbers are for the 576 patches of CLIP ViT-L/14-336 and scaled to other grids.

    Attributes:
        dominant: tokens kept for the class token's attention; with `class_token` it is one of them.
        contextual: averages of the others.
        class_token: feed CLS to the projector, which has not seen it in alignment (released code); without it one
            more patch is kept.
        merged: a contextual token is its target plus the mean of what is assigned to it (`sum`, released code), or the
            mean of all of them (`mean`).
    """

    dominant: int = Field(default=54, ge=2)
    contextual: int = Field(default=10, ge=1)
    class_token: bool = True
    merged: Literal["sum", "mean"] = "sum"

    def counts(self, patches: int) -> tuple[int, int]:
        """Return dominant and contextual tokens of an image of N patches."""
        dominant = max(2, int(self.dominant * patches / PAPER_PATCHES + 0.5))
        return dominant, max(1, int(self.contextual * patches / PAPER_PATCHES + 0.5))


def dominant_patches(attention: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` patches with the highest attention `[F, N]`, and the others; both in reading order."""
    kept = torch.zeros_like(attention, dtype=torch.bool).scatter(1, attention.topk(count).indices, True)
    order = (~kept).int().argsort(dim=-1, stable=True)
    return order[:, :count], order[:, count:]


def contextual_tokens(features: Tensor, metric: Tensor, count: int, merged: str = "sum") -> Tensor:
    """Return `[F, count, C]`: evenly spaced targets, each with the tokens whose metric is most similar to its own.

    Args:
        features: what is averaged, `[F, R, C]`.
        metric: what is compared (cosine), `[F, R, d]`.
        count: number of targets, at most R.
        merged: see `VisionZipParams.merged`.
    """
    size = features.shape[1]
    step = max(1, size // count)
    target = torch.zeros(size, dtype=torch.bool)
    target[torch.arange(0, size, step)[:count]] = True
    target, other = target.nonzero()[:, 0].to(features.device), (~target).nonzero()[:, 0].to(features.device)
    unit = functional.normalize(metric.float(), dim=-1)
    label = (unit[:, other] @ unit[:, target].transpose(1, 2)).argmax(-1)
    total = torch.zeros_like(features[:, target]).scatter_add(
        1, label[..., None].expand(-1, -1, features.shape[-1]), features[:, other]
    )
    number = label.new_zeros(len(label), count).scatter_add(1, label, torch.ones_like(label))[..., None]
    if merged == "sum":
        return features[:, target] + total / number.clamp_min(1)
    return (features[:, target] + total) / (number + 1)


@register("visionzip")
class VisionZip(Compressor[VisionZipParams]):
    """VisionZip between tower and projector; not aware of the question, usable with and without training."""

    Params = VisionZipParams

    def __init__(self, params: VisionZipParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        if sum(params.counts(geometry.n_vision)) > geometry.n_vision:
            raise MethodError(
                f"method {self.name!r}: dominant {params.dominant} and contextual {params.contextual} are more tokens "
                f"than the {geometry.n_vision} patches (counts are for {PAPER_PATCHES})"
            )

    @property
    def levels(self) -> tuple[int, ...]:
        """The projected level, and the one before it, whose block's class attention ranks the patches."""
        return self.geometry.default_level - 1, self.geometry.default_level

    @property
    def class_levels(self) -> tuple[int, ...]:
        """Both."""
        return self.levels

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor:
        """Return `[F, M, D]`: CLS, dominant patches in reading order, contextual tokens."""
        dominant, contextual = self.params.counts(self.geometry.n_vision)
        before, heads = self.levels[0], self.geometry.vision_heads
        with torch.no_grad(), unmixed(vision.features.device):
            query, keys = class_query_and_keys(block(vision, before), vision.whole(before))
            attention = class_attention(query, keys, heads)
            best, rest = dominant_patches(attention, dominant - self.params.class_token)
            metric = keys[:, 1:].unflatten(-1, (heads, -1)).mean(-2)
            parts = [gather_rows(vision.features, best)]
            parts.append(
                contextual_tokens(
                    gather_rows(vision.features, rest), gather_rows(metric, rest), contextual, self.params.merged
                )
            )
            if self.params.class_token:
                parts.insert(0, vision.cls[vision.default][:, None])
        return projector(torch.cat(parts, 1))

    @classmethod
    def settings(cls, geometry: Geometry) -> Iterator[dict[str, Any]]:
        """The published budgets, then every other one with their share of contextual tokens."""
        for dominant, contextual in PAPER_BUDGETS:
            yield {"dominant": dominant, "contextual": contextual}
        for total in range(3, PAPER_PATCHES + 1):
            contextual = max(1, int(total * 10 / 64 + 0.5))
            yield {"dominant": total - contextual, "contextual": contextual}

    def n_tokens(self, n_vision: int) -> int:
        """Dominant and contextual tokens."""
        return sum(self.params.counts(n_vision))

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Class attention, similarities to the targets, and the projector on the tokens that are left."""
        width, heads = self.geometry.vision_width, self.geometry.vision_heads
        dominant, contextual = self.params.counts(n_vision)
        others = n_vision - (dominant - self.params.class_token) - contextual
        similarity = 2.0 * others * contextual * (width // heads)
        tokens = self.projector_flops(self.n_tokens(n_vision))
        return class_attention_flops(n_vision, width) + similarity + tokens

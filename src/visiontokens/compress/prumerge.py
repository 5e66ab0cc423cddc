"""LLaVA-PruMerge and PruMerge+: patches that the class token singles out, each with its likes merged in.

Source: LLaVA-PruMerge (arXiv 2403.15388), sec. 3, and the code released with it. Marked choices of ours are listed in
docs/methods/prumerge.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from visiontokens.compress.base import Compressor, Geometry, MethodParams, VisionIn, register
from visiontokens.compress.tower import (
    block,
    class_attention,
    class_attention_flops,
    class_query_and_keys,
    gather_rows,
    unmixed,
)

PAPER_PATCHES = 576
PAPER_MEAN = {False: 32.0, True: 144.0}
"""Mean tokens of the adaptive modes (plain, plus) that the paper states for 576 patches."""
SLACK = 1e-9
"""Against shares such as 0.29 that have no exact binary form."""


class PruMergeParams(MethodParams):
    """Parameters of `prumerge`. The defaults are right where the released code is not; its behaviour is an option.

    Attributes:
        ratio: share of the patches that is kept for their attention; `adaptive` = the share of outliers, image by image
            (above the third quartile plus 1.5 times the interquartile range).
        plus: PruMerge+, patches of a regular grid are kept besides.
        neighbours: patches merged into a kept one (released code: 32; not in the paper).
        expected: tokens that an image of 576 patches keeps on average, for accounting where the number depends on the
            image; default: the paper's means.
        order: how tokens are fed: in reading order (our choice) or by falling attention, then the grid (released code).
        at_least: patches kept where there are fewer outliers (our choice); 0 = the released code, which keeps none or
            (plus) fails.
        batch_ratio: released code: one share of outliers for the whole batch.
        skip_last: released code: the last patch is never on the grid.
        duplicates: released code (plus, fixed ratio): a grid patch that is kept already is kept twice, and for each of
            them the first dropped patch is lost; by default the next in attention takes its place.
        stride_part: grid stride of the adaptive plus, 1 / ratio over this (released code: 3, before May 2024: 4).
        start_part: grid start of the adaptive plus, 1 / ratio over this; 0 = at the first patch (released code; before
            May 2024: 6).
    """

    ratio: Literal["adaptive"] | Annotated[float, Field(gt=0, le=1)] = 0.125
    plus: bool = False
    neighbours: int = Field(default=32, ge=1)
    expected: float | None = Field(default=None, gt=0)
    order: Literal["raster", "attention"] = "raster"
    at_least: int = Field(default=1, ge=0)
    batch_ratio: bool = False
    skip_last: bool = False
    duplicates: bool = False
    stride_part: int = Field(default=3, ge=1)
    start_part: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.duplicates and (self.ratio == "adaptive" or not self.plus):
            raise ValueError("duplicates: expected plus with a fixed ratio, where the released code makes them")
        if self.expected is not None and self.ratio != "adaptive":
            raise ValueError("expected: a fixed ratio keeps a fixed number of tokens; leave it out")
        return self

    def top(self, patches: int) -> int:
        """Return how many of N patches a fixed ratio keeps for their attention."""
        assert isinstance(self.ratio, float)
        return int(patches * self.ratio + SLACK)

    def grid(self, patches: int) -> list[int]:
        """Return the grid patches of PruMerge+ at a fixed ratio: every step-th from the middle of the first step on."""
        assert isinstance(self.ratio, float)
        step = int(1 / self.ratio + SLACK)
        return list(range(step // 2, patches - self.skip_last, step)) if self.plus else []

    def kept(self, patches: int) -> int:
        """Return how many of N patches a fixed ratio keeps."""
        top, grid = self.top(patches), len(self.grid(patches))
        return top + grid if self.duplicates else min(top + grid, patches)


@dataclass(frozen=True)
class Kept:
    """Kept patches of F images: `index` `[F, M]` in the order they are fed, of which image f's first `count[f]` count.

    `count` is `None` where all M do. `dropped` flags the patches `[F, N]` that go into the extra token, `others`
    `[F, K]` lists what may be merged (`None`: all patches).
    """

    index: Tensor
    count: Tensor | None
    dropped: Tensor
    others: Tensor | None = None


def outliers(attention: Tensor) -> Tensor:
    """Count the attentions `[F, N]` above Q3 + 1.5 IQR in every row, `[F]`."""
    low, high = attention.quantile(torch.tensor([0.25, 0.75], device=attention.device), dim=-1)
    return (attention > (high + 1.5 * (high - low))[:, None]).sum(-1)


def select(attention: Tensor, params: PruMergeParams) -> Kept:
    """Choose the kept patches of every image from the class token's attention `[F, N]`."""
    if params.duplicates:
        return _with_duplicates(attention, params)
    patches = attention.shape[1]
    place = torch.arange(patches, device=attention.device)
    if params.ratio == "adaptive":
        top = _adaptive_counts(attention, params)
        grid = _adaptive_grid(top, place, params)
        rank = _rank(attention)
    else:
        top = torch.full_like(attention[:, 0], params.top(patches), dtype=torch.long)
        grid = torch.zeros_like(attention, dtype=torch.bool)
        grid[:, params.grid(patches)] = True
        rank = _rank(attention.masked_fill(grid, -1.0))  # a grid patch is kept anyway: the next one takes its place
    best = rank < top[:, None]
    kept = best | grid
    first = place.expand_as(rank) if params.order == "raster" else torch.where(best, rank, patches + place)
    order = first.masked_fill(~kept, 3 * patches).argsort(-1)
    if params.ratio == "adaptive":
        count = kept.sum(-1)
        return Kept(order[:, : int(count.max())], count, ~kept)
    return Kept(order[:, : params.kept(patches)], None, ~kept)


def _rank(attention: Tensor) -> Tensor:
    """Return every patch's place `[F, N]` in the order of falling attention."""
    return attention.argsort(dim=-1, descending=True, stable=True).argsort(-1)


def _adaptive_counts(attention: Tensor, params: PruMergeParams) -> Tensor:
    """Return how many patches of every image are outliers, `[F]`."""
    images, patches = attention.shape
    if params.batch_ratio:
        share = int(outliers(attention.flatten()[None])) / (images * patches)
        count = torch.full((images,), int(patches * share), device=attention.device)
    else:
        count = outliers(attention)
    return count.clamp_min(params.at_least)


def _adaptive_grid(top: Tensor, place: Tensor, params: PruMergeParams) -> Tensor:
    """Return the grid patches `[F, N]` of adaptive PruMerge+: the more outliers an image has, the finer the grid."""
    patches = len(place)
    if not params.plus:
        return torch.zeros(len(top), patches, dtype=torch.bool, device=top.device)
    step = (1 / (top.double() / patches)).clamp_max(2.0 * patches).floor()
    stride = (step / params.stride_part).floor().clamp_min(1).long()[:, None]
    start = (step / params.start_part).floor().long()[:, None] if params.start_part else torch.zeros_like(stride)
    on = (place >= start) & ((place - start) % stride == 0) & (top > 0)[:, None]
    return on & (place < patches - 1) if params.skip_last else on


def _with_duplicates(attention: Tensor, params: PruMergeParams) -> Kept:
    """Choose as the released code does for PruMerge+ at a fixed ratio: patches may be kept twice."""
    images, patches = attention.shape
    best = attention.topk(params.top(patches)).indices
    grid = torch.tensor(params.grid(patches), device=attention.device, dtype=torch.long).expand(images, -1)
    index = torch.cat([best, grid], 1)
    if params.order == "raster":
        index = index.sort(-1).values
    kept = torch.zeros_like(attention, dtype=torch.bool).scatter(1, index, True)
    rest = (~kept).int().argsort(dim=-1, stable=True)[:, index.shape[1] :]  # as long as without duplicates
    dropped = torch.zeros_like(kept).scatter(1, rest, True)
    return Kept(index, None, dropped, torch.cat([index, rest], 1))


def merge(features: Tensor, keys: Tensor, attention: Tensor, kept: Kept, neighbours: int) -> Tensor:
    """Return the kept tokens with their neighbours merged in, and behind them one token of all dropped patches.

    A kept patch x_i becomes x_i + sum of a_j x_j over the patches j whose keys are most similar (cosine) to its own;
    the last token is the sum of a_j x_j over the dropped ones. Neither is normalised (released code).

    Args:
        features: `[F, N, C]`.
        keys: `[F, N, C]`, without CLS.
        attention: of the class token, `[F, N]`.
        kept: the choice.
        neighbours: how many are merged.

    Returns:
        `[F, M + 1, C]`; image f's tokens are the first `count[f] + 1`.
    """
    patches = features.shape[1]
    unit = functional.normalize(keys.float(), dim=-1)
    mine = gather_rows(unit, kept.index)
    others = torch.arange(patches, device=keys.device).expand(len(keys), -1) if kept.others is None else kept.others
    like = mine @ (unit if kept.others is None else gather_rows(unit, others)).transpose(1, 2)
    own = kept.index if kept.others is None else torch.arange(mine.shape[1], device=keys.device).expand_as(kept.index)
    like = like.scatter(2, own[..., None], -torch.inf)
    near = like.topk(min(neighbours, like.shape[2] - 1)).indices
    near = others[:, None].expand(-1, near.shape[1], -1).gather(2, near)
    weight = attention[:, None].expand(-1, near.shape[1], -1)
    weights = torch.zeros_like(weight).scatter_add(2, near, weight.gather(2, near)).to(features.dtype)
    merged = gather_rows(features, kept.index) + weights @ features
    extra = (attention * kept.dropped).to(features.dtype)[:, None] @ features
    if kept.count is None:
        return torch.cat([merged, extra], 1)
    place = torch.arange(merged.shape[1] + 1, device=keys.device)
    return torch.where((place == kept.count[:, None])[..., None], extra, functional.pad(merged, (0, 0, 0, 1)))


@register("prumerge")
class PruMerge(Compressor[PruMergeParams]):
    """PruMerge between tower and projector; not aware of the question, usable with and without training."""

    Params = PruMergeParams

    @property
    def class_levels(self) -> tuple[int, ...]:
        """The projected level, whose next block's class attention ranks the patches."""
        return self.levels

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor | list[Tensor]:
        """Return `[F, M + 1, D]`, or where the number depends on the image a list of `[M_f + 1, D]`."""
        with torch.no_grad(), unmixed(vision.features.device):
            whole = vision.whole(vision.default)
            query, keys = class_query_and_keys(block(vision, vision.default), whole)
            attention = class_attention(query, keys)
            kept = select(attention, self.params)
            merged = merge(vision.features, keys[:, 1:], attention, kept, self.params.neighbours)
        if kept.count is None:
            return projector(merged)
        count = kept.count + 1
        real = torch.arange(merged.shape[1], device=merged.device) < count[:, None]
        return list(projector(merged[real]).split(count.tolist()))

    @classmethod
    def settings(cls, geometry: Geometry) -> Iterator[dict[str, Any]]:
        """Every fixed ratio, those near the published 1/8 first."""
        n = geometry.n_vision
        return ({"ratio": top / n} for top in sorted(range(1, n), key=lambda top: abs(top - n // 8)))

    def n_tokens(self, n_vision: int) -> int | None:
        """Kept patches and the extra token; `None` for the adaptive modes."""
        return None if self.params.ratio == "adaptive" else self.params.kept(n_vision) + 1

    def mean_tokens(self, n_vision: int) -> float:
        """The number of tokens, for the adaptive modes the expected one."""
        count = self.n_tokens(n_vision)
        if count is not None:
            return float(count)
        mean = PAPER_MEAN[self.params.plus] if self.params.expected is None else self.params.expected
        return mean * n_vision / PAPER_PATCHES

    def tokens_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """The same in every layer."""
        return [self.mean_tokens(n_vision)] * n_layers

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Class attention, similarities of the kept keys, the two merges, and the projector (adaptive: expected)."""
        width, tokens = self.geometry.vision_width, self.mean_tokens(n_vision)
        merging = 2.0 * width * n_vision * (2 * (tokens - 1) + 1)
        projector = tokens * self.projector_flops(1)
        return class_attention_flops(n_vision, width) + merging + projector

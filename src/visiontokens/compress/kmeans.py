"""K-Means over vision tokens inside the language model (LLaVolta, sec. 4.4: N/S centroids before layer K)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from visiontokens.compress.base import Compressor, Decoder, Geometry, PositionParams, Seq, register
from visiontokens.compress.images import slots
from visiontokens.compress.schedule import Depth, DepthField, cuts_and_strides


class KMeansParams(PositionParams):
    """Cluster the input of `layer` into N/`stride` groups with `iterations` Lloyd steps from evenly spaced seeds."""

    layer: DepthField = Depth(2)
    stride: int = Field(default=8, ge=1)
    iterations: int = Field(default=8, ge=1)


@register("kmeans")
class KMeans(Compressor[KMeansParams]):
    """Replaces the vision tokens of every image by cluster means from layer K on.

    Assignments are hard and without gradient; the means are differentiable in their members. A cluster takes the
    floor of its members' mean position and the place of its last member (choices of ours: no code was released).
    """

    Params = KMeansParams
    identity = MappingProxyType({"stride": 1})

    def before_layer(self, index: int, seq: Seq, lm: Decoder) -> Seq:
        """Merge once, before layer K."""
        cut = self.params.layer.at(self.geometry.llm_layers)
        if index != cut or self.params.stride == 1 or not bool(seq.vis.any()):
            return seq
        where, ok = slots(seq.image)  # [I, M]
        tokens = seq.h.flatten(0, 1)[where]
        count = ok.sum(1) // self.params.stride
        label = assign(tokens.detach().float(), ok, count, self.params.iterations)  # [I, M], [I] clusters of each image
        images, most = len(where), int(count.max())
        cluster = label + torch.arange(images, device=label.device)[:, None] * (most + 1)
        cluster, real, at = cluster[ok], images * (most + 1), where[ok]
        size = torch.bincount(cluster, minlength=real)
        mean = torch.zeros(real, tokens.shape[-1], dtype=tokens.dtype, device=tokens.device)
        mean = mean.index_add(0, cluster, tokens[ok]) / size.clamp_min(1)[:, None].to(tokens.dtype)
        pos = seq.pos.flatten()
        middle = torch.zeros(real, dtype=pos.dtype, device=pos.device).index_add(0, cluster, pos[at])
        last = torch.full((real,), -1, device=at.device).scatter_reduce(0, cluster, at, "amax")
        used = last >= 0
        h = seq.h.flatten(0, 1).index_copy(0, last[used], mean[used]).view_as(seq.h)
        pos = pos.index_copy(0, last[used], middle[used] // size[used]).view_as(seq.pos)
        keep = (~seq.vis).flatten().index_fill(0, last[used], True).view_as(seq.vis)
        return replace(seq, h=h, pos=pos).keep(keep, renumber=self.params.renumber)

    def n_after(self, n_vision: int) -> int:
        """Centroids of one image."""
        return n_vision // self.params.stride

    @classmethod
    def settings(cls, geometry: Geometry) -> Iterator[dict[str, Any]]:
        """Every cut and stride, cuts near layer 2 of 32 first."""
        return cuts_and_strides(Depth(2), geometry.llm_layers, geometry.n_vision)

    def tokens_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """All tokens below layer K, N/S from it on."""
        cut = self.params.layer.at(n_layers)
        return [float(n_vision if i < cut else self.n_after(n_vision)) for i in range(n_layers)]

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Projector and the distance products of the Lloyd steps."""
        distances = 2.0 * n_vision * self.n_after(n_vision) * self.geometry.llm_width * self.params.iterations
        return super().extra_flops(n_vision, n_text) + (distances if self.params.stride > 1 else 0.0)


@torch.no_grad()
def assign(x: Tensor, ok: Tensor, count: Tensor, iterations: int) -> Tensor:
    """Cluster the tokens of every image; deterministic. Empty clusters take the farthest tokens.

    Args:
        x: tokens `[I, M, D]`.
        ok: which of them are real, bool `[I, M]`.
        count: clusters of every image, `[I]`.
        iterations: Lloyd steps.

    Returns:
        The cluster 0 ... count - 1 of every token, `[I, M]`; max(count) for padding.
    """
    most = int(count.max())
    steps = torch.arange(most, device=x.device)
    there = steps < count[:, None]  # [I, K]
    centre = x.gather(1, _spread(ok.sum(1), count, steps)[..., None].expand(-1, -1, x.shape[-1]))
    for _ in range(iterations):
        distance = torch.cdist(x, centre).masked_fill(~there[:, None], torch.inf)
        nearest, label = distance.min(2)
        label = label.masked_fill(~ok, most)
        ones = torch.ones_like(label)
        size = torch.zeros(len(x), most + 1, dtype=torch.long, device=x.device).scatter_add(1, label, ones)[:, :most]
        empty = (size == 0) & there
        farthest = nearest.masked_fill(~ok, -1.0).topk(most, 1).indices
        free = (~empty).to(torch.uint8).argsort(dim=1, stable=True)  # the empty ones first
        given = torch.where(steps < empty.sum(1, keepdim=True), free, label.gather(1, farthest))
        label = label.scatter(1, farthest, given)
        member = torch.zeros(len(x), most + 1, x.shape[-1], dtype=x.dtype, device=x.device)
        member = member.scatter_add(1, label[..., None].expand_as(x), x)[:, :most]
        size = torch.zeros(len(x), most + 1, dtype=torch.long, device=x.device).scatter_add(1, label, ones)[:, :most]
        centre = member / size.clamp_min(1)[..., None]
    return label


def _spread(tokens: Tensor, count: Tensor, steps: Tensor) -> Tensor:
    """Return `count` `[I]` evenly spaced places among each image's `tokens` `[I]`, `[I, K]`, symmetrically rounded."""
    end = (tokens - 1)[:, None].float()
    step = end / (count - 1).clamp_min(1)[:, None]
    last = (count - 1)[:, None]
    low, high = step * steps, end - step * (last - steps)
    return torch.where(steps < count[:, None] // 2, low, torch.where(last > 0, high, 0.0)).clamp_max(end).round().long()

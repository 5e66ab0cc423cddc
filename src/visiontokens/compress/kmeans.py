"""K-Means over vision tokens inside the language model (LLaVolta, sec. 4.4: N/S centroids before layer K)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from visiontokens.compress.base import Compressor, Decoder, Geometry, MethodParams, Seq, register
from visiontokens.compress.schedule import Depth, DepthField, cuts_and_strides


class KMeansParams(MethodParams):
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
        if index != self.params.layer.at(self.geometry.llm_layers) or self.params.stride == 1:
            return seq
        h, pos, drop = seq.h.clone(), seq.pos.clone(), torch.zeros_like(seq.vis)
        for row in range(seq.pos.shape[0]):
            for image in seq.image[row].unique().tolist():
                if image >= 0:
                    self._merge(seq, row, seq.image[row] == image, (h, pos, drop))
        return replace(seq, h=h, pos=pos).keep(~drop)

    def _merge(self, seq: Seq, row: int, member: Tensor, out: tuple[Tensor, Tensor, Tensor]) -> None:
        """Write the cluster means of one image to the places of each cluster's last member; flag the others."""
        h, pos, drop = out
        where = member.nonzero()[:, 0]
        tokens = seq.h[row, where]
        k = len(where) // self.params.stride
        label = assign(tokens.detach().float(), k, self.params.iterations)
        size = torch.bincount(label, minlength=k).clamp_min(1)
        mean = torch.zeros(k, tokens.shape[-1], dtype=tokens.dtype, device=tokens.device)
        mean = mean.index_add(0, label, tokens) / size[:, None].to(tokens.dtype)
        middle = torch.zeros(k, dtype=pos.dtype, device=pos.device).index_add(0, label, seq.pos[row, where]) // size
        last = torch.full((k,), -1, device=where.device).scatter_reduce(0, label, where, "amax")
        used = last >= 0
        drop[row, where] = True
        drop[row, last[used]] = False
        h[row, last[used]] = mean[used]
        pos[row, last[used]] = middle[used]

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
def assign(x: Tensor, k: int, iterations: int) -> Tensor:
    """Return the cluster 0..k-1 of every row of `x` `[N, D]`; deterministic. Empty clusters take the farthest rows."""
    n = len(x)
    centre = x[torch.linspace(0, n - 1, k, device=x.device).round().long()].clone()
    for _ in range(iterations):
        distance = torch.cdist(x, centre)
        nearest, label = distance.min(1)
        size = torch.bincount(label, minlength=k)
        empty = (size == 0).nonzero()[:, 0]
        if len(empty):
            label = label.clone()
            label[nearest.topk(len(empty)).indices] = empty
            size = torch.bincount(label, minlength=k)
        centre = torch.zeros_like(centre).index_add_(0, label, x) / size.clamp_min(1)[:, None]
    return label

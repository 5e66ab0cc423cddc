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
from visiontokens.compress.clustering import evenly_spaced, flops, lloyd, means
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
        flat = seq.vis.flatten()
        state = (seq.h.flatten(0, 1).clone(), seq.pos.flatten().clone(), flat.clone())
        where, sizes = flat.nonzero()[:, 0], torch.bincount(seq.image[seq.vis])
        first = sizes.cumsum(0) - sizes
        for n in sizes.unique().tolist():  # images of one size are clustered together
            self._merge(seq, where[first[sizes == n][:, None] + torch.arange(n, device=where.device)], state)
        h, pos, drop = (value.unflatten(0, seq.pos.shape) for value in state)
        return replace(seq, h=h, pos=pos).keep(~drop, renumber=self.params.renumber)

    def _merge(self, seq: Seq, where: Tensor, state: tuple[Tensor, Tensor, Tensor]) -> None:
        """Write the cluster means of images to the places of each cluster's last member; unflag these as dropped.

        Args:
            seq: the sequence as it came.
            where: places of G images' tokens in the flattened sequence, `[G, N]`.
            state: flattened states, positions and flags of what is dropped; changed in place.
        """
        h, pos, drop = state
        k = where.shape[1] // self.params.stride
        tokens, places = seq.h.flatten(0, 1)[where], seq.pos.flatten()[where]
        label = assign(tokens.detach(), k, self.params.iterations)
        mean, size = means(tokens, label, k)
        middle = torch.zeros_like(where[:, :k]).scatter_add(1, label, places) // size.clamp_min(1)
        last = torch.full_like(where[:, :k], -1).scatter_reduce(1, label, where, "amax")
        used = size > 0
        drop[last[used]] = False
        h[last[used]] = mean[used]
        pos[last[used]] = middle[used]

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
        """Projector and the products of the Lloyd steps."""
        k, p = self.n_after(n_vision), self.params
        steps = flops(n_vision, k, self.geometry.llm_width, p.iterations) if p.stride > 1 else 0.0
        return super().extra_flops(n_vision, n_text) + steps


def assign(x: Tensor, k: int, iterations: int) -> Tensor:
    """Return the cluster 0..k-1 of every token of `x` `[G, N, D]`; deterministic. Empty clusters take the farthest."""
    return lloyd(x, evenly_spaced(x, k), iterations, empty="farthest")[0]

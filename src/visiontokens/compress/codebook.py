"""How many clusters a run of tokens gets, and which: VQToken's fixed and adaptive K (cosine K-Means)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from visiontokens.compress.clustering import flops, lloyd, plus_plus


@dataclass(frozen=True)
class Search:
    """How K is found: fixed at `codes`, or at the elbow of the distortion over `fewest` ... `most` clusters."""

    kind: Literal["fixed", "elbow", "elbow_official"]
    codes: int
    fewest: int
    most: int
    iterations: int
    seed: int

    @property
    def tried(self) -> range:
        """Numbers of clusters that are computed."""
        return range(self.codes, self.codes + 1) if self.kind == "fixed" else range(self.fewest, self.most + 1)

    @property
    def largest(self) -> int:
        """The largest of them."""
        return self.tried[-1]

    def at(self, elbow: Tensor) -> Tensor:
        """Return K for the index `elbow` of the largest second difference.

        Index i belongs to the three numbers from `fewest` + i on, so K is the middle one. The official code adds 2 to
        the index, as if the range began at 1, and 2 more, and takes at least `fewest`.
        """
        return (elbow + 4).clamp_min(self.fewest) if self.kind == "elbow_official" else elbow + self.fewest + 1

    @property
    def middle(self) -> float:
        """The middle of the numbers that the search can give."""
        if self.kind == "fixed":
            return float(self.codes)
        ends = self.at(torch.tensor([0, len(self.tried) - 3], device="cpu"))
        return float(ends.float().mean())


@dataclass(frozen=True)
class Clusters:
    """Labels `[R, P]` (the largest K for padding), last centres `[R, K, D]` and the number of clusters `[R]`."""

    label: Tensor
    centre: Tensor
    count: Tensor


def find_clusters(x: Tensor, search: Search, ok: Tensor | None = None) -> Clusters:
    """Cluster runs of tokens of norm 1, `[R, P, D]`, by cosine.

    The first centres of K clusters are the first K of one draw, so the search draws once; every run chooses its own K.

    Args:
        x: tokens.
        search: how K is found.
        ok: tokens that are not padding `[R, P]`.
    """
    start = plus_plus(x, search.largest, search.seed, ok)
    if search.kind == "fixed":
        label, centre = lloyd(x, start, search.iterations, ok=ok, metric="cosine")
        return Clusters(label, centre, torch.full(x.shape[:1], search.codes, device=x.device))
    labels, centres, distortions = [], [], []
    for k in search.tried:
        label, centre = lloyd(x, start[:, :k], search.iterations, ok=ok, metric="cosine", until_fixed=True)
        distortions.append(_distortion(x, label, centre))
        labels.append(label if ok is None else label.masked_fill(~ok, search.largest))
        centres.append(torch.cat([centre, start[:, k:]], 1))
    error = torch.stack(distortions, 1)
    elbow = (error[:, 2:] - 2 * error[:, 1:-1] + error[:, :-2]).argmax(1)
    count = search.at(elbow)
    row, chosen = torch.arange(len(x), device=x.device), count - search.fewest
    return Clusters(torch.stack(labels, 1)[row, chosen], torch.stack(centres, 1)[row, chosen], count)


def cluster_flops(search: Search, tokens: int, width: int) -> float:
    """Matrix FLOPs of `find_clusters` on a run of `tokens`, and of the means that carry gradient."""
    steps = sum(flops(tokens, k, width, search.iterations) for k in search.tried)
    return steps + 2.0 * tokens * width * (2 * search.largest - 1)


def _distortion(x: Tensor, label: Tensor, centre: Tensor) -> Tensor:
    """Return the summed squared distance of tokens to their cluster's mean, `[R]`; padding has no cluster."""
    k = centre.shape[1]
    own = centre.gather(1, label.clamp_max(k - 1)[..., None].expand_as(x))
    return ((x - own).square().sum(2) * (label < k)).sum(1)

"""Mixture of depths over vision tokens: in some layers only a frame's best tokens are processed (VideoLLM-MoD)."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from visiontokens.compress.base import Compressor, Decoder, Geometry, LayerCall, MethodParams, Seq, register
from visiontokens.compress.places import compact, put, take

GAIN = 0.2
"""Reach of the weight around 1; from a public relative, p-MoD."""
GOLDEN = (math.sqrt(5) - 1) / 2

Where = Literal["all", "all-deep", "interleaved", "interleaved-deep"]


class ModParams(MethodParams):
    """Parameters of `mod`.

    Attributes:
        share: share r of a frame's vision tokens that a MoD layer processes.
        layers: which layers are MoD layers: all, all of the deeper half, every second one (1, 3, ...), or those of
            them in the deeper half.
        weight: what multiplies the update of a processed token: `gain` is 1 + 0.2 tanh(mu) with a router that starts
            at zero, `score` the score mu itself, as mixture of depths has it.
    """

    share: float = Field(default=0.2, gt=0, le=1)
    layers: Where = "interleaved"
    weight: Literal["gain", "score"] = "gain"


@register("mod")
class MixtureOfDepths(Compressor[ModParams]):
    """VideoLLM-MoD (arXiv 2408.16730): a router per MoD layer keeps the top r of every frame, the others pass by.

    A token that passes by keeps its state and writes no key and value in that layer; text is always processed, and
    positions are the original ones. The paper released no code: the router (one linear map without bias, on the
    layer's input), the weight, and where the deeper half begins are our choices. So is the order among equal scores,
    which spreads evenly over the frame: a router that starts at zero would else pick the first rows of every image.
    """

    Params = ModParams
    identity = MappingProxyType({"share": 1.0})

    def __init__(self, params: ModParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        routed = self.routed(geometry.llm_layers)
        self.routers = nn.ModuleDict({str(i): nn.Linear(geometry.llm_width, 1, bias=False) for i in routed})

    def reset_parameters(self) -> None:
        """Start with weight 1 for every token; where the score is the weight, as torch initialises a linear map."""
        super().reset_parameters()
        if self.params.weight == "gain":
            for router in self.routers.values():
                nn.init.zeros_(router.weight)  # type: ignore[arg-type]

    def routed(self, n_layers: int) -> list[int]:
        """Return the MoD layers of a model of `n_layers` layers."""
        step = 2 if self.params.layers.startswith("interleaved") else 1
        first = n_layers // 2 if self.params.layers.endswith("deep") else 0
        return [index for index in range(first, n_layers) if step == 1 or index % 2]

    def kept(self, frame: int) -> int:
        """Return how many of a frame's tokens a MoD layer processes: r of them, rounded up."""
        return math.ceil(self.params.share * frame)

    def chosen(self, score: Tensor, seq: Seq) -> Tensor:
        """Return what is processed, bool `[B, S]`: text, padding, and the best of every frame by `score` `[B, S]`."""
        size = self.geometry.n_vision
        frames = score[seq.vis].unflatten(0, (-1, size))
        spread = (torch.arange(size, device=score.device, dtype=torch.float64) * GOLDEN % 1).argsort()
        best = spread[torch.argsort(frames[:, spread], dim=1, descending=True, stable=True)[:, : self.kept(size)]]
        picked = torch.zeros_like(frames, dtype=torch.bool).scatter(1, best, True)
        return (~seq.vis).masked_scatter(seq.vis, picked.flatten())

    def run_layer(self, index: int, seq: Seq, lm: Decoder, call: LayerCall) -> Tensor:
        """Run a MoD layer on text and chosen tokens, and weigh what it adds to the chosen ones."""
        if str(index) not in self.routers or not bool(seq.vis.any()):
            return call(seq)
        score = self.routers[str(index)](seq.h)
        place, ok = compact(self.chosen(score.detach()[..., 0], seq))
        short = seq.select(place, ok)
        more = GAIN * torch.tanh(score) if self.params.weight == "gain" else score - 1
        out = call(short)
        weighed = out + take(more, place).to(out.dtype) * (out - short.h)
        return put(seq.h, place, ok, torch.where(short.vis[..., None], weighed, out))

    def tokens_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """N, and r N (rounded up) in MoD layers."""
        few, routed = float(self.kept(n_vision)), self.routed(n_layers)
        return [few if index in routed else float(n_vision) for index in range(n_layers)]

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Projector, and one score per token (the text's too) and router."""
        scores = 2.0 * len(self.routers) * self.geometry.llm_width * (n_vision + n_text)
        return super().extra_flops(n_vision, n_text) + scores

"""ProxyV: from layer s on a few proxies do the heavy work of an image's tokens (arXiv 2505.15816, ICML 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from visiontokens.compress.base import (
    Compressor,
    Decoder,
    Geometry,
    LayerCall,
    MethodError,
    MethodParams,
    Seq,
    VisionIn,
    register,
)
from visiontokens.compress.places import compact, put, visible
from visiontokens.compress.schedule import Depth, DepthField

RATE = 0.3
"""Learning rate of the light MLPs over that of the projector: 3e-4 to 1e-3 in the official first stage (Vicuna)."""

EPSILON = 1e-5
"""Of the light MLPs' norm: what Vicuna's own norms have, and the recorded official outputs."""


class ProxyVParams(MethodParams):
    """Parameters of `proxyv`.

    Attributes:
        start: first layer with proxies; 12 of 32 for the official 7B model, 16 of 32 for the other choice in the paper.
        factor: patches on a side of the square that one proxy stands for.
        learned: proxies by learned attention over the image instead of resizing its grid (the non-spatial version).
        newline: a learned token behind every image (or frame), as official.
        rate: learning rate of the light MLPs, as a share of the connector's.
        official_tiles: give the separators of a run's second and later frames the positions of the released code,
            which forgets to count the separators before them.
    """

    start: DepthField = Depth(12)
    factor: int = Field(default=4, ge=1)
    learned: bool = False
    newline: bool = True
    rate: float = Field(default=RATE, gt=0)
    official_tiles: bool = False

    @model_validator(mode="after")
    def _start_allowed(self) -> Self:
        if self.start.layer < 0:
            raise ValueError(f"start must be a layer of the language model, 0 or more; found {self.start}")
        return self


class VisionMLP(nn.Module):
    """The light update of full tokens: D to `width` and back, with the proxies as context, normed after the residual.

    Without biases.
    """

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.context_proj = nn.Linear(hidden, width, bias=False)
        self.input_proj = nn.Linear(hidden, width, bias=False)
        self.proj = nn.Sequential(
            nn.Linear(2 * width, width, bias=False), nn.SiLU(), nn.Linear(width, hidden, bias=False)
        )
        self.layernorm_post = nn.RMSNorm(hidden, eps=EPSILON)

    def forward(self, full: Tensor, proxies: Tensor, spread: Tensor) -> Tensor:
        """Return updated tokens `[F, N, D]` from `full` `[F, N, D]`, `proxies` `[F, n, D]` and `spread` `[F, N, n]`,
        the share that each token takes of each proxy.
        """
        context = spread.to(proxies.dtype) @ self.context_proj(proxies)
        return self.layernorm_post(self.proj(torch.cat([self.input_proj(full), context], -1)) + full)


class ProxyInitializer(nn.Module):
    """Learned queries that gather the proxies of an image and give them back (the non-spatial version)."""

    def __init__(self, hidden: int, width: int, proxies: int) -> None:
        super().__init__()
        self.Wk = nn.Linear(hidden, width, bias=False)
        self.proxyv_tokens = nn.Parameter(torch.zeros(proxies, width))

    def reset_parameters(self) -> None:
        """Draw the queries with standard deviation 1 / sqrt(4 width)."""
        nn.init.normal_(self.proxyv_tokens, std=(4 * self.proxyv_tokens.shape[1]) ** -0.5)

    def forward(self, full: Tensor) -> tuple[Tensor, Tensor]:
        """Return proxies `[F, n, D]` and their shares in the tokens `[F, N, n]` of `full` `[F, N, D]`."""
        scores = self.proxyv_tokens @ self.Wk(full).mT / math.sqrt(self.proxyv_tokens.shape[1])
        return scores.softmax(-1) @ full, scores.mT.softmax(-1)


def resized(full: Tensor, grid: tuple[int, int], factor: int) -> Tensor:
    """Return proxies `[F, N / f^2, D]`: the grid of `full` `[F, N, D]` resized bilinearly, without antialiasing.

    With f = 4 that is the mean of the central 2x2 of every 4x4 block.
    """
    image = full.mT.unflatten(2, grid)
    size = (grid[0] // factor, grid[1] // factor)
    return functional.interpolate(image, size=size, mode="bilinear", align_corners=False).flatten(2).mT


def repeated(grid: tuple[int, int], factor: int, like: Tensor) -> Tensor:
    """Return the shares `[1, N, n]` with which every token takes the proxy of its block, and no other."""
    rows, cols = (torch.arange(side, device=like.device) // factor for side in grid)
    block = (rows[:, None] * (grid[1] // factor) + cols).flatten()
    return functional.one_hot(block, grid[0] * grid[1] // factor**2)[None].to(like.dtype)


@dataclass
class Proxies:
    """What runs along with a prefill from layer s on.

    `wide` is the sequence with proxies behind it, `[B, S + P]`; `queries`, `cached` and `place`, `ok` are the tokens
    that layers process and cache, and where the processed ones are. `full` flags full tokens `[B, S]`; `slot` `[F, n]`
    says where the proxies of every frame are in the flattened `[B * (S + P)]`; `spread` is as in `VisionMLP`.
    """

    wide: Seq
    queries: Tensor
    cached: Tensor
    place: Tensor
    ok: Tensor | None
    full: Tensor
    slot: Tensor
    spread: Tensor


@register("proxyv")
class ProxyV(Compressor[ProxyVParams]):
    """All vision tokens stay as keys and values; only proxies pass attention and MLP, and a light MLP updates the rest.

    Proxies see the text before the image and earlier proxies, not the full tokens; text sees full tokens and no proxy
    (the released code; the paper's figure draws it otherwise). Proxies take the first positions of their image run and
    never enter the cache, so that decoding runs the stock layers on all tokens. The sequence keeps its reading order,
    in which order and position say the same; the official one is packed, images first.
    """

    Params = ProxyVParams
    identity = MappingProxyType({"start": "32/32", "newline": False})
    packable = False
    dense_mask = True

    def __init__(self, params: ProxyVParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        grid, factor, hidden = geometry.grid, params.factor, geometry.llm_width
        if any(side % factor for side in grid):
            raise MethodError(f"method 'proxyv': factor {factor} does not divide the grid {grid[0]}x{grid[1]}")
        self.first = params.start.at(geometry.llm_layers)
        self.n_proxies = grid[0] * grid[1] // factor**2
        self.width = hidden // (4 if hidden >= 1024 else 2)
        layers = max(0, geometry.llm_layers - self.first)
        self.vision_mlp_layers = nn.ModuleList(VisionMLP(hidden, self.width) for _ in range(layers))
        if params.learned:
            self.proxyv_initializer = ProxyInitializer(hidden, self.width, self.n_proxies)
        if params.newline:
            self.image_newline = nn.Parameter(torch.zeros(hidden))
        self._proxies: Proxies | None = None

    def reset_parameters(self) -> None:
        """Initialise linear maps as torch does, norms with ones, the separator with deviation 1 / sqrt(D)."""
        super().reset_parameters()
        if self.params.newline:
            nn.init.normal_(self.image_newline, std=self.geometry.llm_width**-0.5)

    @property
    def run(self) -> int:
        """Tokens that a frame brings into the language model."""
        return self.geometry.n_vision + self.params.newline

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor:
        """Return `[F, N + 1, D]`: the projected patches and the separator, if there is one."""
        image = projector(vision.features)
        if not self.params.newline:
            return image
        return torch.cat([image, self.image_newline.to(image.dtype).expand(len(image), 1, -1)], 1)

    def begin(self, seq: Seq, lm: Decoder) -> Seq:
        """Forget the last prompt; move separators where the released code has them, if asked to."""
        self._proxies = None
        if self.params.official_tiles and self.params.newline:
            moved = seq.vis & (seq.rank % self.run == self.run - 1) & (seq.rank >= self.run)
            seq = replace(seq, pos=seq.pos - self.run * moved.long(), memo={})
            same = seq.vis[:, :, None] & (seq.image[:, :, None] == seq.image[:, None, :])
            by_position = seq.pos[:, :, None] >= seq.pos[:, None, :]
            seq.mask = torch.where(same, by_position, visible(seq)[:, 0])[:, None]
        return seq

    def run_layer(self, index: int, seq: Seq, lm: Decoder, call: LayerCall) -> Tensor:
        """From layer s on, run the layer for proxies and text, then update the full tokens."""
        if index < self.first or not bool(seq.vis.any()):
            return call(seq)
        with_proxies = self._along(seq) if self._proxies is None else self._proxies
        self._proxies = with_proxies
        p, size = with_proxies, seq.h.shape[1]
        wide = replace(p.wide, h=torch.cat([seq.h, p.wide.h[:, size:]], 1))
        out = put(wide.h, p.place, p.ok, call(wide, queries=p.queries, cached=p.cached))
        p.wide = replace(p.wide, h=out)
        proxies = out.flatten(0, 1)[p.slot]
        full = seq.h[p.full].unflatten(0, (-1, self.geometry.n_vision))
        updated = self.vision_mlp_layers[index - self.first](full, proxies, p.spread)
        return out[:, :size].masked_scatter(p.full[..., None], updated.to(out.dtype))

    def after_layer(self, index: int, seq: Seq, lm: Decoder) -> Seq:
        """Let go of the proxies after the last layer."""
        if index == self.geometry.llm_layers - 1:
            self._proxies = None
        return seq

    def _along(self, seq: Seq) -> Proxies:
        """Make the proxies of every frame and put them behind the sequence."""
        full = seq.vis & (seq.rank % self.run < self.geometry.n_vision)
        tokens = seq.h[full].unflatten(0, (-1, self.geometry.n_vision))
        if self.params.learned:
            proxies, spread = self.proxyv_initializer(tokens)
        else:
            proxies = resized(tokens, self.geometry.grid, self.params.factor)
            spread = repeated(self.geometry.grid, self.params.factor, tokens)
        batch, size = seq.pos.shape
        n = self.n_proxies
        opens = full & (seq.rank % self.run == 0)
        frames, real = compact(opens)  # where frames begin, [B, frames of a row]
        slots = size + torch.arange(frames.shape[1] * n, device=full.device)
        row = opens.nonzero()[:, 0]
        nth = opens.long().cumsum(1)[opens] - 1
        slot = (row * (size + len(slots)))[:, None] + slots.unflatten(0, (-1, n))[nth]
        behind = seq.h.new_zeros(batch * (size + len(slots)), seq.h.shape[-1])
        behind = behind.index_copy(0, slot.flatten(), proxies.flatten(0, 1).to(behind.dtype))
        wide = self._wide(seq, full, frames, real, behind.unflatten(0, (batch, -1))[:, size:])
        queries = wide.valid & torch.cat([~full, torch.ones_like(wide.pos[:, size:], dtype=torch.bool)], 1)
        cached = torch.arange(wide.pos.shape[1], device=full.device).expand_as(wide.pos) < size
        return Proxies(wide, queries, cached, *compact(queries), full, slot, spread)

    def _wide(self, seq: Seq, full: Tensor, frames: Tensor, real: Tensor | None, h: Tensor) -> Seq:
        """Return the sequence with the proxies' states `h` `[B, P, D]` behind it, and who sees whom."""
        n = self.n_proxies
        begin = frames.repeat_interleave(n, 1) - seq.rank.gather(1, frames).repeat_interleave(n, 1)  # of the image run
        nth = seq.rank.gather(1, frames)[..., None] // self.run * n + torch.arange(n, device=h.device)
        pos = seq.pos.gather(1, begin) + nth.flatten(1)
        ok = torch.ones_like(pos, dtype=torch.bool) if real is None else real.repeat_interleave(n, 1)
        base = visible(seq)[:, 0] if seq.mask is None else seq.mask[:, 0] & seq.valid[:, None]
        before = base.gather(1, begin[..., None].expand(-1, -1, base.shape[-1])) & ~full[:, None]
        among = base.gather(1, begin[..., None].expand(-1, -1, base.shape[-1]))
        among = among.gather(2, begin[:, None].expand(-1, begin.shape[1], -1)).tril()
        mask = torch.cat([torch.cat([base, torch.zeros_like(before.mT)], 2), torch.cat([before, among], 2)], 1)
        everything = torch.cat([seq.valid, ok], 1)
        text = torch.full_like(pos, -1)
        return Seq(
            h=torch.cat([seq.h, h], 1),
            pos=torch.cat([seq.pos, pos], 1),
            src=torch.cat([seq.src, seq.src.gather(1, begin)], 1),
            image=torch.cat([seq.image, text], 1),
            rank=torch.cat([seq.rank, nth.flatten(1)], 1),
            ok=None if bool(everything.all()) else everything,
            mask=mask[:, None],
        )

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Give the light MLPs a learning rate of their own."""
        light = {id(p) for p in self.vision_mlp_layers.parameters()}
        groups = [
            {"params": [p for p in self.parameters() if p.requires_grad and (id(p) in light) == own], "lr": rate}
            for own, rate in ((True, lr * self.params.rate), (False, lr))
        ]
        return [group for group in groups if group["params"]]

    def n_tokens(self, n_vision: int) -> int:
        """N and the separator."""
        return n_vision + self.params.newline

    def tokens_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """All vision tokens, and the proxies besides from layer s on."""
        full = float(self.n_tokens(n_vision))
        return [full + self.n_proxies * (index >= self.first) for index in range(n_layers)]

    def queries_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """All vision tokens below layer s, from it on the proxies and the separator."""
        full, few = float(self.n_tokens(n_vision)), self.n_proxies + self.params.newline
        return [full if index < self.first else float(few) for index in range(n_layers)]

    def kv_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """All vision tokens; proxies are not cached."""
        return [float(self.n_tokens(n_vision))] * n_layers

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Projector, light MLPs with the spreading of their context, and the learned proxies' attention."""
        hidden, width = self.geometry.llm_width, self.width
        light = n_vision * (hidden * width + 2 * width * width + width * hidden) + self.n_proxies * hidden * width
        light += n_vision * self.n_proxies * width
        total = super().extra_flops(n_vision, n_text) + 2.0 * len(self.vision_mlp_layers) * light
        if self.params.learned:
            total += 2.0 * n_vision * (hidden * width + self.n_proxies * (width + hidden))
        return total

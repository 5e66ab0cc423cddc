"""Where the patches of one image go: which token each becomes a part of, layer by layer, and what the answer looks at.

Nothing is asked of a method. Where its tokens come from is read off the gradient of what it returns: a kept token
answers for itself, an average for its members, a learned query for the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from visiontokens.compress.base import Compressor, Decoder, LayerCall, Probe, Seq, VisionIn

GONE, SPREAD = -1, -2
"""In place of a token's number: the patch is in no token; it is in several, so that no one place is its own."""
CLEAR = 0.05
"""Largest distance from 0 or 1 of a patch's share in a token that still counts as none or all."""


def destinations(out: Tensor, inputs: Sequence[Tensor]) -> Tensor | None:
    """Return the row of `out` that every row of the inputs has gone into, `[N]`: its number, `GONE` or `SPREAD`.

    The gradient of the rows of `out` whose number has bit b set is, for an input row that only row i has read, its
    whole gradient or nothing: log2 M backward passes name i. An input row of which some bit's share is in between
    has been read by several.

    Args:
        out: `[M, D]`.
        inputs: leaves `[1, N, C]` that `out` was computed from; rows of one number belong together.

    Returns:
        `None` where no gradient leads back to any row (the method chooses or mixes without), so that nothing is known.
    """
    if not out.requires_grad:
        return None
    rows = torch.arange(len(out), device=out.device)
    signs = torch.where(torch.rand(out.shape[1], generator=torch.Generator().manual_seed(0)) < 0.5, -1.0, 1.0)
    signs = signs.to(out.device)

    def pulled(weight: Tensor) -> Tensor:
        cotangent = (weight[:, None] * signs).to(out.dtype)
        found = torch.autograd.grad(out, list(inputs), cotangent, retain_graph=True, allow_unused=True)
        parts = [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]
        return torch.cat(parts, -1)[0].double()

    whole = pulled(torch.ones_like(rows, dtype=torch.float))
    size = (whole * whole).sum(-1)
    if not bool(size.any()):
        return None
    token, clear = torch.zeros_like(size, dtype=torch.long), torch.ones_like(size, dtype=torch.bool)
    for bit in range(max(1, len(out) - 1).bit_length()):
        share = (pulled(((rows >> bit) & 1).float()) * whole).sum(-1) / size.clamp_min(torch.finfo(size.dtype).tiny)
        one = share > 0.5
        token += one.long() << bit
        clear &= (share - one.double()).abs() < CLEAR
    clear &= token < len(out)
    return torch.where(size == 0, GONE, torch.where(clear, token, SPREAD))


@dataclass(frozen=True)
class LayerTrace:
    """What one decoder layer saw of an image.

    Attributes:
        tokens: vision tokens that passed the layer as queries.
        owner: token of every patch among the layer's vision tokens `[N]`, or `GONE` or `SPREAD`; `None`: not known.
        attention: of the position that answers, to every vision token of the layer, head mean `[V]`; `None`: it was
            not looked at, as some tokens only are queries there.
    """

    tokens: int
    owner: Tensor | None
    attention: Tensor | None


@dataclass
class Trace:
    """What a prefill of one prompt with one image left behind: tokens that entered, and a record of every layer."""

    entered: int = 0
    owner: Tensor | None = None  # of the tokens at hand
    layers: list[LayerTrace] = field(default_factory=list)

    def entering(self, tokens: Tensor, levels: Sequence[Tensor]) -> None:
        """Note what the tokens `[M, D]` that enter the language model are made of."""
        self.entered, self.owner = len(tokens), destinations(tokens, levels)

    def moved(self, old: Seq, new: Seq, leaf: Tensor) -> None:
        """Note a step from one sequence to another that was computed from `leaf`, the old one's states."""
        where = destinations(new.h[0], [leaf])
        if self.owner is None or where is None:
            self.owner = None
            return
        vision = new.vis[0]
        number = torch.where(vision, vision.long().cumsum(0) - 1, GONE)
        to = torch.where(where >= 0, number[where.clamp_min(0)], where)[old.vis[0]]
        self.owner = _through(self.owner, to)

    def passed(self, seq: Seq, given: Seq, queries: Tensor | None, probe: Probe | None) -> None:
        """Note what a layer ran on: `given`, which a method may have cut out of `seq`."""
        vision = given.vis[0]
        owner, attention = self.owner, None
        if given.src is not seq.src and owner is not None:
            match = seq.src[0][seq.vis[0]][:, None] == given.src[0][vision]
            to = torch.where(match.any(1), match.long().argmax(1), GONE)
            owner = _through(owner, to)
        if probe is not None and probe.weights is not None:
            attention = probe.weights[0][vision]
        text = seq.valid & ~seq.vis
        asking = int(vision.sum()) if queries is None else int(queries.sum() - text.sum())
        self.layers.append(LayerTrace(asking, owner, attention))


def _through(owner: Tensor, to: Tensor) -> Tensor:
    """Return the patches' tokens `[N]` after the tokens have gone to `to`."""
    return torch.where(owner >= 0, to[owner.clamp_min(0)], owner) if len(to) else torch.full_like(owner, GONE)


@contextmanager
def traced(compressor: Compressor[Any]) -> Iterator[Trace]:
    """Trace the next prefill of one prompt with one image; the model computes what it would without.

    The prefill must not run in inference mode, which knows no gradients.
    """
    trace = Trace()
    watch = {
        "compress": _compress(compressor, trace),
        "run_layer": _run_layer(compressor, trace),
        **{name: _step(getattr(compressor, name), trace) for name in ("begin",)},
        **{name: _layer_step(getattr(compressor, name), trace) for name in ("before_layer", "after_layer")},
    }
    vars(compressor).update(watch)
    try:
        yield trace
    finally:
        for name in watch:
            del vars(compressor)[name]


def _compress(compressor: Compressor[Any], trace: Trace) -> Callable[[VisionIn, nn.Module], list[Tensor]]:
    original = compressor.compress

    def compress(vision: VisionIn, projector: nn.Module) -> list[Tensor]:
        with torch.enable_grad():
            levels = {level: value.detach().clone().requires_grad_() for level, value in vision.levels.items()}
            tokens = original(replace(vision, levels=levels), projector)
            trace.entering(tokens[0], list(levels.values()))
        return [token.detach() for token in tokens]

    return compress


def _step(original: Callable[[Seq, Decoder], Seq], trace: Trace) -> Callable[[Seq, Decoder], Seq]:
    def step(seq: Seq, lm: Decoder) -> Seq:
        with torch.enable_grad():
            leaf = seq.h.detach().requires_grad_()
            given = replace(seq, h=leaf)
            new = original(given, lm)
            if new.h is leaf:
                return seq if new is given else replace(new, h=seq.h)
            trace.moved(seq, new, leaf)
        return replace(new, h=new.h.detach())

    return step


def _layer_step(original: Callable[[int, Seq, Decoder], Seq], trace: Trace) -> Callable[[int, Seq, Decoder], Seq]:
    def step(index: int, seq: Seq, lm: Decoder) -> Seq:
        return _step(lambda given, decoder: original(index, given, decoder), trace)(seq, lm)

    return step


def _run_layer(compressor: Compressor[Any], trace: Trace) -> Callable[[int, Seq, Decoder, LayerCall], Tensor]:
    original = compressor.run_layer

    def run_layer(index: int, whole: Seq, lm: Decoder, call: LayerCall) -> Tensor:
        def watched(seq: Seq, *, queries: Tensor | None = None, cached: Tensor | None = None) -> Tensor:
            probe = _probe(lm.layers[index], seq) if queries is None else None
            out = call(seq, queries=queries, cached=cached)
            trace.passed(whole, seq, queries, probe)
            return out

        return original(index, whole, lm, watched)

    return run_layer


def _probe(layer: Any, seq: Seq) -> Probe:
    """Return the probe of a layer: the method's own, or one that asks for what the answering position may see."""
    own: Probe | None = getattr(layer.self_attn, "probe", None)
    if own is not None:
        return own
    rows, allowed = seq.asking()
    if seq.mask is not None:
        allowed = allowed & seq.mask[0, 0][rows]
    layer.self_attn.probe = Probe(rows, allowed)
    return layer.self_attn.probe

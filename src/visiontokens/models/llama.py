"""LLaMA whose layer loop a compressor can act on; the layers themselves are stock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from visiontokens.compress.base import Compressor, LayerCall, Seq
from visiontokens.models import attention as _attention  # noqa: F401 - registers our attention functions
from visiontokens.models.load import Load
from visiontokens.models.masks import SDPA, build_mask, extension_mask
from visiontokens.models.state import VisionCache
from visiontokens.models.subset import asking, run_queries


@dataclass
class Prefill:
    """One pass over a whole prompt; after it, `seq` is what survived the last layer. `load`, if given, is added to."""

    seq: Seq
    compressor: Compressor[Any]
    cache: VisionCache | None = None
    load: Load | None = None


@dataclass
class Extension:
    """New text tokens after a prefill: states `[B, T, D]`, and which of them are real (`None`: all)."""

    h: Tensor
    ok: Tensor | None
    pos: Tensor
    cache: VisionCache


class HookedLlamaModel(LlamaModel):
    """Stock `LlamaModel`, plus `forward(work=...)` that runs a `Prefill` or an `Extension`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        if self.config._attn_implementation == "sdpa":
            self.config._attn_implementation = SDPA

    def forward(self, *args: Any, work: Prefill | Extension | None = None, **kwargs: Any) -> Any:
        """Run the stock forward, or `work` when given."""
        if work is None:
            return super().forward(*args, **kwargs)
        return self._work(work=work, **kwargs)

    @merge_with_config_defaults  # type: ignore[untyped-decorator]
    @capture_outputs  # type: ignore[untyped-decorator]
    def _work(self, work: Prefill | Extension, **kwargs: Any) -> BaseModelOutputWithPast:
        for key in ("use_cache", "output_hidden_states", "output_attentions"):
            kwargs.pop(key, None)
        h = self._prefill(work, **kwargs) if isinstance(work, Prefill) else self._extend(work, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(h), past_key_values=work.cache)

    def _prefill(self, work: Prefill, **kwargs: Any) -> Tensor:
        hooks, cache = work.compressor, work.cache
        if cache is not None:  # before a method moves or drops tokens: the prompt may end with its image
            cache.next_pos = torch.where(work.seq.valid, work.seq.pos, -1).amax(1) + 1
        seq = hooks.begin(work.seq, self)
        for index in range(len(self.layers)):
            seq = hooks.before_layer(index, seq, self)
            seq = replace(seq, h=hooks.run_layer(index, seq, self, self._caller(index, work, kwargs)))
            seq = hooks.after_layer(index, seq, self)
        hooks.end(seq, self, cache)
        work.seq = seq
        return seq.h

    def _caller(self, index: int, work: Prefill, kwargs: dict[str, Any]) -> LayerCall:
        """Return the function that runs stock layer `index` on any sequence and notes which keys it cached."""
        layer: nn.Module = self.layers[index]
        cache, load = work.cache, work.load

        def call(seq: Seq, *, queries: Tensor | None = None, cached: Tensor | None = None) -> Tensor:
            """Run the stock layer on a sequence (`LayerCall`)."""
            memo = seq.memo
            if "rope" not in memo:
                memo["rope"] = self.rotary_emb(seq.h, position_ids=seq.pos)
                memo["vis"] = seq.vis
                memo["tokens"] = 0 if load is None else load.count(seq, queries)
            if load is not None:
                load.layer_tokens += memo["tokens"]
            if cache is not None:
                cache.key_ok.append(seq.ok)
                cache.vision.append(memo["vis"])
                cache.shifts.append(seq.shift)
            if queries is None:
                out = self._whole(layer, seq, cache, **kwargs)
            else:
                out = self._some(layer, seq, queries, cache, **kwargs)
            if cache is not None and cached is not None:
                cache.keep(index, cached)
            return out

        return call

    def _whole(self, layer: nn.Module, seq: Seq, cache: VisionCache | None, **kwargs: Any) -> Tensor:
        """Run a stock layer on all tokens."""
        memo = seq.memo
        if "mask" not in memo:
            memo["mask"] = build_mask(seq, self.config._attn_implementation)
        out: Tensor = layer(
            seq.h,
            attention_mask=memo["mask"],
            position_ids=seq.pos,
            position_embeddings=memo["rope"],
            past_key_values=cache,
            use_cache=cache is not None,
            **kwargs,
        )
        return out

    def _some(self, layer: nn.Module, seq: Seq, queries: Tensor, cache: VisionCache | None, **kwargs: Any) -> Tensor:
        """Run a stock layer with some tokens as queries."""
        memo = seq.memo
        if memo.get("queries") is not queries:
            memo["queries"] = queries
            memo["asking"] = asking(seq, queries, memo["rope"], self.config._attn_implementation)
        return run_queries(layer, seq, memo["asking"], memo["rope"], cache, **kwargs)

    def _extend(self, work: Extension, **kwargs: Any) -> Tensor:
        cache, h = work.cache, work.h
        places: dict[int, tuple[Tensor, Any]] = {}
        masks: dict[tuple[int, int], Any] = {}
        grown: dict[tuple[int, int], Tensor | None] = {}
        for index, (layer, length) in enumerate(zip(self.layers, cache.lengths(), strict=True)):
            old = cache.key_ok[index]
            key = (id(old), length)
            if key not in masks:
                masks[key] = extension_mask(old, length, work.ok, h, self.config._attn_implementation)
                grown[key] = _grown(old, length, work.ok, h)
            shift = cache.shifts[index]
            if id(shift) not in places:
                pos = work.pos if shift is None else work.pos - shift[:, None]
                places[id(shift)] = pos, self.rotary_emb(h, position_ids=pos)
            pos, rope = places[id(shift)]
            h = layer(
                h,
                attention_mask=masks[key],
                position_ids=pos,
                position_embeddings=rope,
                past_key_values=cache,
                use_cache=True,
                **kwargs,
            )
            cache.key_ok[index] = grown[key]
        real = work.pos if work.ok is None else torch.where(work.ok, work.pos, -1)
        before = cache.next_pos if cache.next_pos is not None else real.new_zeros(len(real))
        cache.next_pos = torch.maximum(before, real.amax(1) + 1)
        return h


def _grown(old: Tensor | None, length: int, new: Tensor | None, like: Tensor) -> Tensor | None:
    """Return the key mask after appending `new`; `None` when everything is real."""
    if old is None and new is None:
        return None
    ones = torch.ones(like.shape[0], 1, dtype=torch.bool, device=like.device)
    old = ones.expand(-1, length) if old is None else old
    new = ones.expand(-1, like.shape[1]) if new is None else new
    return torch.cat([old, new], 1)

"""Time and memory of every method beside transformers' own LLaVA, with random weights: prefill, decoding, training,
evaluation.

Both models hold the same language model, get the same tower features and run in turns in one process, so what the
machine does besides slows both. The ideal speed-up is the ratio of matrix FLOPs (compressor and projector included);
its achieved share says what masks, bookkeeping and small kernels cost.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from visiontokens.compress.base import MethodSpec, lookup
from visiontokens.measure.answers import AnswerLoad, Answers
from visiontokens.measure.flops import VICUNA_7B, VICUNA_13B, LlamaShape, decode_flops, mlp_flops, prefill_flops
from visiontokens.measure.geometry import CLIP_L_336, around, random_stock
from visiontokens.measure.latency import timed_in_turns
from visiontokens.measure.memory import peak_bytes
from visiontokens.measure.mixed import mixed_prompts, together
from visiontokens.measure.outside import before_decoder, tower_steps
from visiontokens.models.kernels import choose_kernel, use_kernel
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.models.tiny import TowerDims

log = logging.getLogger(__name__)

Step = Callable[[], object]


@dataclass(frozen=True)
class BenchSize:
    """What is timed: sizes of the model, of the prompt and of the training batch, and how often."""

    name: str
    shape: LlamaShape
    text_tokens: int = 40
    train_text: int = 120
    train_batch: int = 4
    decode_tokens: int = 32
    repeats: int = 10
    warmup: int = 2
    tower: TowerDims = CLIP_L_336
    answers: AnswerLoad = field(default_factory=AnswerLoad)


SIZES = {
    "7b": BenchSize("7b", VICUNA_7B),
    "13b": BenchSize("13b", VICUNA_13B),
    # Small enough for two cores, wide enough that matrix products take nearly all of the time. The tower, which only
    # the answers run, has a quarter of its depth like the language model; the whole one would outweigh that.
    "cpu": BenchSize(
        "cpu", LlamaShape(hidden=1024, layers=8, heads=16, kv_heads=16, mlp=2752, vocab=32000),
        train_batch=1, decode_tokens=8, repeats=5, warmup=1, tower=replace(CLIP_L_336, layers=6),
        answers=AnswerLoad(images=2, alone=2, repeats=2, warmup=0),
    ),
}  # fmt: skip
"""Geometries by name."""


@dataclass(frozen=True)
class Pair:
    """Milliseconds of our step and the stock one, run in turns."""

    ours: list[float]
    stock: list[float]

    @property
    def speedup(self) -> float:
        """Median over the rounds of stock time / our time."""
        return statistics.median(s / o for s, o in zip(self.stock, self.ours, strict=True))


def in_turns(ours: Step, stock: Step, device: torch.device, repeats: int, warmup: int) -> Pair:
    """Time both steps, changing who goes first.

    Raises:
        ValueError: no repeats, or a negative warm-up.
    """
    return Pair(*timed_in_turns([ours, stock], device, repeats, warmup))


class Bench:
    """One geometry on one device: the stock model, and methods around its language model.

    Args:
        size: what is timed.
        device: where.
        dtype: of weights and arithmetic.
        attention: kernel, as in the settings; both models get the same one.
    """

    def __init__(self, size: BenchSize, device: torch.device, dtype: torch.dtype, attention: str = "auto") -> None:
        self.size, self.device, self.dtype, self.attention = size, device, dtype, attention
        self.stock: Any = random_stock(size.shape, device, dtype, size.tower)
        self.stock.requires_grad_(False)
        self.answers = Answers(self.stock, size.answers)

    def measure(self, name: str, method: MethodSpec) -> dict[str, Any]:
        """Return the record of one method."""
        model = around(self.stock, method)
        kernel = choose_kernel(self.attention, self.device, self.dtype, lookup(method.name))
        use_kernel(model, kernel)
        self.stock.set_attn_implementation({"text_config": kernel.name})
        size, compressor = self.size, model.compressor
        counts = compressor.tokens_per_layer(compressor.geometry.n_vision, size.shape.layers)
        record = {
            "geometry": size.name, "method": name, "attention": kernel.name,
            "tokens_mean": sum(counts) / len(counts), "compression_ratio": len(counts) * self.patches / sum(counts),
            **self._prefill(model), **self._mixed(model), **self._decode(model), **self._train(model),
            **self.answers.measure(model),
        }  # fmt: skip
        record["outside_share"] = record["outside_ms"] / record["prefill_ms"]
        log.info(
            "%s %s: prefill %.0f ms (%.1f%% outside the LLM), %.2fx (%.2f of ideal); training %.2fx (%.2f of ideal); "
            "answers %.1fx", size.name, name, record["prefill_ms"], 100 * record["outside_share"],
            record["prefill_speedup"], record["prefill_share"], record["train_speedup"], record["train_share"],
            record["answers_speedup"],
        )  # fmt: skip
        return record

    @property
    def patches(self) -> int:
        """Vision tokens without compression."""
        return self.size.tower.grid**2

    def flops(self, model: LlavaWithCompressor | None, text: int, rows: int) -> float:
        """Return the FLOPs of one sample's forward with `rows` rows through the output layer (`None`: stock model)."""
        shape = self.size.shape
        counts, extra = [float(self.patches)] * shape.layers, self.projector_flops
        queries = counts
        if model is not None:
            counts = model.compressor.tokens_per_layer(self.patches, shape.layers)
            queries = model.compressor.queries_per_layer(self.patches, shape.layers)
            extra = model.compressor.extra_flops(self.patches, text)
        decoder = prefill_flops(shape, counts, text, queries=queries, head="none")
        return decoder + rows * shape.head_flops + extra

    @property
    def projector_flops(self) -> float:
        """FLOPs of LLaVA's projector on all patches."""
        return mlp_flops([self.size.tower.hidden, self.size.shape.hidden, self.size.shape.hidden], self.patches)

    def _prefill(self, model: LlavaWithCompressor) -> dict[str, float]:
        size, inputs = self.size, self.inputs(model, 1, self.size.text_tokens)

        def ours() -> object:
            return model.prefill(**inputs).logits

        def stock() -> object:
            with torch.no_grad():
                return self.stock(inputs_embeds=self.embed(inputs), use_cache=True, logits_to_keep=1).logits

        pair = in_turns(ours, stock, self.device, size.repeats, size.warmup)
        ideal = self.flops(None, size.text_tokens, 1) / self.flops(model, size.text_tokens, 1)
        return _compared("prefill", pair, ideal) | {
            "prefill_peak_mib": peak_bytes(ours, self.device) / 2**20,
            "stock_prefill_peak_mib": peak_bytes(stock, self.device) / 2**20,
            **self._outside(model, inputs),
        }

    def _outside(self, model: LlavaWithCompressor, inputs: dict[str, Any]) -> dict[str, float]:
        """Time what a prefill does before its first decoder layer, and what a method adds to the tower."""
        size = self.size

        def stock() -> object:
            with torch.no_grad():
                return self.embed(inputs)

        pair = in_turns(before_decoder(model, inputs), stock, self.device, size.repeats, size.warmup)
        tower = self._tower_overhead(model)
        return {
            "outside_ms": statistics.median(pair.ours) + max(0.0, tower),
            "stock_outside_ms": statistics.median(pair.stock),
            "tower_overhead_ms": tower,
        }

    def _tower_overhead(self, model: LlavaWithCompressor) -> float:
        """Return by how many milliseconds a method's own way through the tower is slower than the plain one."""
        steps = tower_steps(model, self.answers.pixels[:1])
        if steps is None:
            return 0.0
        pair = in_turns(*steps, self.device, self.size.repeats, self.size.warmup)
        return statistics.median(pair.ours) - statistics.median(pair.stock)

    def _mixed(self, model: LlavaWithCompressor) -> dict[str, float]:
        """Time one batch of prompts with different numbers of images and words beside the same prompts one by one."""
        rows = mixed_prompts(model, lambda images, text: self.inputs(model, images, text), self.size.text_tokens)
        batch = together(rows)
        pair = in_turns(
            lambda: model.prefill(**batch).logits, lambda: [model.prefill(**row).logits for row in rows], self.device,
            max(1, self.size.repeats // 2), 1,
        )  # fmt: skip
        return {
            "mixed_ms": statistics.median(pair.ours),
            "mixed_alone_ms": statistics.median(pair.stock),
            "mixed_speedup": pair.speedup,
        }

    def _decode(self, model: LlavaWithCompressor) -> dict[str, float]:
        size, inputs = self.size, self.inputs(model, 1, self.size.text_tokens)
        token = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        start = model.prefill(**inputs)

        def ours() -> object:
            state = start
            for _ in range(size.decode_tokens):
                _, state = model.extend(state, token)
            return state.logits

        with torch.no_grad():
            cache = self.stock(inputs_embeds=self.embed(inputs), use_cache=True, logits_to_keep=1).past_key_values
        length = cache.get_seq_length()

        def stock() -> object:
            cache.crop(length - cache.get_seq_length())
            with torch.no_grad():
                for _ in range(size.decode_tokens):
                    out = self.stock(input_ids=token, past_key_values=cache, use_cache=True)
            return out.logits

        pair = in_turns(ours, stock, self.device, size.repeats, size.warmup)
        counts = model.compressor.kv_per_layer(self.patches, size.shape.layers)
        plain = [float(self.patches)] * size.shape.layers
        ideal = decode_flops(size.shape, plain, size.text_tokens) / decode_flops(size.shape, counts, size.text_tokens)
        rate = {"decode_tokens_s": pair.ours, "stock_decode_tokens_s": pair.stock}
        return _compared("decode", pair, ideal) | {
            key: 1000 * size.decode_tokens / statistics.median(times) for key, times in rate.items()
        }

    def _train(self, model: LlavaWithCompressor) -> dict[str, float]:
        """Time forward and backward; the optimizer's step is the same for all methods and left out."""
        size = self.size
        inputs = self.inputs(model, size.train_batch, size.train_text)
        labels = inputs["input_ids"].clone()
        labels[:, : -size.train_text // 2] = -100
        wide = self.widen(inputs["input_ids"], labels, -100)
        parts = [
            self.stock.model.language_model, self.stock.lm_head, self.stock.model.multi_modal_projector,
            model.model.language_model, model.model.multi_modal_projector, model.compressor,
        ]  # fmt: skip
        for part in parts:
            part.requires_grad_(True).train()

        def step(loss: Callable[[], Tensor]) -> None:
            for part in parts:
                part.zero_grad(set_to_none=True)
            loss().backward()

        def ours() -> None:
            model.train()
            step(lambda: model(**inputs, labels=labels).loss)

        def stock() -> None:
            step(lambda: self.stock(inputs_embeds=self.embed(inputs), labels=wide).loss)

        pair = in_turns(ours, stock, self.device, max(2, size.repeats // 2), 1)
        for part in parts:
            part.zero_grad(set_to_none=True)
            part.requires_grad_(False).eval()
        model.eval()
        rows = size.train_text // 2
        ideal = self.flops(None, size.train_text, rows) / self.flops(model, size.train_text, rows)
        tokens = size.train_batch * (self.patches + size.train_text)
        rate = {"train_tokens_s": pair.ours, "stock_train_tokens_s": pair.stock}
        return _compared("train", pair, ideal) | {
            key: 1000 * tokens / statistics.median(times) for key, times in rate.items()
        }

    def inputs(self, model: LlavaWithCompressor, batch: int, text: int, seed: int = 0) -> dict[str, Any]:
        """Return prompts of one image and `text` tokens each, a fifth of them in front; the content is random."""
        draw = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, self.size.shape.vocab - 1, (batch, text + 1), generator=draw)
        ids[:, max(1, text // 5)] = model.config.image_token_id
        shapes = model.compressor.state_shapes(batch)
        shapes.setdefault(self.default_level, (batch, self.patches, self.size.tower.hidden))
        levels = {n: torch.randn(shapes[n], generator=draw).to(self.device, self.dtype) for n in sorted(shapes)}
        return {"input_ids": ids.to(self.device), "vision_levels": levels}

    def widen(self, ids: Tensor, values: Tensor, fill: int) -> Tensor:
        """Return per-token values `[B, S]` with the image's placeholder as often as it has patches, there `fill`."""
        at = int((ids[0] == self.stock.config.image_token_id).nonzero()[0, 0])
        middle = values.new_full((len(values), self.patches), fill)
        return torch.cat([values[:, :at], middle, values[:, at + 1 :]], 1)

    def embed(self, inputs: dict[str, Any]) -> Tensor:
        """Return what the stock model's own forward feeds its language model after the tower, `[B, S2, D]`."""
        stock: LlavaForConditionalGeneration = self.stock
        features = stock.model.multi_modal_projector(inputs["vision_levels"][self.default_level][:, -self.patches :])
        ids = self.widen(inputs["input_ids"], inputs["input_ids"], stock.config.image_token_id)
        image = ids == stock.config.image_token_id
        embedded = stock.get_input_embeddings()(ids.masked_fill(image, 0))
        return embedded.masked_scatter(image[..., None], features.to(embedded.dtype))

    @property
    def default_level(self) -> int:
        """Hidden-state index of the feature that LLaVA projects."""
        return self.size.tower.layers - 1


def _compared(what: str, pair: Pair, ideal: float) -> dict[str, float]:
    """Return times, speed-up, ideal speed-up and the share of it that was reached."""
    return {
        f"{what}_ms": statistics.median(pair.ours),
        f"stock_{what}_ms": statistics.median(pair.stock),
        f"{what}_speedup": pair.speedup,
        f"{what}_ideal": ideal,
        f"{what}_share": pair.speedup / ideal,
    }


def run_bench(
    size: str, methods: Sequence[tuple[str, MethodSpec]], *, repeats: int = 0, attention: str = "auto"
) -> list[dict[str, Any]]:
    """Measure methods at one geometry on the GPU if there is one, else on the CPU.

    Args:
        size: a key of `SIZES`, or `auto`: 7b on a GPU, else cpu.
        methods: names and specifications, in order.
        repeats: timed rounds; 0 = the geometry's own number.
        attention: kernel, as in the settings.

    Raises:
        ValueError: an unknown geometry, or one of the papers' sizes without a GPU.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = {"cuda": "7b", "cpu": "cpu"}[device.type] if size == "auto" else size
    if name not in SIZES:
        raise ValueError(f"geometry: found {name!r}, expected auto, {', '.join(SIZES)}")
    if device.type == "cpu" and name != "cpu":
        raise ValueError(f"geometry {name!r} needs a GPU; found none (use cpu)")
    chosen = SIZES[name]
    if repeats:
        fewer = replace(chosen.answers, repeats=min(repeats, chosen.answers.repeats))
        chosen = replace(chosen, repeats=repeats, answers=fewer)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    bench = Bench(chosen, device, dtype, attention)
    return [bench.measure(label, method) for label, method in methods]

"""One record per experiment: what its method costs, computed and measured."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from visiontokens.compress.base import MethodSpec
from visiontokens.config import Config, load_experiments
from visiontokens.data.precision import use_bf16
from visiontokens.evaluate.methods import tested_method
from visiontokens.measure.flops import LlamaShape, decode_flops, kv_bytes, prefill_flops
from visiontokens.measure.geometry import fill
from visiontokens.measure.latency import measure_latency
from visiontokens.measure.memory import METHODS, parameter_bytes, parameter_count, peak_bytes
from visiontokens.measure.tokens import compression_ratio, mean_tokens, total_tokens
from visiontokens.models.build import llava_config
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.provenance import stamp, write_json

log = logging.getLogger(__name__)


def cost_record(
    model: LlavaWithCompressor, *, text_tokens: int, bytes_per_value: int = 2, frames: int = 1
) -> dict[str, Any]:
    """Return the computed cost of one image, or video, and `text_tokens` tokens around it, batch 1.

    FLOPs are two per multiply-accumulate; `prefill_flops` = decoder with dense attention + output head for the last
    position + `extra_flops` (projector and compressor). The vision tower is the same for all methods and left out.
    Decoding (`decode_flops`, one generated token) and the cache (`kv_bytes`; `kv_bytes_image` is the image's share) are
    counted with the vision tokens that the prefill leaves in the cache.
    """
    compressor, shape = model.compressor, _shape(model)
    n_vision = compressor.geometry.n_vision
    alive = compressor.tokens_per_layer(n_vision, shape.layers)
    per_layer = [float(n) for n in compressor.video_tokens_per_layer(frames, n_vision, shape.layers)]
    grown = [n / one for n, one in zip(per_layer, alive, strict=True)]
    queries = [n * g for n, g in zip(compressor.queries_per_layer(n_vision, shape.layers), grown, strict=True)]
    cached = [n * g for n, g in zip(compressor.kv_per_layer(n_vision, shape.layers), grown, strict=True)]
    extra = float(compressor.video_extra_flops(frames, n_vision, text_tokens))
    n_vision *= frames
    cache = kv_bytes(shape, cached, text_tokens, bytes_per_value=bytes_per_value)
    image_cache = kv_bytes(shape, cached, 0, bytes_per_value=bytes_per_value)
    return {
        "vision_tokens": n_vision,
        "layers": shape.layers,
        "text_tokens": text_tokens,
        "tokens_per_layer": per_layer,
        "queries_per_layer": queries,
        "kv_tokens_per_layer": cached,
        "kv_tokens_mean": mean_tokens(cached),
        "tokens_total": total_tokens(per_layer),
        "tokens_mean": mean_tokens(per_layer),
        "compression_ratio": compression_ratio(per_layer, n_vision),
        "prefill_flops": prefill_flops(shape, per_layer, text_tokens, queries=queries) + extra,
        "prefill_flops_without_scores": extra
        + prefill_flops(shape, per_layer, text_tokens, queries=queries, attention=False),
        "extra_flops": extra,
        "decode_flops": decode_flops(shape, cached, text_tokens),
        "kv_bytes": sum(cache),
        "kv_bytes_image": sum(image_cache),
        "kv_bytes_per_layer": cache,
        "kv_bytes_per_value": bytes_per_value,
        "parameters": parameter_count(model),
        "parameters_llm": parameter_count(nn.ModuleList([model.model.language_model, model.lm_head])),
        "parameters_compressor": parameter_count(compressor),
        "parameters_connector": parameter_count(compressor) + parameter_count(model.model.multi_modal_projector),
        "weight_bytes": parameter_bytes(model),
    }


def _shape(model: LlavaWithCompressor) -> LlamaShape:
    text: Any = model.config.text_config
    return LlamaShape.of(text)


def timed_prompt(model: LlavaWithCompressor, text_tokens: int, seed: int = 0, frames: int = 1) -> dict[str, Any]:
    """Return inputs of `model.prefill` for one image, or video, and `text_tokens` other tokens; the content is random.

    A fifth of the text stands before the image, as the system prompt does. Features replace pixels, so that the
    tower is not in the measurement.

    Raises:
        ValueError: fewer than two text tokens.
    """
    if text_tokens < 2:
        raise ValueError(f"text tokens: found {text_tokens}, expected at least 2")
    image, words = model.config.image_token_id, _shape(model).vocab
    device = next(model.parameters()).device
    draw = torch.Generator().manual_seed(seed)
    text = torch.randint(0, words - 1, (text_tokens,), generator=draw)
    text[text == image] = words - 1
    cut = max(1, text_tokens // 5)
    ids = torch.cat([text[:cut], torch.tensor([image]), text[cut:]])[None].to(device)
    shapes = model.compressor.state_shapes(1)
    levels = {level: torch.randn(1, frames, *shape[1:], generator=draw).to(device) for level, shape in shapes.items()}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "vision_levels": levels}


def prefill_step(model: LlavaWithCompressor, inputs: dict[str, Any], dtype: torch.dtype) -> Callable[[], Tensor]:
    """Return a call that runs one prefill, to the logits of the first answer token, under autocast to `dtype`."""
    device = inputs["input_ids"].device
    weights = next(model.parameters()).dtype

    def step() -> Tensor:
        """Run the prefill."""
        context = nullcontext() if dtype == weights else torch.autocast(device.type, dtype=dtype)
        with torch.inference_mode(), context:
            return model.prefill(**inputs).logits

    return step


def measure_experiment(
    model: LlavaWithCompressor,
    *,
    text_tokens: int,
    repeats: int = 20,
    warmup: int = 3,
    dtype: torch.dtype = torch.float32,
    frames: int = 1,
) -> dict[str, Any]:
    """Return `cost_record` with the measured prefill time and peak memory, and where they were measured.

    `prefill_ms` is projector + compressor + decoder + head for one prompt, without the vision tower.
    """
    model.train(False)
    device = next(model.parameters()).device
    step = prefill_step(model, timed_prompt(model, text_tokens, frames=frames), dtype)
    timed = measure_latency(step, device, repeats=repeats, warmup=warmup)
    width = torch.finfo(dtype).bits // 8
    return cost_record(model, text_tokens=text_tokens, bytes_per_value=width, frames=frames) | {
        "prefill_ms": timed.median_ms,
        "prefill_q25_ms": timed.q25_ms,
        "prefill_q75_ms": timed.q75_ms,
        "prefill_runs": timed.runs,
        "peak_bytes": peak_bytes(step, device),
        "peak_method": METHODS[device.type],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else stamp()["processor"],
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "stamp": stamp(),
    }


def cost_model(config: Config, method: MethodSpec) -> LlavaWithCompressor:
    """Return a model of the configured sizes with random weights, on the GPU if there is one, else on the CPU.

    Cost does not depend on what weights hold, so none are read. A GPU that computes in bfloat16 holds them in it.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    half = device == "cuda" and use_bf16(config.evaluate.precision, device)
    backbones = config.backbones
    sizes = llava_config(backbones.tower, backbones.llm, method, backbones.llm_layers)
    with torch.device(device), no_init_weights():
        model: Any = LlavaWithCompressor._from_config(sizes, dtype=torch.bfloat16 if half else torch.float32)
    fill(model, config.seed)
    chosen: LlavaWithCompressor = model.eval()
    return chosen


def measure_all(config: Config, out_dir: Path) -> None:
    """Write `<out_dir>/<experiment>.json` for every experiment that runs under `config`."""
    torch.set_num_threads(config.threads)
    rows = load_experiments(config)
    settings = config.efficiency
    for number, (name, row) in enumerate(rows.items(), 1):
        model = cost_model(config, tested_method(config, name, row.method))
        dtype = torch.bfloat16 if use_bf16(config.evaluate.precision, str(model.device)) else torch.float32
        record = measure_experiment(
            model, text_tokens=settings.text_tokens, repeats=settings.repeats, warmup=settings.warmup, dtype=dtype,
            frames=settings.frames,
        )  # fmt: skip
        write_json(out_dir / f"{name}.json", {"experiment": name, "method": row.method} | record)
        log.info(
            "efficiency %d/%d %s: %.0f tokens per layer, %.2f GFLOPs, %.1f ms",
            number,
            len(rows),
            name,
            record["tokens_mean"],
            record["prefill_flops"] / 1e9,
            record["prefill_ms"],
        )

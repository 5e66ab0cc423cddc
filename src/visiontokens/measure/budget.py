"""What a job costs on a GPU, by formula: FLOPs over (peak x MFU), plus decoding by the clock and start-up.

A training step counts one forward pass, the backward pass through activations and, where weights train, the one
through weights (1 + 1 + 1 forward's worth); recomputed activations are in the MFU. Every sample is counted with an
image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path

from visiontokens.compress.base import Compressor, Geometry, MethodSpec
from visiontokens.compress.schedule import Schedule
from visiontokens.config import Config, Experiment, load_experiments, load_pooling
from visiontokens.data.registry import read_registry, records_of
from visiontokens.measure.flops import VICUNA_7B, LlamaShape, prefill_flops

VICUNA_13B = LlamaShape(hidden=5120, layers=40, heads=40, kv_heads=40, mlp=13824, vocab=32000)
"""The language model of LLaVolta's Table 6."""
TOWER = {"width": 1024, "layers": 24, "mlp": 4096, "grid": 24, "weights": 304_000_000}
"""CLIP ViT-L/14 at 336 pixels (weights rounded)."""
HOUR = 3600.0


@dataclass(frozen=True)
class Budget:
    """Costs of the jobs of one configuration."""

    config: Config

    @cached_property
    def shape(self) -> LlamaShape:
        """The language model's sizes; known by its folder's name, because nothing is downloaded yet."""
        return VICUNA_13B if "13b" in self.config.backbones.llm.name else VICUNA_7B

    @cached_property
    def rows(self) -> dict[str, Experiment]:
        """Experiments of this run."""
        return load_experiments(self.config)

    @cached_property
    def weights(self) -> int:
        """Parameters of tower and language model."""
        shape = self.shape
        layer = 2 * shape.hidden**2 + 2 * shape.hidden * shape.kv_width + 3 * shape.hidden * shape.mlp
        return shape.layers * layer + 2 * shape.vocab * shape.hidden + TOWER["weights"]

    def count(self, reader: str) -> int:
        """Return the samples of a stage or questions of a benchmark (0 = not known)."""
        return records_of(read_registry(self.config.downloads.registry), reader) or 0

    def hours(self, rule: str, experiment: str = "") -> float:
        """Return the GPU-hours of one job of a rule; 0 for rules that need no GPU."""
        plan = self.config.plan
        if plan.device is None:
            return 0.0
        per_hour = plan.tflops * 1e12 * plan.mfu * HOUR
        startup = plan.startup_minutes / 60
        if rule in ("align", "tune"):
            return self.training_flops(experiment, rule) / per_hour + startup
        if rule == "predict":
            names = self.config.evaluate.benchmarks
            return self._answering(self.rows[experiment].method, names, self.config.evaluate.limit) + startup
        if rule == "probe":
            names, points = self.config.redundancy.benchmarks, len(load_pooling(self.config)) + 1
            return points * (self._answering("none", names, self.config.redundancy.limit) + startup)
        return len(self.rows) * startup if rule == "measure" else 0.0

    def training_flops(self, experiment: str, stage: str) -> float:
        """Return the FLOPs of one stage of an experiment, without recomputed activations."""
        row, plan = self.rows[experiment], self.config.plan
        settings = self.config.train.align if stage == "align" else self.config.train.tune
        text = plan.align_text if stage == "align" else plan.tune_text
        samples = min(settings.samples or self.count(stage), self.count(stage))
        passes = 2 if stage == "align" else 3
        forward = self._forward(row.train_method, row.schedule if stage == "tune" else "", text)
        return samples * settings.epochs * (passes * forward + tower_flops())

    def _forward(self, method: str, schedule: str, text: int) -> float:
        """Return the FLOPs of one sample through projector, compressor and language model, mean over stages."""
        if not schedule:
            tokens, extra = per_layer(method, self.shape, self.config.experiments.table.parent)
            return prefill_flops(self.shape, tokens, text, head="all") + extra
        folder = self.config.experiments.table.parent
        stages = Schedule.model_validate(_yaml(folder / "schedules" / f"{schedule}.yaml"))
        edges = [0, *stages.ends(1000, self.config.train.tune.epochs)]
        total = 0.0
        for stage, (start, end) in zip(stages.stages, pairwise(edges), strict=True):
            spec = MethodSpec(name="vcc", params={"layer": str(stage.layer), "stride": stage.stride})
            if stage.stride == 1:
                spec = MethodSpec()
            tokens, extra = _tokens(spec, self.shape)
            total += (end - start) / 1000 * (prefill_flops(self.shape, tokens, text, head="all") + extra)
        return total

    def _answering(self, method: str, benchmarks: list[str], limit: int) -> float:
        """Return the GPU-hours to answer benchmarks with a method, one question at a time."""
        plan = self.config.plan
        tokens, extra = per_layer(method, self.shape, self.config.experiments.table.parent)
        flops = prefill_flops(self.shape, tokens, plan.question_text) + extra + tower_flops()
        seconds = flops / (plan.tflops * 1e12 * plan.mfu) + plan.answer_tokens * plan.decode_ms / 1000
        return sum(min(limit or self.count(name), self.count(name)) for name in benchmarks) * seconds / HOUR


def tower_flops() -> float:
    """Return the FLOPs of CLIP ViT-L/14-336 on one image (577 tokens; linear maps and attention products)."""
    tokens, width = TOWER["grid"] ** 2 + 1, TOWER["width"]
    linear = 2 * tokens * (4 * width**2 + 2 * width * TOWER["mlp"])
    return float(TOWER["layers"] * (linear + 4 * tokens**2 * width))


def per_layer(method: str, shape: LlamaShape, folder: Path) -> tuple[tuple[float, ...], float]:
    """Return the vision tokens per decoder layer and the extra FLOPs of `<folder>/methods/<method>.yaml`."""
    return _tokens(MethodSpec.from_yaml(folder / "methods" / f"{method}.yaml"), shape)


def _tokens(spec: MethodSpec, shape: LlamaShape) -> tuple[tuple[float, ...], float]:
    return _counted(spec.model_dump_json(), shape)


@cache
def _counted(spec: str, shape: LlamaShape) -> tuple[tuple[float, ...], float]:
    """Build a method without memory for its weights and ask it."""
    import torch

    grid = (TOWER["grid"], TOWER["grid"])
    geometry = Geometry(TOWER["width"], TOWER["layers"], grid, shape.hidden, shape.layers)
    with torch.device("meta"):
        method: Compressor = MethodSpec.model_validate_json(spec).build(geometry)
    tokens = tuple(float(n) for n in method.tokens_per_layer(geometry.n_vision, shape.layers))
    return tokens, float(method.extra_flops(geometry.n_vision))


def _yaml(path: Path) -> dict[str, object]:
    import yaml

    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    plain = raw if isinstance(raw, dict) else {"stages": raw}
    return {key: value for key, value in plain.items() if key != "pivots"}

"""What a job costs on a GPU, by formula: FLOPs over (peak x MFU), plus decoding by the clock and start-up.

A training step counts one forward pass, the backward pass through activations and, where weights train, the one
through weights (1 + 1 + 1 forward's worth); recomputed activations are in the MFU. Every sample is counted with an
image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path

from visiontokens.compress.base import Compressor, Geometry, MethodSpec
from visiontokens.compress.ratios import FIRST
from visiontokens.compress.schedule import Schedule
from visiontokens.config import Config, Experiment, load_experiments, load_pooling
from visiontokens.data.registry import read_registry, records_of
from visiontokens.measure.flops import VICUNA_7B, VICUNA_13B, LlamaShape, prefill_flops

TOWER = {"width": 1024, "layers": 24, "mlp": 4096, "grid": 24, "weights": 303_507_456}
"""CLIP ViT-L/14 at 336 pixels."""
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

    def weights(self, experiment: str) -> int:
        """Return the parameters of an experiment's model: tower, language model, projector and compressor."""
        shape, cost = self.shape, self._cost(self.rows[experiment].train_method)
        layer = shape.layer_flops // 2 + 2 * shape.hidden
        llm = shape.layers * layer + 2 * shape.vocab * shape.hidden + shape.hidden
        return llm + TOWER["weights"] + cost.weights

    def _cost(self, method: str) -> MethodCost:
        path = self.config.experiments.table.parent / "methods" / f"{method}.yaml"
        return method_cost(MethodSpec.from_yaml(path), self.shape)

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
        if rule == "search":
            return self._searching() + startup
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
            cost = self._cost(method)
            return prefill_flops(self.shape, cost.tokens, text, queries=cost.queries, head="all") + cost.flops
        folder = self.config.experiments.table.parent
        stages = Schedule.model_validate(_yaml(folder / "schedules" / f"{schedule}.yaml"))
        edges = [0, *stages.ends(1000, self.config.train.tune.epochs)]
        total = 0.0
        for stage, (start, end) in zip(stages.stages, pairwise(edges), strict=True):
            spec = MethodSpec(name="vcc", params={"layer": str(stage.layer), "stride": stage.stride})
            if stage.stride == 1:
                spec = MethodSpec()
            cost = method_cost(spec, self.shape)
            total += (end - start) / 1000 * (prefill_flops(self.shape, cost.tokens, text, head="all") + cost.flops)
        return total

    def _answering(self, method: str, benchmarks: list[str], limit: int) -> float:
        """Return the GPU-hours to answer benchmarks with a method, one question at a time."""
        plan = self.config.plan
        cost = self._cost(method)
        decoder = prefill_flops(self.shape, cost.tokens, plan.question_text, queries=cost.queries)
        flops = decoder + cost.flops + tower_flops()
        seconds = flops / (plan.tflops * 1e12 * plan.mfu) + plan.answer_tokens * plan.decode_ms / 1000
        return sum(min(limit or self.count(name), self.count(name)) for name in benchmarks) * seconds / HOUR

    def _searching(self) -> float:
        """Return the GPU-hours of one search, at most: every schedule with all tokens, questions in batches."""
        settings, plan = self.config.search, self.config.plan
        greedy = (self.shape.layers - FIRST) * math.ceil(math.log2(settings.grid)) + 1
        schedules = max(settings.trials, greedy)
        flops = schedules * prefill_flops(self.shape, self._cost("none").tokens, plan.question_text) + tower_flops()
        return settings.questions * flops / (plan.tflops * 1e12 * plan.mfu * HOUR)


def tower_flops() -> float:
    """Return the FLOPs of CLIP ViT-L/14-336 on one image (577 tokens; linear maps and attention products)."""
    tokens, width = TOWER["grid"] ** 2 + 1, TOWER["width"]
    linear = 2 * tokens * (4 * width**2 + 2 * width * TOWER["mlp"])
    return float(TOWER["layers"] * (linear + 4 * tokens**2 * width))


@dataclass(frozen=True)
class MethodCost:
    """What a method costs at one geometry: vision tokens (and queries among them) per decoder layer, other FLOPs,
    connector's parameters.
    """

    tokens: tuple[float, ...]
    queries: tuple[float, ...]
    flops: float
    weights: int


def method_cost(spec: MethodSpec, shape: LlamaShape) -> MethodCost:
    """Return what a method costs behind CLIP ViT-L/14-336; it is built without memory for its weights."""
    return _built(spec.model_dump_json(), shape)


@cache
def _built(spec: str, shape: LlamaShape) -> MethodCost:
    import torch

    grid = (TOWER["grid"], TOWER["grid"])
    geometry = Geometry(
        TOWER["width"], TOWER["layers"], grid, shape.hidden, shape.layers, llm_mlp=shape.mlp,
        llm_kv_width=shape.kv_width,
    )  # fmt: skip
    with torch.device("meta"):
        method: Compressor = MethodSpec.model_validate_json(spec).build(geometry)
    width, hidden, out = method.projector_sizes()
    projector = width * hidden + hidden + hidden * out + out
    return MethodCost(
        tokens=tuple(float(n) for n in method.tokens_per_layer(geometry.n_vision, shape.layers)),
        queries=tuple(float(n) for n in method.queries_per_layer(geometry.n_vision, shape.layers)),
        flops=float(method.extra_flops(geometry.n_vision)),
        weights=projector + sum(p.numel() for p in method.parameters()),
    )


def _yaml(path: Path) -> dict[str, object]:
    import yaml

    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    plain = raw if isinstance(raw, dict) else {"stages": raw}
    return {key: value for key, value in plain.items() if key != "pivots"}

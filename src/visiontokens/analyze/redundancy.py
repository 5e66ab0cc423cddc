"""How redundant are vision tokens? LLaVolta Fig. 1, and the premise of LLaVA-STF, on a model that was not retrained.

Four tables: `curve.csv` (score against the tokens kept when layer K's input is pooled with stride S at test time),
`attention.csv` (what the answer token attends to in every layer), `similarity.csv` (how alike neighbouring features of
the vision tower are) and `probe.csv` (what a linear probe reads from each of its levels).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPVisionConfig

from visiontokens.analyze.stats import compare
from visiontokens.compress.base import Compressor, Decoder, MethodSpec, Probe, Seq
from visiontokens.config import Config, PoolingPoint, load_pooling
from visiontokens.data.benchmarks import BENCHMARKS, subset
from visiontokens.data.features import FeatureStore, image_paths, tower_levels
from visiontokens.evaluate.greedy import encode_question
from visiontokens.evaluate.images import tower_source
from visiontokens.evaluate.predict import place_model, predict_benchmark
from visiontokens.evaluate.predictor import Predictor
from visiontokens.evaluate.score import Record, score_benchmark, score_json
from visiontokens.provenance import atomic_write

log = logging.getLogger(__name__)

OFFSETS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (0, 4), (4, 0), (0, 8), (8, 0))
"""Grid offsets (rows, columns) at which features are compared; the first three lie inside STF's 2x2 window."""


@dataclass(frozen=True)
class Point:
    """One setting of the curve; stride 1 is no compression."""

    layer: int
    stride: int

    @property
    def method(self) -> MethodSpec:
        """The test-time compressor of this point."""
        if self.stride == 1:
            return MethodSpec()
        return MethodSpec(name="vcc", params={"layer": f"{self.layer}/32", "stride": self.stride})


def run_redundancy(config: Config, model_dir: Path, out_dir: Path) -> None:
    """Compute the four tables on the un-retrained model in `model_dir`."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    _write(out_dir / "probe.csv", probe(config))
    _write(out_dir / "similarity.csv", similarity(config, model_dir))
    _write(out_dir / "attention.csv", attention(config, model_dir))
    _write(out_dir / "curve.csv", curve(config, model_dir))


def _write(path: Path, frame: pd.DataFrame) -> None:
    with atomic_write(path) as handle:
        frame.to_csv(handle, index=False)


def curve(config: Config, model_dir: Path) -> pd.DataFrame:
    """Return the score of every pooling point on every benchmark (LLaVolta Fig. 1, left).

    Columns: layer (of 32), stride, kept (vision tokens over all layers, as a share of all), tokens (mean over
    layers), benchmark, metric, value, ci_low, ci_high, n, difference (to all tokens, on the same questions) and its
    standard error difference_se.
    """
    grid: Sequence[PoolingPoint] = load_pooling(config)
    points = [Point(0, 1), *(Point(point.layer, point.stride) for point in grid)]
    rows = []
    full: dict[str, list[Record]] = {}
    for number, point in enumerate(points, 1):
        log.info("redundancy %d/%d: layer %d of 32, stride %d", number, len(points), point.layer, point.stride)
        rows += list(_score_point(config, model_dir, point, full))
    return pd.DataFrame(rows)


def _score_point(
    config: Config, model_dir: Path, point: Point, full: dict[str, list[Record]]
) -> Iterator[dict[str, Any]]:
    """Yield a line per benchmark; `full` holds the records of the first point, which has all tokens."""
    model = place_model(config, model_dir, point.method)
    predictor = Predictor.of(config, model)
    layers = model.geometry.llm_layers
    patches = model.geometry.n_vision
    alive = model.compressor.tokens_per_layer(patches, layers)
    with TemporaryDirectory() as folder:
        for name in config.redundancy.benchmarks:
            answers = Path(folder) / f"{name}.jsonl"
            label = f"redundancy-{point.layer}-{point.stride}"
            predict_benchmark(predictor, name, answers, {"point": label}, limit=config.redundancy.limit, model_id=label)
            found = score_benchmark(name, answers, predictor.benchmarks_dir, limit=config.redundancy.limit)
            score = score_json(found, resamples=config.evaluate.bootstrap, level=config.evaluate.confidence)
            base = full.setdefault(name, found.per_question)
            paired = compare([found.per_question], [base], found.statistic, resamples=1000, test=False).difference
            yield {
                "layer": point.layer,
                "stride": point.stride,
                "kept": sum(alive) / (layers * patches),
                "tokens": sum(alive) / layers,
                "benchmark": name,
                **{key: score[key] for key in ("metric", "value", "ci_low", "ci_high", "n")},
                "difference": paired.value,
                "difference_se": paired.se,
            }


class _Recorder(Compressor[Any]):
    """Compresses nothing and records the attention row of each sample's last token in every layer."""

    def begin(self, seq: Seq, lm: Decoder) -> Seq:
        """Ask all layers for the row."""
        self.targets = {"vision": seq.vis, "system": (~seq.vis) & (seq.src < seq.vis.int().argmax(1, keepdim=True))}
        self.targets["text"] = seq.valid & ~seq.vis & ~self.targets["system"]
        self.probes: list[Probe] = [self.watch(lm, index, seq) for index in range(len(lm.layers))]
        return seq


def attention(config: Config, model_dir: Path) -> pd.DataFrame:
    """Return the mean attention per token from the answer position, by layer and target (LLaVolta Fig. 1, right).

    Columns: layer (from 0), target (vision, system, text), attention (mean per token, over heads and images), n.
    """
    model = place_model(config, model_dir, MethodSpec())
    predictor = Predictor.of(config, model)
    recorder = _Recorder(Compressor.Params(), model.geometry)
    model.compressor = recorder
    benchmark = BENCHMARKS["gqa"]
    examples = subset(benchmark.read(predictor.benchmarks_dir), config.redundancy.attention_images)
    sums: dict[tuple[int, str], list[float]] = {}
    image_id = model.config.image_token_id
    for example in examples:
        prompt = encode_question(example.prompt, predictor.encoder, image_id, image=True)
        levels = predictor.features.get([predictor.feature_path(benchmark, example)])
        levels = {level: values.to(model.device) for level, values in levels.items()}
        ids = torch.tensor([prompt.prefix + prompt.rest], device=model.device)
        model.prefill(ids, vision_levels=levels)
        for layer, probe in enumerate(recorder.probes):
            assert probe.weights is not None
            for target, mask in recorder.targets.items():
                sums.setdefault((layer, target), []).append(float(probe.weights[mask].mean()))
    rows = [
        {"layer": layer, "target": target, "attention": sum(values) / len(values), "n": len(values)}
        for (layer, target), values in sums.items()
    ]
    return pd.DataFrame(rows)


def probe(config: Config) -> pd.DataFrame:
    """Return the linear probes that the tower was shipped with, in tidy form.

    Columns: level (hidden-state index), target (colour, shape, size, texture, digits by size), accuracy (0..1), n. A
    tower without `probe.csv`, such as CLIP's, gives no rows.
    """
    path = config.backbones.tower / "probe.csv"
    columns = {"layer": "level", "attribute": "target"}
    if not path.is_file():
        return pd.DataFrame(columns=["level", "target", "accuracy", "n"])
    return pd.read_csv(path).rename(columns=columns)


def similarity(config: Config, model_dir: Path) -> pd.DataFrame:
    """Return cosine similarities between a tower feature and its neighbours, by level and grid offset.

    Columns: level (hidden-state index), offset ("rows,columns", or "random" for pairs from the whole image), distance
    (patches), mean, std (over pairs), n (images).
    """
    features = _tower_features(config, model_dir)
    rows = []
    for level, values in features.items():
        side = round(values.shape[1] ** 0.5)
        unit = normalize(values.float(), dim=-1).reshape(len(values), side, side, -1)
        for dy, dx in OFFSETS:
            if max(dy, dx) < side:
                pairs = (unit[:, : side - dy, : side - dx] * unit[:, dy:, dx:]).sum(-1)
                rows.append(_moments(level, f"{dy},{dx}", (dy**2 + dx**2) ** 0.5, pairs))
        flat = unit.flatten(1, 2)
        order = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(config.seed))
        rows.append(_moments(level, "random", float("nan"), (flat * flat[:, order]).sum(-1)))
    return pd.DataFrame(rows)


def _tower_features(config: Config, model_dir: Path) -> dict[int, Tensor]:
    """Return features `[F, N, C]` of validation images, or where there are none of benchmark images, by level."""
    count = config.redundancy.similarity_images
    if config.world is not None:
        tower: Any = CLIPVisionConfig.from_pretrained(config.backbones.tower)
        wanted = tower_levels(config.features.levels, tower.num_hidden_layers)
        store = FeatureStore.open(config.data_dir / "features" / "validation", wanted)
        return store.get(image_paths(config.data_dir, "validation")[:count])
    source = tower_source(config, place_model(config, model_dir, MethodSpec()))
    wanted = tower_levels(config.features.levels, source.model.geometry.vision_layers)
    benchmark = BENCHMARKS[config.redundancy.benchmarks[0]]
    root = config.data_dir / "benchmarks"
    found = [path for example in benchmark.read(root) if (path := benchmark.image_path(root, example))]
    paths = [path.relative_to(config.data_dir).as_posix() for path in dict.fromkeys(found)][:count]
    parts = [source.states([path], wanted) for path in paths]
    return {level: torch.cat([part[level].half().cpu() for part in parts]) for level in wanted}


def _moments(level: int, offset: str, distance: float, pairs: Tensor) -> dict[str, Any]:
    return {
        "level": level,
        "offset": offset,
        "distance": distance,
        "mean": float(pairs.mean()),
        "std": float(pairs.std()),
        "n": len(pairs),
    }

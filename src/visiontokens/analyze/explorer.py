"""What the token explorer shows: a few test images with questions, and every row's trace of each."""

from __future__ import annotations

import base64
import csv
import io
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visiontokens.analyze.trace import LayerTrace, Trace, traced
from visiontokens.config import Config, load_experiments, weights_root
from visiontokens.data.benchmarks import Benchmark, Example, find_benchmark, subset
from visiontokens.data.conversation import encode_with_images, question_prompt
from visiontokens.data.images import load_image, pad_to_square
from visiontokens.data.miniworld.contact_sheet import gold
from visiontokens.data.precision import autocast, use_bf16
from visiontokens.evaluate.predict import experiment_model
from visiontokens.evaluate.predictions import read_predictions
from visiontokens.evaluate.predictor import Predictor
from visiontokens.models.kernels import choose_kernel, use_kernel
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.models.processors import image_settings
from visiontokens.provenance import write_json

log = logging.getLogger(__name__)

SEED = 0
"""Rows are shown with the weights and answers of their first seed."""
GREY = (0.5, 0.5, 0.5)
SIDE = 336
"""Larger images are shrunk to this side, in pixels."""


@dataclass(frozen=True)
class Picture:
    """An image of a benchmark with some of its questions; `id` is unique in the explorer."""

    id: str
    benchmark: Benchmark
    examples: tuple[Example, ...]


def pictures(config: Config) -> list[Picture]:
    """Return the images that are shown, of every benchmark about images in turn, and their first questions."""
    names = [name for name in config.evaluate.benchmarks if not find_benchmark(name).video]
    wanted, shown = config.report.explorer_images, config.report.explorer_questions
    found: list[Picture] = []
    groups = {name: _by_image(config, find_benchmark(name), shown) for name in names}
    for round_ in range(wanted):
        for name in names:
            if len(found) < wanted and round_ < len(groups[name]):
                picture = Picture(f"{name}-{round_ + 1}", find_benchmark(name), groups[name][round_])
                found.append(picture)
    return found


def _by_image(config: Config, benchmark: Benchmark, shown: int) -> list[tuple[Example, ...]]:
    """Return the first questions of every image, images with enough of them first, no prompt twice."""
    groups: dict[str, dict[str, Example]] = {}
    for example in subset(benchmark.read(config.data_dir / "benchmarks"), config.evaluate.limit):
        if example.image is not None:
            groups.setdefault(example.image, {}).setdefault(example.prompt, example)
    return sorted((tuple(group.values())[:shown] for group in groups.values()), key=lambda group: -len(group))


def explore(config: Config, out: Path) -> None:
    """Write `<out>/questions.json` and, for every row of the experiment table that runs, `<out>/<row>.json`.

    Raises:
        FileNotFoundError: weights, predictions, features or benchmark files are missing.
    """
    chosen = pictures(config)
    write_json(out / "questions.json", {"images": [_shown(config, picture) for picture in chosen]})
    rows = load_experiments(config)
    for name in rows:
        root = weights_root(rows, name)
        trained = config.results_dir / "models" / root / f"seed{SEED}" / "tune"
        model = experiment_model(config, name, SEED, config.experiments.released.get(root, trained))
        write_json(out / f"{name}.json", row_record(config, name, model, chosen))
        log.info("explore: %s", name)


def _shown(config: Config, picture: Picture) -> dict[str, Any]:
    """Return an image as it is shown, square as the model sees it, and its questions with the gold answers."""
    path = picture.benchmark.image_path(config.data_dir / "benchmarks", picture.examples[0])
    assert path is not None
    mean = (image_settings([config.backbones.tower]) or {}).get("image_mean", GREY)
    image = pad_to_square(load_image(path), mean)
    if image.width > SIDE:
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return {
        "id": picture.id,
        "benchmark": picture.benchmark.name,
        "file": path.relative_to(config.data_dir).as_posix(),
        "png": base64.b64encode(buffer.getvalue()).decode(),
        "questions": [
            {"id": example.question_id, "prompt": example.prompt, "gold": gold(example.meta)}
            for example in picture.examples
        ],
    }


def row_record(config: Config, name: str, model: LlavaWithCompressor, chosen: list[Picture]) -> dict[str, Any]:
    """Return all traces of one row with its answers, as they were predicted and scored."""
    dtype = torch.bfloat16 if use_bf16(config.evaluate.precision, str(model.device)) else torch.float32
    use_kernel(model, choose_kernel(config.evaluate.attention, model.device, dtype, type(model.compressor)))
    predictor = Predictor.of(config, model)
    maps: dict[tuple[int, ...], int] = {}
    items: dict[str, Any] = {}
    for picture in chosen:
        answers = _answers(config, name, picture.benchmark.name)
        levels = predictor.features.get([predictor.feature_path(picture.benchmark, picture.examples[0])])
        for example in picture.examples:
            trace = _trace(predictor, example, {level: value.clone() for level, value in levels.items()})
            text, correct = answers.get(example.question_id, ("", None))
            items[f"{picture.id}/{example.question_id}"] = {
                "answer": text,
                "correct": correct,
                "entered": trace.entered,
                "layers": [layer_record(layer, maps) for layer in trace.layers],
            }
    compressor = model.compressor
    return {
        "experiment": name,
        "method": model.method.name,
        "grid": list(model.geometry.grid),
        "stochastic": type(compressor).stochastic,
        "query_aware": type(compressor).looks_at_question(),
        "maps": [list(owner) for owner in maps],
        "items": items,
    }


def layer_record(layer: LayerTrace, maps: dict[tuple[int, ...], int]) -> dict[str, Any]:
    """Return one layer as plain values; places go into `maps`, once each.

    `attention` holds bytes in base64: every token's weight as a share of the largest, which is `peak`; `total` is the
    share of all attention that the image gets.
    """
    record: dict[str, Any] = {"tokens": layer.tokens, "map": None}
    if layer.owner is not None:
        record["map"] = maps.setdefault(tuple(layer.owner.tolist()), len(maps))
    if layer.attention is not None and layer.attention.numel():
        weights = layer.attention.double().cpu().numpy()
        peak = float(weights.max())
        scaled = np.round(255 * weights / peak if peak > 0 else weights).astype(np.uint8)
        record["attention"] = base64.b64encode(scaled.tobytes()).decode()
        record |= {"peak": float(f"{peak:.4g}"), "total": round(float(weights.sum()), 4)}
    return record


def _trace(predictor: Predictor, example: Example, levels: Mapping[int, Tensor]) -> Trace:
    """Read one whole prompt with its image, as the methods that look at the question do."""
    model = predictor.model
    ids = encode_with_images(
        question_prompt(example.prompt, image=True), predictor.encoder, model.config.image_token_id
    )
    row = torch.tensor([list(ids.ids)], device=model.device)
    given = {level: value.to(model.device) for level, value in levels.items()}
    with torch.no_grad(), autocast(predictor.responder.precision, str(model.device)), traced(model.compressor) as trace:
        model.prefill(row, vision_levels=given)
    return trace


def _answers(config: Config, name: str, benchmark: str) -> dict[str, tuple[str, float | None]]:
    """Return a row's answers by question id, with the share of the mark that each got where the scorer says so."""
    run = Path(name) / f"seed{SEED}"
    texts = read_predictions(config.results_dir / "predictions" / run / f"{benchmark}.jsonl")
    marks = dict(_marks(config.results_dir / "scores" / run / f"{benchmark}.questions.csv"))
    return {key: (text, marks.get(key)) for key, text in texts.items()}


def _marks(path: Path) -> Iterator[tuple[str, float]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as handle:
        for line in csv.DictReader(handle):
            if line.get("correct"):
                yield line["question_id"], float(line["correct"])

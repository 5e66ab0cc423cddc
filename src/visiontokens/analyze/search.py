"""Searching the per-layer schedule that a method file asks for (G-Search, P-Sigmoid); a killed search continues."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from visiontokens.analyze.calibration import Calibration, Likelihood, Question, calibration_questions
from visiontokens.analyze.schedules import greedy_schedule, sigmoid_schedule
from visiontokens.compress.base import MethodSpec
from visiontokens.compress.ratios import tokens_kept
from visiontokens.config import Config, load_experiments
from visiontokens.data.encoders import FastEncoder
from visiontokens.data.precision import use_bf16
from visiontokens.evaluate.images import level_source
from visiontokens.evaluate.methods import method_path
from visiontokens.evaluate.predict import place_model
from visiontokens.measure.flops import LlamaShape, prefill_flops
from visiontokens.models.build import weights_hash
from visiontokens.models.kernels import choose_kernel, use_kernel
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.models.processors import load_tokenizer
from visiontokens.provenance import read_text, sha256_json, stamp, write_json

log = logging.getLogger(__name__)


class Trials:
    """Scores of schedules, each computed once and written down at once.

    Args:
        model: the model whose method is replaced.
        method: whose ratios vary.
        calibration: answers the questions.
        path: file that the scores are appended to; those of a killed search are taken from it.
        fingerprint: stands for all that scores depend on; the file of another one is begun anew.
    """

    def __init__(
        self,
        model: LlavaWithCompressor,
        method: MethodSpec,
        calibration: Calibration,
        path: Path,
        fingerprint: str,
    ) -> None:
        self.model, self.calibration, self.path = model, calibration, path
        self.name, self.params = method.name, {k: v for k, v in method.params.items() if k != "ratios"}
        self.done: dict[tuple[int, ...], Likelihood] = {}
        self.asked: list[tuple[int, ...]] = []
        head, *rows = _lines(path) or [{}]
        if head.get("fingerprint") == fingerprint:
            self.done = {tuple(row.pop("tokens")): Likelihood(**row) for row in rows}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as handle:  # also without the line that a kill left half written
            for row in ({"fingerprint": fingerprint}, *map(self._row, self.done)):
                handle.write(json.dumps(row) + "\n")

    def __call__(self, ratios: Sequence[float]) -> float:
        """Return the mean log-likelihood of the gold answers with these ratios."""
        return self.likelihood(ratios).log_likelihood

    def likelihood(self, ratios: Sequence[float]) -> Likelihood:
        """Return both measures with these ratios."""
        geometry = self.model.geometry
        key = self._key(ratios)
        if key not in self.done:
            spec = MethodSpec(name=self.name, params={**self.params, "ratios": list(ratios)})
            self.model.compressor = spec.build(geometry).eval()
            self.done[key] = self.calibration()
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(self._row(key)) + "\n")
        if key not in self.asked:
            self.asked.append(key)
            found = self.done[key]
            log.info(
                "search, schedule %d: %.1f tokens per layer, log-likelihood %.4f, exact match %.1f %%",
                len(self.asked), sum(key) / len(key), found.log_likelihood, 100 * found.exact_match,
            )  # fmt: skip
        return self.done[key]

    def _key(self, ratios: Sequence[float]) -> tuple[int, ...]:
        return tuple(tokens_kept(ratio, self.model.geometry.n_vision) for ratio in ratios)

    def _row(self, key: tuple[int, ...]) -> dict[str, Any]:
        return {"tokens": list(key), **asdict(self.done[key])}

    def row(self, ratios: Sequence[float]) -> dict[str, Any]:
        """Return tokens per layer and both measures of a schedule."""
        self.likelihood(ratios)
        return self._row(self._key(ratios))

    def rows(self) -> list[dict[str, Any]]:
        """Return the schedules of this search in the order it asked for them: tokens per layer, and both measures."""
        return [self._row(key) for key in self.asked]


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file of JSON objects; none if it is not there."""
    if not path.is_file():
        return []
    text = read_text(path)
    try:
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    except json.JSONDecodeError as err:
        raise ValueError(f"{path}: a line is not JSON ({err.msg}); remove the file to search anew") from err


def search(config: Config, experiment: str, model_dir: Path, run_dir: Path, out: Path) -> None:
    """Search the ratios of an experiment's method on the weights in `model_dir` and write them to `out`.

    `out` holds `params` (what completes the method file), `goal`, every schedule that was scored, the calibration
    questions' ids and the hash of weights and questions.

    Raises:
        ValueError: the experiment does not run under `config`, or its method asks for no search.
        FileNotFoundError: weights, records or features are missing.
    """
    rows = load_experiments(config)
    if experiment not in rows:
        raise ValueError(f"{config.experiments.table}: no experiment {experiment!r} here; known: {', '.join(rows)}")
    described = method_path(config, rows[experiment].method)
    method = MethodSpec.from_yaml(described)
    if method.search is None:
        raise ValueError(f"{described}: found no key 'search', expected what to search for")
    torch.set_num_threads(config.threads)
    start = MethodSpec(name=method.name, params={**method.params, "ratios": [1.0]})
    model = place_model(config, model_dir, start)
    dtype = torch.bfloat16 if use_bf16(config.evaluate.precision, str(model.device)) else torch.float32
    kernel = use_kernel(model, choose_kernel(config.evaluate.attention, model.device, dtype, type(model.compressor)))
    encoder = FastEncoder(load_tokenizer([Path(str(model.name_or_path)), config.backbones.llm]))
    questions = calibration_questions(config, encoder, model.config.image_token_id)
    calibration = Calibration(
        model, questions, level_source(config, model, config.train.tune.image_set), pad_id=encoder.pad_id,
        batch_size=config.evaluate.batch_size, precision=config.evaluate.precision,
    )  # fmt: skip
    identity = {
        "weights": weights_hash(model_dir),
        "calibration": _described(questions),
        "attention": kernel.name,
        "precision": str(dtype).removeprefix("torch."),
        "batch_size": config.evaluate.batch_size,
    }
    scored = {**identity, "method": start.to_config()}
    trials = Trials(model, method, calibration, run_dir / "trials.jsonl", sha256_json(scored))
    ratios = _search(config, method, model, trials)
    result = {
        "experiment": experiment,
        "goal": method.search.model_dump(exclude_none=True),
        "params": {"ratios": ratios},
        "chosen": trials.row(ratios),
        "all_tokens": trials.row([1.0] * len(ratios)),
        "trials": trials.rows(),
        **identity,
        "run": stamp(),
    }
    write_json(out, result)


def _described(questions: Sequence[Question]) -> dict[str, Any]:
    ids = [question.id for question in questions]
    return {"questions": len(ids), "ids": ids, "hash": sha256_json([asdict(question) for question in questions])}


def _search(config: Config, method: MethodSpec, model: LlavaWithCompressor, trials: Trials) -> list[float]:
    """Return the ratios that the method's goal leads to."""
    goal, settings = method.search, config.search
    assert goal is not None
    text: Any = model.config.text_config
    shape, n_vision = LlamaShape.of(text), model.geometry.n_vision
    if goal.epsilon is not None:
        full = trials([1.0] * shape.layers)
        grid = [step / settings.grid for step in range(settings.grid, 0, -1)]
        return greedy_schedule(trials, shape.layers, grid, full - goal.epsilon * abs(full))
    cost: Callable[[Sequence[float]], float] = sum
    if goal.tokens is not None:
        budget = shape.layers * goal.tokens / n_vision
    else:
        assert goal.flops is not None
        cost, budget = partial(_share, shape, n_vision, config.efficiency.text_tokens), goal.flops
    return sigmoid_schedule(trials, shape.layers, n_vision, cost, budget, trials=settings.trials, seed=config.seed)


def _share(shape: LlamaShape, n_vision: int, text: int, ratios: Sequence[float]) -> float:
    """Return a schedule's prefill FLOPs as a share of those with all tokens."""
    counts = [ratio * n_vision for ratio in ratios]
    return prefill_flops(shape, counts, text) / prefill_flops(shape, [n_vision] * shape.layers, text)

"""Metrics as pure functions of examples and answers, the official ones for images; no torch, no network."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks import Example, find_benchmark, subset
from visiontokens.evaluate.predictions import read_predictions
from visiontokens.evaluate.score.base import MEAN_CORRECT, Record, Score, Statistic
from visiontokens.evaluate.score.gqa import score_gqa
from visiontokens.evaluate.score.mmbench import CIRCULAR, score_mmbench
from visiontokens.evaluate.score.mme import PERCEPTION_SCORE, score_mme
from visiontokens.evaluate.score.mmmu import read_mmmu, score_mmmu
from visiontokens.evaluate.score.mvbench import MACRO, POLICIES, read_mvbench, score_mvbench
from visiontokens.evaluate.score.pope import MEAN_F1, score_pope
from visiontokens.evaluate.score.scienceqa import IMG_ACCURACY, score_scienceqa
from visiontokens.evaluate.score.seed import read_seed, score_seed
from visiontokens.evaluate.score.videoqa import score_activitynet, score_msvd
from visiontokens.evaluate.score.vqa import score_textvqa, score_vizwiz, score_vqav2
from visiontokens.provenance import atomic_write, read_json, write_json

__all__ = [
    "SCORERS",
    "Record",
    "Score",
    "Scorer",
    "Statistic",
    "read_score",
    "score_benchmark",
    "score_json",
    "write_score",
]


@dataclass(frozen=True)
class Scorer:
    """How a benchmark is scored.

    Attributes:
        score: from (examples, question id -> answer, policy keywords) to a Score.
        statistic: the headline metric as a function of per-question records.
        answers: from (file or folder, examples) to question id -> answer; by default LLaVA's answer lines. It knows
            the formats in which answers to this benchmark are released.
        policies: keyword options of `score` under the names "official" (what the published numbers were computed
            with) and "correct" (our own tables); both are empty where the official metric has no quirk.
    """

    score: Callable[..., Score]
    statistic: Statistic
    answers: Callable[[Path, Sequence[Example]], dict[str, str]] = read_predictions
    policies: dict[str, dict[str, Any]] = field(default_factory=lambda: {"official": {}, "correct": {}})


SCORERS: dict[str, Scorer] = {
    "vqav2": Scorer(score_vqav2, MEAN_CORRECT),
    "gqa": Scorer(score_gqa, MEAN_CORRECT),
    "vizwiz": Scorer(score_vizwiz, MEAN_CORRECT),
    "scienceqa": Scorer(score_scienceqa, IMG_ACCURACY),
    "textvqa": Scorer(score_textvqa, MEAN_CORRECT),
    "pope": Scorer(score_pope, MEAN_F1),
    "mme": Scorer(score_mme, PERCEPTION_SCORE),
    "mmbench": Scorer(score_mmbench, CIRCULAR),
    "mmbench_cn": Scorer(partial(score_mmbench, name="mmbench_cn"), CIRCULAR),
    "seed": Scorer(score_seed, MEAN_CORRECT, read_seed),
    "mmmu": Scorer(
        score_mmmu,
        MEAN_CORRECT,
        read_mmmu,
        {"official": {"unparsed": "random"}, "correct": {"unparsed": "wrong"}},
    ),
    "msvd_qa": Scorer(score_msvd, MEAN_CORRECT),
    "activitynet_qa": Scorer(score_activitynet, MEAN_CORRECT),
    "mvbench": Scorer(score_mvbench, MACRO, read_mvbench, POLICIES),
}
"""Scorers by the names of `visiontokens.data.benchmarks.BENCHMARKS`."""


def score_benchmark(
    name: str,
    predictions_path: Path,
    benchmarks_dir: Path,
    *,
    limit: int = 0,
    options: Mapping[str, Any] | None = None,
    **policy: object,
) -> Score:
    """Score one prediction file against a benchmark's official files.

    Args:
        name: benchmark.
        predictions_path: JSON lines in LLaVA's answer format.
        benchmarks_dir: folder that holds the benchmark's folder.
        limit: score the `subset` of about so many questions; 0 = all.
        options: the loader options that the predictions were made with (such as `ocr`).
        policy: keyword options of the scorer (such as `m4c`).

    Raises:
        BenchmarkError: the benchmark is unknown, or an official file is damaged.
        FileNotFoundError: predictions or official files are missing.
        PredictionError: answers and questions do not match.
    """
    examples = subset(find_benchmark(name).read(benchmarks_dir, **(options or {})), limit)
    return SCORERS[name].score(examples, read_predictions(Path(predictions_path), examples), **policy)


def score_json(score: Score, *, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> dict[str, Any]:
    """Return a score as a JSON object: value, clustered bootstrap interval, n, metric, policy and parts."""
    found = score.statistic.interval(score.per_question, resamples=resamples, level=level, seed=seed)
    return {
        "benchmark": score.benchmark,
        "metric": score.metric,
        "value": score.value,
        "ci_low": found.low,
        "ci_high": found.high,
        "se": found.se,
        "n": score.n,
        "bootstrap": {
            "method": "percentile over resampled groups",
            "groups": found.groups,
            "level": level,
            "resamples": resamples,
            "seed": seed,
        },
        "policy": score.policy,
        "parts": score.parts,
    }


def write_score(
    score: Score,
    path: Path,
    extra: Mapping[str, Any] | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> None:
    """Write `path` (JSON: score, interval, `extra`) and beside it `<stem>.questions.csv`, one row per question.

    Args:
        score: what to write.
        path: the JSON file.
        extra: further keys, such as experiment, seed and provenance.
        resamples: number of bootstrap resamples.
        level: coverage of the interval.
        seed: seed of the resampling.

    Raises:
        ValueError: `extra` would overwrite a key of the score.
    """
    content = score_json(score, resamples=resamples, level=level, seed=seed)
    clash = sorted(set(content) & set(extra or {}))
    if clash:
        raise ValueError(f"{path}: extra keys {', '.join(clash)} would overwrite the score's own")
    _write_questions(questions_path(path), score.per_question)
    write_json(path, content | dict(extra or {}))


def questions_path(path: Path) -> Path:
    """Return the per-question file that belongs to a score's JSON file."""
    return path.with_name(f"{path.stem}.questions.csv")


def _write_questions(path: Path, records: list[Record]) -> None:
    """Write per-question records as CSV, columns in the order of the first record."""
    with atomic_write(path) as handle:
        writer = csv.DictWriter(handle, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


_NUMERIC = ("correct", "pair", "pair_right", "base", "circular", "has_image")


def read_score(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """Read a score's JSON object and its per-question records, from which `SCORERS[...].statistic` recomputes it."""
    with questions_path(path).open(encoding="utf-8", newline="") as handle:
        records: list[Record] = [dict(row) for row in csv.DictReader(handle)]
    for record in records:
        record.update({key: float(record[key]) for key in _NUMERIC if key in record})
    return read_json(path), records

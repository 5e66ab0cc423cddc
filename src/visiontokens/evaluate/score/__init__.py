"""Metrics as pure functions of examples and answers, the official ones for images; no torch, no network."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks import Example, find_benchmark, subset
from visiontokens.evaluate.judge import Judge, StandIn
from visiontokens.evaluate.predictions import read_predictions
from visiontokens.evaluate.released import (
    GQA_UPLOAD,
    VIDEO_CHATGPT,
    VIDEO_LLAVA,
    VIZWIZ_UPLOAD,
    VQA_UPLOAD,
    answers_in,
    read_mmbench,
    read_scienceqa,
)
from visiontokens.evaluate.released_mme import read_mme, told_by_results
from visiontokens.evaluate.score import llava_bench, mmvet, videojudge
from visiontokens.evaluate.score.base import MEAN_CORRECT, Record, Score, Statistic
from visiontokens.evaluate.score.gqa import score_gqa
from visiontokens.evaluate.score.judged import Judged, Protocol, judge_answers, judge_offline
from visiontokens.evaluate.score.mmbench import CIRCULAR, score_mmbench
from visiontokens.evaluate.score.mme import PERCEPTION_SCORE, score_mme
from visiontokens.evaluate.score.mmmu import read_mmmu, score_mmmu
from visiontokens.evaluate.score.mvbench import MACRO, PROTOCOLS, read_mvbench, score_mvbench
from visiontokens.evaluate.score.pope import MEAN_F1, score_pope
from visiontokens.evaluate.score.scienceqa import IMG_ACCURACY, score_scienceqa
from visiontokens.evaluate.score.seed import read_seed, score_seed
from visiontokens.evaluate.score.videoqa import score_activitynet, score_exact
from visiontokens.evaluate.score.vqa import score_textvqa, score_vizwiz, score_vqav2
from visiontokens.provenance import atomic_write, read_json, write_json

__all__ = [
    "POLICIES",
    "SCORERS",
    "Record",
    "Score",
    "Scorer",
    "Statistic",
    "read_answers",
    "read_score",
    "score_answers",
    "score_benchmark",
    "score_json",
    "write_score",
]

POLICIES = ("official", "correct")
"""Names of the policies: what the published numbers were computed with, and what our own tables take."""


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
        judged: how a language model judges the answers, where one does.
        questions: from an answer file to the questions that it is about, for released files that hold the truth or
            verdicts themselves; none if the file does not.
    """

    score: Callable[..., Score]
    statistic: Statistic
    answers: Callable[[Path, Sequence[Example]], dict[str, str]] = read_predictions
    policies: dict[str, dict[str, Any]] = field(default_factory=lambda: {"official": {}, "correct": {}})
    judged: Protocol | None = None
    questions: Callable[[Path], list[Example]] | None = None


_EVEN = {"official": {"even": False}, "correct": {"even": True}}
_BY_WORD = {"official": {"by_word": False}, "correct": {"by_word": True}}
_GUESS = {"official": {"guess": True}, "correct": {"guess": False}}
_LITERAL = {"official": {"literal": True}, "correct": {"literal": False}}
_VIDEO = answers_in(VIDEO_LLAVA, VIDEO_CHATGPT, VQA_UPLOAD)
_EXACT = {name: partial(score_exact, name=name) for name in ("msvd_qa", "msrvtt_qa", "tgif_qa")}

SCORERS: dict[str, Scorer] = {
    "vqav2": Scorer(score_vqav2, MEAN_CORRECT, answers_in(VQA_UPLOAD), _EVEN),
    "gqa": Scorer(score_gqa, MEAN_CORRECT, answers_in(GQA_UPLOAD)),
    "vizwiz": Scorer(score_vizwiz, MEAN_CORRECT, answers_in(VIZWIZ_UPLOAD), _EVEN),
    "scienceqa": Scorer(score_scienceqa, IMG_ACCURACY, read_scienceqa),
    "textvqa": Scorer(score_textvqa, MEAN_CORRECT, answers_in(VQA_UPLOAD)),
    "pope": Scorer(score_pope, MEAN_F1, answers_in(), _BY_WORD),
    "mme": Scorer(score_mme, PERCEPTION_SCORE, read_mme, _BY_WORD, questions=told_by_results),
    "mmbench": Scorer(score_mmbench, CIRCULAR, read_mmbench, _GUESS),
    "mmbench_cn": Scorer(partial(score_mmbench, name="mmbench_cn"), CIRCULAR, read_mmbench, _GUESS),
    "mmvet": Scorer(
        partial(judge_offline, mmvet.PROTOCOL), mmvet.GRADE, mmvet.read_mmvet, mmvet.PROTOCOL.policies,
        judged=mmvet.PROTOCOL, questions=mmvet.graded_questions,
    ),
    "llava_bench": Scorer(
        partial(judge_offline, llava_bench.PROTOCOL), llava_bench.RELATIVE, answers_in(), llava_bench.PROTOCOL.policies,
        judged=llava_bench.PROTOCOL, questions=llava_bench.reviewed_questions,
    ),
    "seed": Scorer(score_seed, MEAN_CORRECT, read_seed),
    "mmmu": Scorer(
        score_mmmu, MEAN_CORRECT, read_mmmu, {"official": {"unparsed": "random"}, "correct": {"unparsed": "wrong"}}
    ),
    **{
        name: Scorer(exact, MEAN_CORRECT, _VIDEO, judged=videojudge.judged(name, exact))
        for name, exact in _EXACT.items()
    },
    "activitynet_qa": Scorer(
        score_activitynet, MEAN_CORRECT, _VIDEO, _LITERAL, videojudge.judged("activitynet_qa", score_activitynet)
    ),
    "mvbench": Scorer(score_mvbench, MACRO, read_mvbench, PROTOCOLS),
}  # fmt: skip
"""Scorers by the names of `visiontokens.data.benchmarks.BENCHMARKS`."""


def read_answers(
    name: str, path: Path, examples: Sequence[Example], judge: Judge | None = None, runs: int = 1
) -> tuple[dict[str, str], Judged | None]:
    """Read an answer file, or a released file of verdicts, and have judged what no rule compares.

    Args:
        name: benchmark.
        path: file or folder in a released format of the benchmark.
        examples: its questions.
        judge: who judges where a language model does; without one a stand-in judges what has no other metric.
        runs: times that every answer is judged.

    Returns:
        The answers (none where the file holds verdicts only) and the verdicts (None where answers are compared).

    Raises:
        FileNotFoundError: there is no such file.
        PredictionError: a record is malformed, or ids are missing, foreign or given twice.
        JudgeError: the judge cannot be asked.
    """
    scorer = SCORERS[name]
    if scorer.judged is None:
        return scorer.answers(path, examples), None
    released = scorer.judged.released(path, examples)
    if released is not None:
        return {}, released
    answers = scorer.answers(path, examples)
    if judge is None and not scorer.judged.always:
        return answers, None
    return answers, judge_answers(scorer.judged, judge or StandIn(), examples, answers, runs)


def score_answers(
    name: str,
    examples: Sequence[Example],
    answers: Mapping[str, str],
    *,
    policy: str = "correct",
    judged: Judged | None = None,
) -> Score:
    """Score answers under one policy; the score also says what the others give.

    Raises:
        ValueError: the benchmark has no such policy.
    """
    scorer = SCORERS[name]
    if judged is not None and scorer.judged is not None:
        options, compute = scorer.judged.policies, partial(scorer.judged.score, examples, answers, judged.replies)
    else:
        options, compute = scorer.policies, partial(scorer.score, examples, answers)
    if policy not in options:
        raise ValueError(f"policy of {name}: found {policy!r}, expected one of {', '.join(options)}")
    chosen = compute(**options[policy])
    found = {key: chosen if options[key] == options[policy] else compute(**options[key]) for key in options}
    against = found["official" if policy == "correct" else "correct"]
    return replace(
        chosen,
        policy_name=policy,
        policies={key: score.value for key, score in found.items()},
        other_parts={key: value for key, value in against.parts.items() if chosen.parts.get(key) != value},
        judge=judged.judge if judged else chosen.judge,
    )


def score_benchmark(
    name: str,
    predictions_path: Path,
    benchmarks_dir: Path,
    *,
    limit: int = 0,
    options: Mapping[str, Any] | None = None,
    policy: str = "correct",
    judge: Judge | None = None,
    runs: int = 1,
) -> Score:
    """Score one answer file against a benchmark's official files.

    Args:
        name: benchmark.
        predictions_path: answers in LLaVA's format, or in another one that they are released in.
        benchmarks_dir: folder that holds the benchmark's folder.
        limit: score the `subset` of about so many questions; 0 = all.
        options: the loader options that the predictions were made with (such as `ocr`).
        policy: "official", "correct", or another one that the benchmark has.
        judge, runs: see `read_answers`.

    Raises:
        BenchmarkError: the benchmark is unknown, or an official file is damaged.
        FileNotFoundError: predictions or official files are missing.
        PredictionError: answers and questions do not match.
        JudgeError: the judge cannot be asked.
    """
    examples = subset(find_benchmark(name).read(benchmarks_dir, **(options or {})), limit)
    answers, judged = read_answers(name, Path(predictions_path), examples, judge, runs)
    return score_answers(name, examples, answers, policy=policy, judged=judged)


def score_json(score: Score, *, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> dict[str, Any]:
    """Return a score as a JSON object: value, clustered bootstrap interval, n, metric, parts, policies and judge."""
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
        "policy": score.policy_name,
        "options": score.policy,
        "policies": score.policies,
        "parts": score.parts,
        "other_parts": score.other_parts,
        **({"judge": score.judge} if score.judge else {}),
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


_NUMERIC = (
    "correct", "pair", "pair_right", "base", "circular", "has_image", "counted", "points", "model_points",
    "reference_points",
)  # fmt: skip


def read_score(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """Read a score's JSON object and its per-question records, from which `SCORERS[...].statistic` recomputes it."""
    with questions_path(path).open(encoding="utf-8", newline="") as handle:
        records: list[Record] = [dict(row) for row in csv.DictReader(handle)]
    for record in records:
        record.update({key: float(record[key]) for key in _NUMERIC if key in record})
    return read_json(path), records

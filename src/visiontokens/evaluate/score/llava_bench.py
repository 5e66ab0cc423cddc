"""LLaVA-Bench: a judge gives reference and model 1 to 10 points; the score is the model's share of the reference's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visiontokens.data.benchmarks import BenchmarkError, Example
from visiontokens.data.benchmarks.llava_bench import CATEGORIES, RULE_PREFIX
from visiontokens.evaluate.judge import Ask
from visiontokens.evaluate.predictions import Answer, PredictionError, match_answers
from visiontokens.evaluate.released import read_content
from visiontokens.evaluate.score.base import Record, Score, Statistic, ratio, record_of
from visiontokens.evaluate.score.judged import Judged, Protocol, Replies, as_released, overlap

SYSTEM = "You check answers to questions about images, exactly and without bias."
RULE = """Two assistants have answered the question above about an image, which the context describes in words. Judge \
how helpful, relevant, accurate and detailed each answer is, and give each assistant 1 to 10 points, more for a better \
answer. The order of the two must not matter.
Write a first line with two numbers only, the points of Assistant 1 and of Assistant 2, with one space between them. \
Explain them in the lines below."""
"""Our wording of the official rule, which `rule.json` beside the questions replaces."""
FAILED = (-1.0, -1.0)
"""What the official script notes for a reply without two numbers, and then averages like points."""

RELATIVE = Statistic(terms=lambda record: (record["model_points"], record["reference_points"]), combine=ratio)
"""The model's points in percent of the reference's."""


def ask(example: Example, answer: str, run: int, attempt: int) -> Ask:
    """Return the request for one pair of points: temperature 0.2, up to 1024 tokens.

    Raises:
        BenchmarkError: context or reference answer is not known.
    """
    meta = example.meta
    for key, file in (("context", "context.jsonl"), ("reference", "answers_gpt4.jsonl")):
        if meta.get(key) is None:
            raise BenchmarkError(f"llava_bench: question id {example.question_id!r} has no {key}: {file} is needed")
    role, rule = meta["rule"].get("role", "Assistant"), meta["rule"].get("prompt", RULE)
    parts = [f"[Context]\n{meta['context']}", f"[Question]\n{example.prompt}"]
    for number, text in enumerate((meta["reference"], answer), 1):
        parts += [f"[{role} {number}]\n{text}", f"[End of {role} {number}]"]
    points = [1 + 9 * overlap(f"{meta['context']} {meta['reference']}", text) for text in (meta["reference"], answer)]
    return Ask(
        prompt="\n\n".join([*parts, f"[System]\n{rule}"]) + "\n\n",
        offline=f"{points[0]:.1f} {points[1]:.1f}",
        system=SYSTEM,
        temperature=0.2,
        max_tokens=1024,
        run=run,
    )


def parse(reply: str) -> tuple[float, float] | None:
    """Return the two numbers of a reply's first line, parted by one space or comma; None if it is anything else."""
    cells = reply.split("\n", maxsplit=1)[0].replace(",", " ").split(" ")
    try:
        points = tuple(map(float, cells))
    except ValueError:
        return None
    return (points[0], points[1]) if len(points) == 2 and points != FAILED and np.isfinite(points).all() else None


def score_llava_bench(
    examples: Sequence[Example], answers: Mapping[str, str], replies: Replies, *, failed: str = "exclude"
) -> Score:
    """Divide the model's points by the reference's, overall and by category.

    The parts `printed/...` are what the official summary prints: it rounds the means to three places and their ratio
    to one, so that they may differ from the rounded score by 0.1. Published numbers are means of them over three runs.

    Args:
        examples: the questions.
        answers: question id -> answer, as far as known.
        replies: question id -> the judge's replies.
        failed: a reply without points counts as -1 and -1 ("negative", the official script) or not ("exclude").
    """
    instead = FAILED if failed == "negative" else (0.0, 0.0)
    points = {example.question_id: [parse(reply) for reply in replies[example.question_id]] for example in examples}
    records = [_record(example, answers, points[example.question_id], instead) for example in examples]
    runs = range(min(map(len, points.values())))
    pairs = [[(e, pair) for e in examples if (pair := points[e.question_id][run] or instead) != (0, 0)] for run in runs]
    parts = {f"run/{number}": _relative([pair for _, pair in rows]) for number, rows in enumerate(pairs, 1)}
    parts["printed/all"] = float(np.mean([_relative([pair for _, pair in rows], printed=True) for rows in pairs]))
    for category in CATEGORIES:
        chosen = [[pair for example, pair in rows if example.meta["category"] == category] for rows in pairs]
        if any(chosen):
            parts[category] = RELATIVE([record for record in records if record["category"] == category])
            parts[f"printed/{category}"] = float(np.mean([_relative(row, printed=True) for row in chosen]))
    parts |= _means(records)
    parts["failed"] = float(sum(found is None for row in points.values() for found in row))
    value, options = RELATIVE(records), {"failed": failed}
    return Score("llava_bench", "points relative to the reference", value, parts, records, RELATIVE, options)


def _record(
    example: Example,
    answers: Mapping[str, str],
    points: Sequence[tuple[float, float] | None],
    instead: tuple[float, float],
) -> Record:
    """Return one question's record; its points are summed over the runs that count, so that ratios stay exact."""
    reference, model = np.sum([found or instead for found in points], axis=0)
    return record_of(
        example,
        answers.get(example.question_id, ""),
        float(model / reference) if reference > 0 else 0.0,
        category=example.meta["category"],
        reference_points=float(reference),
        model_points=float(model),
        counted=float(sum(found is not None or instead == FAILED for found in points)),
    )


def _relative(pairs: Sequence[tuple[float, float]], *, printed: bool = False) -> float:
    """Return model over reference in percent for one run; `printed` rounds as the official summary does."""
    if not pairs:
        return 0.0
    reference, model = map(float, np.mean(pairs, axis=0))
    if printed:
        reference, model = round(reference, 3), round(model, 3)
    relative = 100.0 * model / reference if reference else 0.0
    return round(relative, 1) if printed else relative


def _means(records: Sequence[Record]) -> dict[str, float]:
    """Return the mean points of both, times ten as in the official summary."""
    counted = sum(record["counted"] for record in records) or 1.0
    sums = {who: sum(record[f"{who}_points"] for record in records) for who in ("reference", "model")}
    return {f"points/{who}": 10.0 * total / counted for who, total in sums.items()}


def read_reviews(path: Path, examples: Sequence[Example]) -> Judged | None:
    """Read a released review file: JSON lines with question id, category, the judge's words and the tuple of points.

    Raises:
        PredictionError: a tuple is malformed, or ids are missing, foreign or given twice.
    """
    records = _reviews(path)
    if records is None:
        return None
    found = []
    for where, record in records:
        pair = record["tuple"]
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(x, int | float) for x in pair):
            raise PredictionError(f"{where}: found tuple {pair!r}, expected two numbers")
        found.append(Answer(where, str(record["question_id"]), f"{pair[0]} {pair[1]}"))
    return as_released({key: [reply] for key, reply in match_answers(path, found, examples).items()})


def reviewed_questions(path: Path) -> list[Example]:
    """Return the questions that a review file is about, without their words; none if it is no such.

    Raises:
        PredictionError: a category is unknown.
    """
    examples = []
    for where, record in _reviews(path) or ():
        category = str(record.get("category", "")).removeprefix(RULE_PREFIX)
        if category not in CATEGORIES:
            raise PredictionError(f"{where}: found category {category!r}, expected one of {', '.join(CATEGORIES)}")
        key = str(record["question_id"])
        examples.append(Example(key, None, "", key, {"category": category}))
    return examples


def _reviews(path: Path) -> list[tuple[str, dict[str, Any]]] | None:
    """Return the records of a review file, or None if the file is another one."""
    content = read_content(path)
    if isinstance(content, dict) or not content:
        return None
    return content if all("tuple" in record and "question_id" in record for _, record in content) else None


PROTOCOL = Protocol(
    ask, parse, score_llava_bench, read_reviews, attempts=1, always=True,
    policies={"official": {"failed": "negative"}, "correct": {"failed": "exclude"}},
)  # fmt: skip
"""LLaVA-Bench's reviews; the official script asks once."""

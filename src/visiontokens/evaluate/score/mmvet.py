"""MM-Vet: the mean of grades from 0 to 1 that a language model gives, over all questions and by capability."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from visiontokens.data.benchmarks import BenchmarkError, Example
from visiontokens.data.benchmarks.mmvet import PREFIX
from visiontokens.evaluate.judge import Ask
from visiontokens.evaluate.predictions import Answer, PredictionError, match_answers
from visiontokens.evaluate.released import answers_in, keyed, read_content
from visiontokens.evaluate.score.base import Record, Score, Statistic, ratio, record_of
from visiontokens.evaluate.score.judged import Judged, Protocol, Replies, as_released, overlap

INSTRUCTIONS = """Grade the prediction of a model against the ground truth with a correctness from 0.0 (wrong) to 1.0 \
(right) in steps of 0.1. Parts of the ground truth that <AND> joins are all needed for full marks, and each of them \
earns its share; of parts that <OR> joins one is enough. Fill in the last cell of the last row with the number alone.

Question | Ground truth | Prediction | Correctness
--- | --- | --- | ---
Which values solve the equation? | 2 <AND> -7 | x = 4 | 0.0
Which values solve the equation? | 2 <AND> -7 | It is 2. | 0.5
Which values solve the equation? | 2 <AND> -7 | x = -7 or x = 7 | 0.5
Which values solve the equation? | 2 <AND> -7 | x is 2 or -7 | 1.0
Why is the sign funny? | It says that the shop is open around the clock and lists closing times beside it, so the two \
claims contradict each other. | The sign is about the opening hours of a shop. | 0.3
Why is the sign funny? | It says that the shop is open around the clock and lists closing times beside it, so the two \
claims contradict each other. | The shop claims to be open for 24 hours but also names hours at which it closes, which \
cannot both be true. | 1.0
"""
"""Our wording of the official few-shot prompt; scores of another wording are another judge's."""
REMINDER = "\nPredict the correctness of the answer (digit): "
"""What the official script adds after a reply that is no number."""

GRADE = Statistic(terms=lambda record: (record["correct"] * record["counted"], record["counted"]), combine=ratio)
"""Mean grade in percent over the questions that count."""


def ask(example: Example, answer: str, run: int, attempt: int) -> Ask:
    """Return the request for one grade: temperature 0 and three tokens, warmer after each unreadable reply.

    Raises:
        BenchmarkError: the ground truth is not known.
    """
    if "answer" not in example.meta:
        raise BenchmarkError(f"mmvet: question id {example.question_id!r} has no ground truth: mm-vet.json is needed")
    truth = example.meta["answer"].replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    rows = example.meta.get("instructions", INSTRUCTIONS) + "\n" + " | ".join([example.prompt, truth, answer, ""])
    return Ask(
        prompt=rows + (REMINDER if attempt else ""),
        offline=f"{compared(example.meta['answer'], answer):.1f}",
        temperature=0.5 * max(0, attempt - 1),
        max_tokens=3,
        run=run,
    )


def compared(truth: str, answer: str) -> float:
    """Return the stand-in's grade: the share of words found, best over <OR>, averaged over <AND>."""
    choices = [[overlap(part, answer) for part in choice.split("<AND>")] for choice in truth.split("<OR>")]
    return max(sum(parts) / len(parts) for parts in choices)


def parse(reply: str) -> float | None:
    """Return the number before the first space if it lies in 0 … 1."""
    try:
        grade = float(reply.split(" ", maxsplit=1)[0].strip())
    except ValueError:
        return None
    return grade if 0.0 <= grade <= 1.0 else None


def score_mmvet(
    examples: Sequence[Example], answers: Mapping[str, str], replies: Replies, *, failed: str = "exclude"
) -> Score:
    """Average the grades; with several runs each question counts with its mean.

    Args:
        examples: the questions.
        answers: question id -> answer, as far as known.
        replies: question id -> the judge's replies.
        failed: a reply without a grade is 0.0 ("zero", the official script) or not counted ("exclude").
    """
    records = [_record(example, answers, replies[example.question_id], failed) for example in examples]
    grades = [record.pop("grades") for record in records]
    runs = [_mean([row[run] for row in grades], failed) for run in range(min(map(len, grades)))]
    parts = {f"run/{number}": value for number, value in enumerate(runs, 1)}
    parts |= {"std": float(np.std(runs)), "failed": float(sum(grade is None for row in grades for grade in row))}
    names = sorted({name for example in examples for name in example.meta["capabilities"]})
    for name in names:
        chosen = [record for record in records if name in record["capability"].split("+")]
        parts[f"capability/{name}"] = GRADE(chosen)
    for together in sorted({record["capability"] for record in records} if names else ()):
        parts[f"set/{together}"] = GRADE([record for record in records if record["capability"] == together])
    return Score("mmvet", "mean grade of a judge", GRADE(records), parts, records, GRADE, {"failed": failed})


def _record(example: Example, answers: Mapping[str, str], replies: Sequence[str], failed: str) -> Record:
    grades = [parse(reply) for reply in replies]
    known = [0.0 if grade is None else grade for grade in grades if grade is not None or failed == "zero"]
    return record_of(
        example,
        answers.get(example.question_id, ""),
        float(np.mean(known)) if known else 0.0,
        counted=float(bool(known)),
        capability="+".join(example.meta["capabilities"]),
        grades=grades,
    )


def _mean(grades: Sequence[float | None], failed: str) -> float:
    """Return one run's mean in percent."""
    known = [grade or 0.0 for grade in grades if grade is not None or failed == "zero"]
    return 100.0 * float(np.mean(known)) if known else 0.0


def read_mmvet(path: Path, examples: Sequence[Example]) -> dict[str, str]:
    """Read a results file (`v1_0` -> answer) or LLaVA's lines, whose ids lack the "v1_".

    Raises:
        FileNotFoundError, PredictionError: see `visiontokens.evaluate.released`.
    """
    content = read_content(path)
    if isinstance(content, dict):
        return keyed(path, content, examples)
    known = {example.question_id for example in examples}
    if all(str(record.get("question_id")) in known for _, record in content):
        return answers_in()(path, examples)
    found = []
    for where, record in content:
        if not isinstance(record.get("text"), str):
            raise PredictionError(f"{where}: found text {record.get('text')!r}, expected a string")
        found.append(Answer(where, f"{PREFIX}{record.get('question_id')}", record["text"]))
    return match_answers(path, found, examples)


def read_grades(path: Path, examples: Sequence[Example]) -> Judged | None:
    """Read the official script's grade file (id -> model, content, score; a list entry a run).

    Raises:
        PredictionError: an entry is malformed, runs differ in number, or ids are missing or foreign.
    """
    content = _grades(path)
    if content is None:
        return None
    found = {}
    for key, entry in content.items():
        scores, texts = entry["score"], entry.get("content", [])
        if not all(isinstance(score, int | float) and 0 <= score <= 1 for score in scores) or not scores:
            raise PredictionError(f"{path}: question id {key!r}: found scores {scores!r}, expected numbers in 0 … 1")
        texts = texts if len(texts) == len(scores) else [str(score) for score in scores]
        # A reply that was no number has the score 0.0 in the file; the reply says that it was none.
        replies = [text if parse(str(text)) is None else str(score) for text, score in zip(texts, scores, strict=True)]
        found[key] = json.dumps([str(reply) for reply in replies])
    lengths = {len(json.loads(replies)) for replies in found.values()}
    if len(lengths) > 1:
        raise PredictionError(f"{path}: found {sorted(lengths)} runs, expected the same number for every question")
    ordered = {key: json.loads(texts) for key, texts in keyed(path, found, examples).items()}
    return as_released(ordered, [str(model) for entry in content.values() for model in entry.get("model", [])])


def graded_questions(path: Path) -> list[Example]:
    """Return the questions that a grade file is about, without their words and capabilities; none if it is no such."""
    return [Example(key, None, "", key, {"capabilities": ()}) for key in _grades(path) or ()]


def _grades(path: Path) -> dict[str, dict[str, list[object]]] | None:
    """Return the entries of a grade file, or None if the file is another one."""
    content = read_content(path)
    if not isinstance(content, dict) or not content:
        return None
    entries = content.values()
    return content if all(isinstance(e, dict) and isinstance(e.get("score"), list) for e in entries) else None


PROTOCOL = Protocol(
    ask, parse, score_mmvet, read_grades, attempts=6, always=True,
    policies={"official": {"failed": "zero"}, "correct": {"failed": "exclude"}},
)  # fmt: skip
"""MM-Vet's grading."""

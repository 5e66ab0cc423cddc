"""ScienceQA: a letter out of the model's words, and accuracy on the questions with an image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from visiontokens.data.benchmarks import Example
from visiontokens.data.benchmarks.scienceqa import LETTERS
from visiontokens.evaluate.score.base import Record, Score, Statistic, ratio, record_of, text_for

FAILED = "FAILED"
_SENTENCE = re.compile(r"The answer is ([A-Z]).")
_SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}

IMG_ACCURACY = Statistic(
    terms=lambda record: (record["correct"] * record["has_image"], record["has_image"]),
    combine=ratio,
)
"""Accuracy in percent over the questions with an image."""


def parse_letter(text: str) -> str:
    """Return the letter that a ScienceQA answer gives, or "FAILED".

    Taken in this order, as LLaVA does: the text is a letter A … E; it starts with "X. "; it has exactly one sentence
    "The answer is X." (with any character after the letter).
    """
    if text in tuple(LETTERS):
        return text
    if len(text) >= 3 and text[0] in LETTERS and text[1:3] == ". ":
        return text[0]
    found = _SENTENCE.findall(text)
    return found[0] if len(found) == 1 else FAILED


def score_scienceqa(examples: Sequence[Example], predictions: Mapping[str, str]) -> Score:
    """Score ScienceQA; the value is LLaVA's IMG accuracy, `parts` adds all questions and the official subsets.

    A letter beyond the question's options is wrong (index -1), as is an answer without a letter.
    """
    records = []
    for example in examples:
        text = text_for(example, predictions)
        letter = parse_letter(text)
        choices = LETTERS[: example.meta["n_choices"]]
        records.append(
            record_of(
                example,
                text,
                letter == example.meta["answer"],
                parsed=letter,
                index=choices.find(letter) if len(letter) == 1 else -1,
                answer=example.meta["answer"],
                has_image=float(example.image is not None),
            )
        )
    return Score(
        benchmark="scienceqa",
        metric="accuracy on image questions",
        value=IMG_ACCURACY(records),
        parts=_parts(examples, records),
        per_question=records,
        statistic=IMG_ACCURACY,
    )


def _parts(examples: Sequence[Example], records: Sequence[Record]) -> dict[str, float]:
    """Return accuracy on all questions and, where subjects and grades are known, on the official subsets."""
    members: dict[str, list[float]] = {"all": [record["correct"] for record in records]}
    for example, record in zip(examples, records, strict=True):
        for name in _subsets(example):
            members.setdefault(name, []).append(record["correct"])
    parts = {name: 100.0 * sum(values) / len(values) for name, values in sorted(members.items())}
    return parts | {"failed": float(sum(record["parsed"] == FAILED for record in records))}


def _subsets(example: Example) -> list[str]:
    """Return the official subsets that a question belongs to; none without `problems.json`."""
    if "subject" not in example.meta:
        return []
    names = [_SUBJECTS[example.meta["subject"]]] if example.meta["subject"] in _SUBJECTS else []
    has_text, has_image = example.meta["text_context"], example.image is not None
    names += ["TXT"] * has_text + ["IMG"] * has_image + ["NO"] * (not has_text and not has_image)
    grade = str(example.meta["grade"]).removeprefix("grade")
    if grade.isdigit():
        names.append("G1-6" if int(grade) <= 6 else "G7-12")
    return names

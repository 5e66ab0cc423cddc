"""MMBench: letter extraction by rule, and circular accuracy over rotated options."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from visiontokens.data.benchmarks import Example
from visiontokens.evaluate.score.base import Record, Score, Statistic, means_by, ratio, record_of, text_for

_LETTERS = "ABCDE"
_DECORATIONS = (
    ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ")."),
    (":", ""), (":", ","), (":", "."), (":", ")"), (":", ")."),
)  # fmt: skip
_API_ERROR = "Failed to obtain answer via API"

CIRCULAR = Statistic(terms=lambda record: (record["circular"], record["base"]), combine=ratio)
"""Percentage of base questions all of whose rows are right."""


def extract_letter(text: str, options: Sequence[str]) -> str:
    """Return the option that an answer names, or "" if no rule finds exactly one.

    As in the official tool's rule step: exactly one bare letter among the words (not trusted when "A" is one of more
    than three words, for it may be the article); then exactly one letter with a decoration such as "(B)" or "B.";
    then exactly one option whose text occurs in the answer, case ignored.
    """
    return _by_letter(text) or _by_text(text, options)


def _by_letter(text: str) -> str:
    """Return the single letter among the words of `text`, or ""."""
    words = text.split()
    if _API_ERROR in text:
        return ""
    bare = [letter for letter in _LETTERS if letter in words]
    if len(bare) == 1 and not ("A" in words and len(words) > 3):
        return bare[0]
    for prefix, suffix in _DECORATIONS:
        found = [letter for letter in "ABCD" if f"{prefix}{letter}{suffix}" in words]
        if len(found) == 1:
            return found[0]
    return ""


def _by_text(text: str, options: Sequence[str]) -> str:
    """Return the letter of the single option whose text occurs in `text`, or ""."""
    lowered = text.lower()
    found = [letter for letter, option in zip(_LETTERS, options, strict=False) if option.lower() in lowered]
    return found[0] if len(found) == 1 else ""


def _guess(example: Example) -> str:
    """Return an option drawn by question id alone, so that it depends on no order."""
    return random.Random(f"mmbench {example.question_id}").choice(_LETTERS[: len(example.meta["options"])])


def score_mmbench(
    examples: Sequence[Example], predictions: Mapping[str, str], *, name: str = "mmbench", guess: bool = False
) -> Score:
    """Score MMBench; the value is circular accuracy, `parts` adds first pass, all rows, and both category levels.

    The record of a base row carries `base` = 1 and whether all its rows are right.

    Args:
        examples: what the loader returned.
        predictions: question id -> model output.
        name: benchmark.
        guess: draw a letter where no rule finds one, which is where the official tool ends when the language model
            that it asks finds none either. Otherwise such an answer is wrong.

    Raises:
        ValueError: a rotated row comes without its base row.
    """
    records = []
    for example in examples:
        text = text_for(example, predictions)
        found = extract_letter(text, example.meta["options"])
        letter = found or (_guess(example) if guess else "")
        records.append(
            record_of(
                example,
                text,
                letter == example.meta["answer"],
                parsed=found,
                answer=example.meta["answer"],
                category=example.meta["category"],
                l2_category=example.meta["l2_category"],
                base=float(example.question_id == example.group),
            )
        )
    _mark_circular(records)
    base = [record for record in records if record["base"]]
    parts = {
        "first_pass": 100.0 * float(np.mean([record["correct"] for record in base])),
        "all_rows": 100.0 * float(np.mean([record["correct"] for record in records])),
        "unparsed": float(sum(not record["parsed"] for record in records)),
    }
    outcomes = [record | {"correct": record["circular"]} for record in base]
    for key in ("category", "l2_category"):
        if any(record[key] for record in base):
            parts |= means_by(outcomes, key, key)
    return Score(name, "circular accuracy", CIRCULAR(records), parts, records, CIRCULAR, {"guess": guess})


def _mark_circular(records: Sequence[Record]) -> None:
    """Set `circular` on every record: 1 on base rows all of whose rotations are right, else 0."""
    rows: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        rows[record["group"]].append(record)
    for group, members in rows.items():
        if not any(record["base"] for record in members):
            raise ValueError(f"mmbench: rotations of {group} come without the base row")
        all_right = float(all(record["correct"] for record in members))
        for record in members:
            record["circular"] = record["base"] * all_right

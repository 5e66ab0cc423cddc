"""MME: per subtask 100 x (accuracy + accuracy of image pairs), summed over perception and over cognition."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from visiontokens.data.benchmarks import Example
from visiontokens.data.benchmarks.mme import COGNITION, PERCEPTION
from visiontokens.evaluate.bootstrap import FloatArray
from visiontokens.evaluate.score.base import Record, Score, Statistic, record_of, safe_divide, text_for

CATEGORIES = PERCEPTION + COGNITION
_TERMS = 4


def parse_yes_no(text: str) -> str:
    """Return yes, no or other by the official rule: exact word, else what the first four characters contain.

    "yes" is looked for before "no"; so "none", "know" and "now" are no. A newline counts as a space, since the
    official result files hold one answer a line.
    """
    text = text.replace("\n", " ").lower()
    if text in ("yes", "no"):
        return text
    head = text[:4]
    return "yes" if "yes" in head else "no" if "no" in head else "other"


def parse_word(text: str) -> str:
    """Return yes or no if that is the first word, capitals aside; everything else is other."""
    found = re.match(r"\W*([a-z]+)", text.lower())
    return found[1] if found and found[1] in ("yes", "no") else "other"


def _terms(record: Record) -> list[float]:
    """Return (right, asked, pairs right, pairs) in the columns of the record's category."""
    terms = [0.0] * (_TERMS * len(CATEGORIES))
    start = _TERMS * CATEGORIES.index(record["stratum"])
    terms[start : start + _TERMS] = [record["correct"], 1.0, record["pair_right"], record["pair"]]
    return terms


def subtask_scores(sums: FloatArray) -> FloatArray:
    """Map sums `[..., 14 * 4]` to subtask scores `[..., 14]`, each in 0 … 200; 0 for a subtask without questions."""
    table = sums.reshape(*sums.shape[:-1], len(CATEGORIES), _TERMS)
    return 100.0 * (safe_divide(table[..., 0], table[..., 1]) + safe_divide(table[..., 2], table[..., 3]))


PERCEPTION_SCORE = Statistic(_terms, lambda sums: subtask_scores(sums)[..., : len(PERCEPTION)].sum(axis=-1))
"""Sum of the ten perception subtasks (at most 2000): the number that LLaVA reports."""

COGNITION_SCORE = Statistic(_terms, lambda sums: subtask_scores(sums)[..., len(PERCEPTION) :].sum(axis=-1))
"""Sum of the four cognition subtasks (at most 800)."""


def score_mme(examples: Sequence[Example], predictions: Mapping[str, str], *, by_word: bool = True) -> Score:
    """Score MME; the value is the perception score, `parts` holds cognition and every subtask.

    Answers are read with `parse_word`, or, without `by_word`, with the official rule of four characters.

    Each image has two questions; the record of its first carries `pair` = 1 and whether both are right, so that sums
    over records count images. The bootstrap draws images within their category (`stratum`).

    Raises:
        ValueError: an image does not have exactly two questions.
    """
    parse = parse_word if by_word else parse_yes_no
    by_image: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_image[example.group].append(example)
    records = []
    for image, pair in by_image.items():
        if len(pair) != 2:
            raise ValueError(f"mme: image {image!r} has {len(pair)} questions, expected 2")
        answers = [text_for(example, predictions) for example in pair]
        parsed = [parse(answer) for answer in answers]
        right = [said == example.meta["label"] for said, example in zip(parsed, pair, strict=True)]
        for position, example in enumerate(pair):
            first = float(position == 0)
            records.append(
                record_of(
                    example,
                    answers[position],
                    right[position],
                    stratum=example.meta["category"],
                    parsed=parsed[position],
                    label=example.meta["label"],
                    pair=first,
                    pair_right=first * all(right),
                )
            )
    return Score(
        benchmark="mme",
        metric="perception score (of 2000)",
        value=PERCEPTION_SCORE(records),
        parts=_parts(records),
        per_question=records,
        statistic=PERCEPTION_SCORE,
        policy={"by_word": by_word},
    )


def _parts(records: Sequence[Record]) -> dict[str, float]:
    """Return cognition, the number of unparsed answers, and the score of every subtask that has questions."""
    totals = PERCEPTION_SCORE.matrix(records).sum(axis=0)
    asked = totals[1::_TERMS]
    scores = subtask_scores(np.asarray(totals))
    parts = {name: float(scores[i]) for i, name in enumerate(CATEGORIES) if asked[i]}
    other = float(sum(record["parsed"] == "other" for record in records))
    return {"perception": PERCEPTION_SCORE(records), "cognition": COGNITION_SCORE(records), "other": other} | parts

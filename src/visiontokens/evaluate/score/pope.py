"""POPE: yes/no out of the model's words; mean F1 over the three ways of choosing absent objects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from visiontokens.data.benchmarks import Example
from visiontokens.data.benchmarks.pope import CATEGORIES
from visiontokens.evaluate.bootstrap import FloatArray
from visiontokens.evaluate.score.base import Record, Score, Statistic, record_of, safe_divide, text_for

_NO_WORDS = frozenset({"No", "not", "no"})
_COUNTS = 4


def parse_yes_no(text: str) -> str:
    """Return "no" if a word before the first period is No, not or no (case matters), else "yes".

    So "NO", "nope", "maybe" and the empty text are yes, and "Yes, not sure" is no, as in the official script.
    """
    words = text.split(".", maxsplit=1)[0].replace(",", "").split(" ")
    return "no" if _NO_WORDS.intersection(words) else "yes"


def parse_words(text: str) -> str:
    """Return yes or no if, capitals and punctuation aside, exactly one of them (or "not") is among the words.

    What says neither or both is "other", which is wrong whatever the label.
    """
    words = set(re.findall(r"[a-z]+", text.lower()))
    said = {"yes"} & words | ({"no"} if {"no", "not"} & words else set())
    return said.pop() if len(said) == 1 else "other"


def _terms(record: Record) -> list[float]:
    """Return (true positive, false positive, true negative, false negative) for each category."""
    terms = [0.0] * (_COUNTS * len(CATEGORIES))
    label = record["label"] == "yes"
    said = not label if record["parsed"] == "other" else record["parsed"] == "yes"
    outcome = 0 if said and label else 1 if said else 2 if not label else 3
    terms[_COUNTS * CATEGORIES.index(record["category"]) + outcome] = 1.0
    return terms


def _mean_f1(sums: FloatArray) -> FloatArray:
    """Map counts `[..., 3 * 4]` to the mean F1 (x100) over the categories that have questions."""
    counts = sums.reshape(*sums.shape[:-1], len(CATEGORIES), _COUNTS)
    tp, fp, fn = counts[..., 0], counts[..., 1], counts[..., 3]
    f1 = safe_divide(2 * tp, 2 * tp + fp + fn)
    present = counts.sum(axis=-1) > 0
    return 100.0 * safe_divide((f1 * present).sum(axis=-1), present.sum(axis=-1).astype(np.float64))


MEAN_F1 = Statistic(terms=_terms, combine=_mean_f1)
"""Mean F1 x 100; F1 is 0 where nothing was answered yes (the official script divides by zero there)."""


def score_pope(examples: Sequence[Example], predictions: Mapping[str, str], *, by_word: bool = True) -> Score:
    """Score POPE; the value is LLaVA's mean F1, `parts` holds each category's table (rates in 0 … 1).

    Other papers name other statistics POPE; `mean_accuracy` and `pooled_f1` (both x100) are among the parts.

    Args:
        examples: what the loader returned.
        predictions: question id -> model output.
        by_word: read answers with `parse_words`. Otherwise as the official script, for which all is yes that has none
            of three spellings of no before the first period.
    """
    parse = parse_words if by_word else parse_yes_no
    records = []
    for example in examples:
        text = text_for(example, predictions)
        parsed, label = parse(text), example.meta["label"]
        category = example.meta["category"]
        records.append(record_of(example, text, parsed == label, parsed=parsed, label=label, category=category))
    parts: dict[str, float] = {}
    for category in CATEGORIES:
        chosen = [record for record in records if record["category"] == category]
        if chosen:
            parts |= {f"{category}/{name}": value for name, value in category_table(chosen).items()}
    accuracies = [value for name, value in parts.items() if name.endswith("/accuracy")]
    parts |= {"mean_accuracy": 100.0 * float(np.mean(accuracies)), "pooled_f1": 100.0 * category_table(records)["f1"]}
    parts["other"] = float(sum(record["parsed"] == "other" for record in records))
    options = {"by_word": by_word}
    return Score("pope", "mean F1 of three samplings", MEAN_F1(records), parts, records, MEAN_F1, options)


def category_table(records: Sequence[Record]) -> dict[str, float]:
    """Return counts, accuracy, precision, recall, F1 and yes ratio of one category's records."""
    totals = np.sum([_terms(record) for record in records], axis=0)
    tp, fp, tn, fn = (float(totals[i::_COUNTS].sum()) for i in range(_COUNTS))
    n = len(records)
    return {
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "accuracy": (tp + tn) / n,
        "precision": tp / (tp + fp) if tp + fp else 0.0,
        "recall": tp / (tp + fn) if tp + fn else 0.0,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0,
        "yes_ratio": (tp + fp) / n,
    }

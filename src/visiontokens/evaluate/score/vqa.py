"""VQAv2, VizWiz and TextVQA: soft accuracy against ten human answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from visiontokens.data.benchmarks import Example
from visiontokens.evaluate.normalize import (
    even_vqa_accuracy,
    m4c_accuracy,
    normalize_m4c,
    normalize_official,
    normalize_vizwiz,
    official_vqa_accuracy,
    vizwiz_accuracy,
)
from visiontokens.evaluate.score.base import MEAN_CORRECT, Record, Score, means_by, record_of, text_for


def score_vqav2(examples: Sequence[Example], predictions: Mapping[str, str], *, even: bool = True) -> Score:
    """Score VQAv2.

    Args:
        examples: what the loader returned.
        predictions: question id -> model output.
        even: normalise prediction and answers by the evaluator's rules, always. Otherwise as published numbers came
            about: LLaVA's converter passes predictions through the M4C processor, and the official evaluator compares
            them with unanimous answers letter by letter.
    """
    records = _records(examples, predictions, str if even else normalize_m4c, _accuracy(even, official_vqa_accuracy))
    parts = means_by(records, "answer_type", "answer_type") | means_by(records, "question_type", "question_type")
    return _score("vqav2", records, parts, {"even": even})


def score_vizwiz(examples: Sequence[Example], predictions: Mapping[str, str], *, even: bool = True) -> Score:
    """Score VizWiz; parts add the answerability task (positive = unanswerable).

    Args:
        examples: what the loader returned.
        predictions: question id -> model output.
        even: normalise both sides with VQAv2's rules. Otherwise as the organisers' evaluator: predictions only, which
            LLaVA's converter has passed through the M4C processor before, and contractions with backticks.
    """
    records = _records(examples, predictions, str if even else normalize_m4c, _accuracy(even, vizwiz_accuracy))
    normalize = normalize_official if even else normalize_vizwiz
    truth = np.array([not example.meta["answerable"] for example in examples])
    said = np.array([normalize(record["submitted"]) == "unanswerable" for record in records])
    parts = means_by(records, "answer_type", "answer_type") | unanswerability(truth, said)
    return _score("vizwiz", records, parts, {"even": even})


def _accuracy(even: bool, official: Callable[[str, Sequence[str]], float]) -> Callable[[str, Sequence[str]], float]:
    return even_vqa_accuracy if even else official


def score_textvqa(examples: Sequence[Example], predictions: Mapping[str, str]) -> Score:
    """Score TextVQA with the M4C evaluator."""
    records = _records(examples, predictions, str, m4c_accuracy)
    return _score("textvqa", records, {}, {})


def unanswerability(truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Return F1 and average precision (in percent) of saying "unanswerable", as the VizWiz evaluator defines them.

    Args:
        truth: `[n]` bool, the question cannot be answered.
        said: `[n]` bool, the prediction is "unanswerable".
    """
    hits, claims, positives = float((truth & said).sum()), float(said.sum()), float(truth.sum())
    f1 = 2 * hits / (claims + positives) if claims + positives else 0.0
    if not positives:
        return {"unanswerable/f1": 100 * f1, "unanswerable/average_precision": 0.0}
    # With a yes/no score the precision-recall curve has two points: those said, and everything.
    recall, precision, prevalence = hits / positives, hits / claims if claims else 0.0, positives / len(truth)
    average = recall * precision + (1 - recall) * prevalence
    return {"unanswerable/f1": 100 * f1, "unanswerable/average_precision": 100 * average}


def _records(
    examples: Sequence[Example],
    predictions: Mapping[str, str],
    submit: Callable[[str], str],
    accuracy: Callable[[str, Sequence[str]], float],
) -> list[Record]:
    """Score each example; `submit` makes the submitted answer of the model's output."""
    records = []
    for example in examples:
        text = text_for(example, predictions)
        submitted = submit(text)
        types = {key: example.meta[key] for key in ("answer_type", "question_type") if key in example.meta}
        correct = accuracy(submitted, example.meta["answers"])
        records.append(record_of(example, text, correct, submitted=submitted, **types))
    return records


def _score(name: str, records: list[Record], parts: dict[str, float], options: dict[str, Any]) -> Score:
    """Wrap up a soft-accuracy score."""
    return Score(
        benchmark=name,
        metric="VQA accuracy",
        value=MEAN_CORRECT(records),
        parts=parts,
        per_question=records,
        statistic=MEAN_CORRECT,
        policy=options,
    )

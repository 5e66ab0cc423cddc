"""SEED-Bench: the share of answers that are the right letter and nothing else.

That is LLaVA-1.5's metric. The authors' own ranks the four options by likelihood, which no answer file can show.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from visiontokens.data.benchmarks import Example
from visiontokens.data.benchmarks.base import read_jsonl
from visiontokens.evaluate.predictions import Answer, PredictionError, match_answers
from visiontokens.evaluate.score.base import MEAN_CORRECT, Score, means_by, record_of, text_for

VIDEO_ID = "v"
"""First letter of the ids of questions about videos."""


def score_seed(examples: Sequence[Example], predictions: Mapping[str, str]) -> Score:
    """Score SEED-Bench by exact match, overall, for images and videos, and by question type."""
    records = []
    for example in examples:
        text, answer = text_for(example, predictions), example.meta["answer"]
        extra = {"answer": answer, "type": example.meta["type"], "part": example.meta["part"]}
        records.append(record_of(example, text, text == answer, **extra))
    parts = means_by(records, "part", "part") | means_by(records, "type", "type")
    parts["no_letter"] = float(sum(record["prediction"] not in tuple("ABCD") for record in records))
    return Score("seed", "accuracy", MEAN_CORRECT(records), parts, records, MEAN_CORRECT)


def read_seed(path: Path, examples: Sequence[Example]) -> dict[str, str]:
    """Read LLaVA's answers (`text`) or the upload made of them (`prediction`), JSON lines, into question id -> answer.

    An id that the benchmark holds twice may be answered twice, in that order; a single answer then counts for both, as
    in LLaVA's script. Answers to video questions are passed over where only the image part was loaded.

    Raises:
        FileNotFoundError: there is no such file.
        PredictionError: an answer is no text, or an id is foreign, missing, or given too often.
    """
    places: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        places[str(example.meta["official_id"])].append(example.question_id)
    videos = any(example.meta["part"] == "video" for example in examples)
    found: dict[str, list[str]] = defaultdict(list)
    for number, record in enumerate(read_jsonl(Path(path)), 1):
        key = str(record.get("question_id")).split("#")[0]
        text = record.get("prediction", record.get("text"))
        if not isinstance(text, str):
            raise PredictionError(f"{path}:{number}: question id {key!r}: found {text!r}, expected a text")
        if key in places:
            found[key].append(text)
        elif videos or not key.startswith(VIDEO_ID):
            raise PredictionError(f"{path}:{number}: question id {key!r} is foreign, expected one of {len(examples)}")
    answers: dict[str, str] = {}
    for key, texts in found.items():
        if len(texts) > len(places[key]):
            raise PredictionError(f"{path}: question id {key!r} is answered {len(texts)} times, expected once")
        answers |= dict(zip(places[key], texts + texts[-1:] * (len(places[key]) - len(texts)), strict=True))
    return match_answers(path, (Answer(str(path), key, text) for key, text in answers.items()), examples)

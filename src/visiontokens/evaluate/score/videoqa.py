"""The open video benchmarks by exact match: an offline metric, not the judged accuracy of Video-LLaVA (`videojudge`).

Video-LLaVA and LLaVolta's Table 8 have a language model judge free answers (accuracy, and a score of 0 to 5), and the
judge's version moves results by many points. Exact match is ActivityNet-QA's own metric and that of the others before
the judges; the two kinds of numbers must not stand in one column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from visiontokens.data.benchmarks import Example
from visiontokens.data.benchmarks.videoqa import ACTIVITYNET_TYPES
from visiontokens.evaluate.score.base import MEAN_CORRECT, Record, Score, means_by, record_of, text_for

METRIC = "exact match (offline)"
FREE = frozenset(ACTIVITYNET_TYPES[3:])
"""ActivityNet-QA's free types."""


def score_exact(examples: Sequence[Example], predictions: Mapping[str, str], *, name: str) -> Score:
    """Score the benchmark `name`: string equality, overall and by type; the bootstrap resamples videos."""
    records = _records(examples, predictions)
    return Score(name, METRIC, MEAN_CORRECT(records), means_by(records, "kind", "type"), records, MEAN_CORRECT)


def score_activitynet(examples: Sequence[Example], predictions: Mapping[str, str], *, literal: bool = False) -> Score:
    """Score ActivityNet-QA: string equality, overall, by type and over the free types; the bootstrap resamples videos.

    Args:
        examples: the questions.
        predictions: question id -> answer.
        literal: as the official script computes. Answers are equal letter by letter, and the free questions' right
            answers are divided by the counts of all but the three types that come first in the file, which are the
            free ones only by accident.
    """
    records = _records(examples, predictions, literal=literal)
    parts = means_by(records, "kind", "type")
    free = [record for record in records if record["kind"] in FREE]
    if free:
        counts: dict[str, int] = {}
        for record in records:
            counts[record["kind"]] = counts.get(record["kind"], 0) + 1
        size = sum(list(counts.values())[3:]) if literal else len(free)
        parts["free"] = 100.0 * sum(record["correct"] for record in free) / size if size else 0.0
    options = {"literal": literal}
    return Score("activitynet_qa", METRIC, MEAN_CORRECT(records), parts, records, MEAN_CORRECT, options)


def _records(examples: Sequence[Example], predictions: Mapping[str, str], *, literal: bool = False) -> list[Record]:
    """Compare answers, unless `literal` after LLaVA's conversion for GQA (trailing period off, lower case)."""
    records = []
    for example in examples:
        text, answer = text_for(example, predictions), str(example.meta["answer"])
        right = text == answer if literal else text.strip().rstrip(".").lower() == answer.strip().lower()
        records.append(record_of(example, text, right, answer=answer, kind=example.meta["kind"]))
    return records

"""MSVD-QA and ActivityNet-QA by exact match: an offline metric, not the judged accuracy of Video-LLaVA.

Video-LLaVA and LLaVolta's Table 8 have a language model judge free answers (accuracy, and a score of 0 to 5), and the
judge's version moves results by many points. Exact match is ActivityNet-QA's own metric and the one of MSVD-QA before
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


def score_msvd(examples: Sequence[Example], predictions: Mapping[str, str]) -> Score:
    """Score MSVD-QA: string equality, overall and by type; the bootstrap resamples videos."""
    records = _records(examples, predictions)
    return Score("msvd_qa", METRIC, MEAN_CORRECT(records), means_by(records, "kind", "type"), records, MEAN_CORRECT)


def score_activitynet(
    examples: Sequence[Example], predictions: Mapping[str, str], *, official_free: bool = False
) -> Score:
    """Score ActivityNet-QA: string equality, overall, by type and over the free types; the bootstrap resamples videos.

    Args:
        examples: the questions.
        predictions: question id -> answer.
        official_free: divide the free questions' right answers by what the official script divides them by: the counts
            of all but the three types that come first in the file, which are the free ones only by accident.
    """
    records = _records(examples, predictions)
    parts = means_by(records, "kind", "type")
    free = [record for record in records if record["kind"] in FREE]
    if free:
        counts: dict[str, int] = {}
        for record in records:
            counts[record["kind"]] = counts.get(record["kind"], 0) + 1
        size = sum(list(counts.values())[3:]) if official_free else len(free)
        parts["free"] = 100.0 * sum(record["correct"] for record in free) / size if size else 0.0
    policy = {"official_free": official_free}
    return Score("activitynet_qa", METRIC, MEAN_CORRECT(records), parts, records, MEAN_CORRECT, policy)


def _records(examples: Sequence[Example], predictions: Mapping[str, str]) -> list[Record]:
    """Compare answers after LLaVA's conversion for GQA (trailing period off, lower case), as no official one exists."""
    records = []
    for example in examples:
        text, answer = text_for(example, predictions), str(example.meta["answer"])
        right = text.strip().rstrip(".").lower() == answer.strip().lower()
        records.append(record_of(example, text, right, answer=answer, kind=example.meta["kind"]))
    return records

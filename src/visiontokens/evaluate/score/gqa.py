"""GQA: exact match, overall and by question type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from visiontokens.data.benchmarks import Example
from visiontokens.evaluate.score.base import MEAN_CORRECT, Score, means_by, record_of, text_for

OPEN_TYPE = "query"
"""Questions of this structural type are open; all others offer two answers."""


def score_gqa(examples: Sequence[Example], predictions: Mapping[str, str]) -> Score:
    """Score GQA: string equality after LLaVA's conversion (trailing periods off, lower case).

    Validity, plausibility and grounding need choice lists and scene graphs that testdev does not have.
    """
    records = []
    for example in examples:
        text = text_for(example, predictions)
        submitted = text.rstrip(".").lower()
        structural = example.meta["structural"]
        records.append(
            record_of(
                example,
                text,
                submitted == example.meta["answer"],
                submitted=submitted,
                answer=example.meta["answer"],
                kind="open" if structural == OPEN_TYPE else "binary",
                structural=structural,
                semantic=example.meta["semantic"],
            )
        )
    parts = means_by(records, "kind", "kind")
    parts |= means_by(records, "structural", "structural") | means_by(records, "semantic", "semantic")
    return Score("gqa", "accuracy", MEAN_CORRECT(records), parts, records, MEAN_CORRECT)

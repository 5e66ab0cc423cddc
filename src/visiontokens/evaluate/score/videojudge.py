"""Zero-shot video questions as Video-ChatGPT has them judged: right or wrong, and 0 to 5 points."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visiontokens.data.benchmarks import Example
from visiontokens.evaluate.judge import Ask
from visiontokens.evaluate.predictions import Answer, PredictionError, match_answers
from visiontokens.evaluate.released import read_content
from visiontokens.evaluate.score.base import Record, Score, Statistic, means_by, ratio, record_of
from visiontokens.evaluate.score.judged import Judged, Protocol, Replies, as_released, overlap, words

SYSTEM = (
    "You compare the answer that a model predicted with the correct answer to a question and say whether they mean "
    "the same. Synonyms and paraphrases match; what counts is whether the prediction is right given the answer."
)
REQUEST = (
    "A question about a video:\nQuestion: {question}\nCorrect Answer: {answer}\nPredicted Answer: {prediction}\n\n"
    "Say yes or no, and give an integer from 0 to 5, with 5 for the best match. Reply with nothing but a Python "
    "dictionary: key 'pred' with the string 'yes' or 'no', key 'score' with the integer. "
    "Example: {{'pred': 'yes', 'score': 4}}"
)
"""Our wording of Video-ChatGPT's request."""

JUDGED_ACCURACY = Statistic(terms=lambda record: (record["correct"], record["counted"]), combine=ratio)
"""Answers judged right in percent of those judged."""


class Verdict(NamedTuple):
    """What the judge says: a text with yes or no, and points."""

    pred: str
    points: float


def ask(example: Example, answer: str, run: int, attempt: int) -> Ask:
    """Return the request for one verdict; the official script leaves decoding to the endpoint's default, 1.

    Each further attempt is a new draw, and counted as a run of its own.
    """
    truth = str(example.meta["answer"])
    share = overlap(truth, answer)
    verdict = {"pred": "yes" if words(truth) and share == 1.0 else "no", "score": round(5 * share)}
    request = REQUEST.format(question=example.meta["question"], answer=truth, prediction=answer)
    return Ask(request, str(verdict), SYSTEM, temperature=1.0, run=run + 1000 * attempt)


def parse(reply: str) -> Verdict | None:
    """Return the verdict of a reply that is a Python dictionary (a text around it is cut off), else None."""
    start, end = reply.find("{"), reply.rfind("}")
    try:
        found = ast.literal_eval(reply[start : end + 1])
        return Verdict(str(found["pred"]), float(found["score"]))
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        return None


def judged(name: str, exact: Any) -> Protocol:
    """Return the protocol of one video benchmark; `exact` is its exact-match scorer, whose value stands beside."""

    def score(
        examples: Sequence[Example], answers: Mapping[str, str], replies: Replies, *, loose: bool = False
    ) -> Score:
        return score_judged(name, examples, answers, replies, exact=exact, loose=loose)

    policies: dict[str, dict[str, Any]] = {"official": {"loose": True}, "correct": {"loose": False}}
    return Protocol(ask, parse, score, read_verdicts, policies=policies)


def score_judged(
    name: str, examples: Sequence[Example], answers: Mapping[str, str], replies: Replies, *, exact: Any, loose: bool
) -> Score:
    """Return judged accuracy; `parts` adds mean points (0 to 5), types, and exact match where the answers are known.

    Args:
        name: benchmark.
        examples: the questions.
        answers: question id -> answer.
        replies: question id -> the judge's replies.
        exact: the exact-match scorer.
        loose: as the official script counts: any text with "yes" in it is right, any other with "no" in it wrong,
            others are left out, and points are cut to integers. Otherwise only "yes" is right and all that the judge
            was asked counts.
    """
    records = [
        _record(example, answers.get(example.question_id, ""), replies[example.question_id], loose)
        for example in examples
    ]
    parts = {"points": float(np.mean([record["points"] for record in records]))}
    parts |= {"failed": float(sum(record["failed"] for record in records))}
    parts |= means_by([record for record in records if record["counted"]], "kind", "type")
    if len(answers) == len(examples):
        parts["exact_match"] = exact(examples, answers).value
    value = JUDGED_ACCURACY(records)
    return Score(name, "accuracy of a judge", value, parts, records, JUDGED_ACCURACY, {"loose": loose})


def _record(example: Example, answer: str, replies: Sequence[str], loose: bool) -> Record:
    verdicts = [parse(reply) for reply in replies]
    marks = [_mark(verdict, loose) for verdict in verdicts]
    known = [mark for mark in marks if mark is not None]
    points = [0.0 if v is None else float(int(v.points)) if loose else v.points for v in verdicts]
    return record_of(
        example,
        answer,
        float(np.mean(known)) if known else 0.0,
        counted=float(bool(known)),
        points=float(np.mean(points)),
        failed=float(sum(verdict is None for verdict in verdicts)),
        answer=example.meta["answer"],
        kind=example.meta["kind"],
    )


def _mark(verdict: Verdict | None, loose: bool) -> float | None:
    """Return 1 for right, 0 for wrong, None where the official count leaves it out."""
    pred = verdict.pred.strip().lower() if verdict else ""
    if not loose:
        return float(pred == "yes")
    return 1.0 if "yes" in pred else 0.0 if "no" in pred else None


def read_verdicts(path: Path, examples: Sequence[Example]) -> Judged | None:
    """Read a combined file of verdicts: key -> [verdict, question and answers]; None if the file is another one.

    Keys are question ids (Video-LLaVA) or a video's name with a running number (Video-ChatGPT).

    Raises:
        PredictionError: an entry is malformed, or ids are missing, foreign or given twice.
    """
    content = read_content(path)
    if not isinstance(content, dict) or not content or not all(isinstance(e, list) for e in content.values()):
        return None
    known = {example.question_id for example in examples}
    found = []
    for key, entry in content.items():
        where = f"{path}: key {key!r}"
        if not entry or not isinstance(entry[0], dict) or not {"pred", "score"} <= set(entry[0]):
            raise PredictionError(f"{where}: found {str(entry)[:80]!r}, expected a list of verdict and question")
        asked = entry[1] if len(entry) > 1 and isinstance(entry[1], dict) else {}
        name = key if key in known else key.rpartition("_")[0]
        reply = json.dumps({"pred": str(entry[0]["pred"]), "score": entry[0]["score"]})
        found.append(Answer(where, name, reply, str(asked.get("q", ""))))
    return as_released({key: [reply] for key, reply in match_answers(path, found, examples).items()})

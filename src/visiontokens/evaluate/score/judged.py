"""What judged benchmarks share: a protocol of asking and reading verdicts, and who judged."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks import Example
from visiontokens.evaluate.judge import Ask, Judge, Reply, StandIn
from visiontokens.evaluate.score.base import Score, text_for

Replies = dict[str, list[str]]
"""Question id -> the judge's replies, one a run."""
RELEASED = "as released with the answers"


@dataclass(frozen=True)
class Protocol:
    """How a benchmark's answers are judged.

    Attributes:
        ask: from (example, answer, run, attempt) to what the judge is asked; later attempts follow an unreadable reply.
        parse: from a reply to the verdict, None where it holds none.
        score: from (examples, answers, replies, policy keywords) to a Score.
        released: from (file, examples) to the verdicts of a released judge file; None where the file is none.
        attempts: asks until a reply can be read; then the answer counts as not judged.
        always: the benchmark has no other metric, so without a judge the stand-in is asked.
        policies: keyword options of `score` by name, as in `Scorer`.
    """

    ask: Callable[[Example, str, int, int], Ask]
    parse: Callable[[str], object | None]
    score: Callable[..., Score]
    released: Callable[[Path, Sequence[Example]], Judged | None]
    attempts: int = 5
    always: bool = False
    policies: dict[str, dict[str, Any]] = field(default_factory=lambda: {"official": {}, "correct": {}})


@dataclass(frozen=True)
class Judged:
    """Replies to all answers of a benchmark, and where they come from.

    Attributes:
        replies: by question id.
        judge: id of the judge, whether it is a stand-in, first and last date of its replies, replies in all.
    """

    replies: Replies
    judge: dict[str, Any]


def judge_answers(
    protocol: Protocol, judge: Judge, examples: Sequence[Example], answers: Mapping[str, str], runs: int = 1
) -> Judged:
    """Have every answer judged `runs` times.

    Raises:
        JudgeError: the judge cannot be asked.
        BenchmarkError: the official files lack what the judge compares with.
    """
    replies: Replies = {}
    dates: set[str] = set()
    for example in examples:
        given = [_ask(protocol, judge, example, answers[example.question_id], run) for run in range(runs)]
        replies[example.question_id] = [reply.text for reply in given]
        dates |= {reply.date for reply in given if reply.date}
    who = {
        "id": judge.id,
        "stand_in": judge.stand_in,
        "date": [min(dates), max(dates)] if dates else [],
        "replies": len(examples) * runs,
    }
    return Judged(replies, who)


def judge_offline(
    protocol: Protocol, examples: Sequence[Example], predictions: Mapping[str, str], **options: object
) -> Score:
    """Score with the stand-in, which the score names as its judge.

    Raises:
        ValueError: an answer is missing.
    """
    answers = {example.question_id: text_for(example, predictions) for example in examples}
    judged = judge_answers(protocol, StandIn(), examples, answers)
    return replace(protocol.score(examples, answers, judged.replies, **options), judge=judged.judge)


def _ask(protocol: Protocol, judge: Judge, example: Example, answer: str, run: int) -> Reply:
    """Return the first readable reply, or the last one."""
    for attempt in range(protocol.attempts):
        reply = judge.reply(protocol.ask(example, answer, run, attempt))
        if protocol.parse(reply.text) is not None:
            break
    return reply


def as_released(replies: Replies, judges: Sequence[str] = ()) -> Judged:
    """Return the replies of a released judge file, with the judges that it names."""
    who = ", ".join(sorted(set(judges))) or "not named"
    count = sum(map(len, replies.values()))
    return Judged(replies, {"id": f"{who}, {RELEASED}", "stand_in": False, "date": [], "replies": count})


def words(text: str) -> list[str]:
    """Return the words and numbers of a text in lower case, for the stand-in's comparisons."""
    return re.findall(r"[\w.]*\w", text.lower())


def overlap(truth: str, answer: str) -> float:
    """Return the share of the truth's words that the answer has: the stand-in's idea of being right (0 … 1)."""
    wanted, said = words(truth), set(words(answer))
    return sum(word in said for word in wanted) / len(wanted) if wanted else 0.0

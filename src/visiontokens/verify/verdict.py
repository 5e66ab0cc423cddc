"""What a test answers: lines, each with numbers and a verdict, and the three words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from visiontokens.analyze.stats import LEVEL, Estimate

Word = Literal["PASS", "FAIL", "NOT RUN"]
PASS: Word = "PASS"
FAIL: Word = "FAIL"
NOT_RUN: Word = "NOT RUN"
UNDECIDED = "not decidable at this size"
ABSENT = "not run at this scale: "
"""How a reason begins that goes on with the names of rows."""


@dataclass(frozen=True)
class Line:
    """One comparison or number of a claim.

    Attributes:
        what: what was looked at.
        verdict: PASS, FAIL or NOT RUN.
        found: our value with its interval, in words.
        expected: what the test asks for, in words.
        reason: why it was not run or not decided; the arithmetic of a recomputed number.
        value: our value; NaN where there is none.
        low: lower end of its interval.
        high: upper end.
    """

    what: str
    verdict: Word
    found: str
    expected: str
    reason: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


def missing(what: str, expected: str, reason: str) -> Line:
    """Return the line of something that was not run."""
    return Line(what, NOT_RUN, "–", expected, reason)


def measured(
    what: str, verdict: Word, found: Estimate, expected: str, *, level: float = LEVEL, reason: str = "", unit: str = ""
) -> Line:
    """Return the line of an estimate with its interval."""
    low, high = found.interval(level)
    text = f"{found.value:+.1f}{unit} [{low:+.1f}, {high:+.1f}] ({100 * level:.3g}%; {found.covers})"
    return Line(what, verdict, text, expected, reason, found.value, low, high)


def questions_needed(found: Estimate, questions: int, level: float, room: float) -> str:
    """Return in words how many questions would decide, if the difference stayed what it is.

    Args:
        found: the estimate that did not decide.
        questions: those it rests on.
        level: of the interval that decides.
        room: half width, in points, that this interval would have to fall below.
    """
    if room < 0.01 * found.se:
        return f"{UNDECIDED}: the difference lies on the tolerance itself"
    wide = found.half(level)
    for_questions = room**2 - (wide * found.training / found.se) ** 2
    if for_questions <= 0:
        return f"{UNDECIDED}: the spread over {found.seeds} seeds is too large, more seeds are needed"
    needed = questions * (wide * found.questions / found.se) ** 2 / for_questions
    step = 10 ** max(0, len(str(math.ceil(needed))) - 2)
    about = math.ceil(needed / step) * step
    return f"{UNDECIDED}: needs n >= {about:,} questions (has {questions:,}) if the difference stays as it is"


def together(lines: Sequence[Line]) -> tuple[Word, str]:
    """Return the verdict on a claim that says all of its lines, and the reason where it is not PASS.

    One line that fails is enough to fail; otherwise one that was not run or not decided leaves the claim open.
    """
    failed = sum(line.verdict == FAIL for line in lines)
    if failed:
        return FAIL, f"{failed} of {len(lines)} do not hold" if len(lines) > 1 else ""
    still = [line for line in lines if line.verdict == NOT_RUN]
    if not still:
        return PASS, ""
    absent = [line.reason.removeprefix(ABSENT) for line in still if line.reason.startswith(ABSENT)]
    names = list(dict.fromkeys(name for text in absent for name in text.split(", ")))
    others = list(dict.fromkeys(line.reason for line in still if not line.reason.startswith(ABSENT)))
    reasons = ([ABSENT + ", ".join(names)] if names else []) + others
    text = "; ".join(reasons[:3]) + (" …" if reasons[3:] else "")
    return NOT_RUN, f"{len(still)} of {len(lines)} open: {text}" if len(lines) > 1 else text

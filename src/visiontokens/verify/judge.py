"""From claims and the results of one scale to verdicts: which test applies, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from visiontokens.verify import costs, curves, scores
from visiontokens.verify.claims import Claim, Claims
from visiontokens.verify.evidence import Evidence, NotRun
from visiontokens.verify.kinds import (
    AnyTest,
    Attention,
    Curve,
    CurveValues,
    Falls,
    Level,
    Ordering,
    Point,
    Ratio,
    Recompute,
    Time,
    Values,
)
from visiontokens.verify.verdict import ABSENT, NOT_RUN, Line, Word, together

KINDS: Mapping[type, Callable[[Any, Claim, Evidence], list[Line]]] = {
    Recompute: costs.recompute,
    Ratio: costs.ratio,
    Time: costs.time,
    Ordering: scores.ordering,
    Level: scores.level,
    Falls: scores.falls,
    Values: scores.values,
    Curve: curves.curve,
    Point: curves.point,
    CurveValues: curves.curve_values,
    Attention: curves.attention,
}
"""The closed vocabulary: every kind of test and the function that judges it."""


@dataclass(frozen=True)
class Verdict:
    """What one scale says on a claim.

    Attributes:
        claim: the claim.
        test: the test that applied; none where none does.
        verdict: PASS, FAIL or NOT RUN.
        reason: why not PASS.
        lines: the numbers.
    """

    claim: Claim
    test: AnyTest | None
    verdict: Word
    reason: str
    lines: tuple[Line, ...] = ()


def judge(claims: Claims, scale: str, evidence: Evidence) -> list[Verdict]:
    """Return a verdict for every claim, in their order."""
    return [_judge(claim, claims, scale, evidence) for claim in claims.claims]


def _judge(claim: Claim, claims: Claims, scale: str, evidence: Evidence) -> Verdict:
    test = test_at(claim, claims, scale)
    if test is None:
        return Verdict(claim, None, NOT_RUN, _why_not(claim, claims, scale))
    try:
        lines = KINDS[type(test)](test, claim, evidence)
    except NotRun as err:
        return Verdict(claim, test, NOT_RUN, str(err) + _elsewhere(test, claims, scale))
    word, reason = together(lines)
    if word == NOT_RUN and any(line.reason.startswith(ABSENT) for line in lines):
        reason += _elsewhere(test, claims, scale)
    return Verdict(claim, test, word, reason, tuple(lines))


def test_at(claim: Claim, claims: Claims, scale: str) -> AnyTest | None:
    """Return the test that judges a claim at a scale: one without results, or one for a scale of its level."""
    run = claims.runs.get(scale)
    for test in claim.tests:
        if not test.scales or (run is not None and run.level in {claims.runs[name].level for name in test.scales}):
            return test
    return None


def _why_not(claim: Claim, claims: Claims, scale: str) -> str:
    """Say why no test of a claim applies at a scale."""
    wanted = [name for test in claim.tests for name in test.scales]
    if not wanted:
        return claim.untested
    if scale not in claims.runs:
        return f"scale {scale!r} is not among the runs of the claims file, so it is not known what its numbers mean"
    if claims.runs[scale].level == "smoke":
        return "the numbers of this scale mean nothing"
    text = f"needs scale {' or '.join(wanted)}: {claims.runs[wanted[0]].command}"
    return f"{text} ({claim.untested})" if claim.untested else text


def _elsewhere(test: AnyTest, claims: Claims, scale: str) -> str:
    """Say where the rows of a test are run, if not at this scale."""
    if scale in test.scales or not test.scales:
        return ""
    level = claims.runs[scale].level
    there = next(name for name in test.scales if claims.runs[name].level == level)
    return f"; run by: {claims.runs[there].command}"

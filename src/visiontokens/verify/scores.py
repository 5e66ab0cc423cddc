"""Tests of benchmark scores: orderings, equivalence, falling rows, published values.

Decisions rest on intervals of paired differences. With several pairs in a claim the intervals are simultaneous
(Bonferroni), so that all of them hold together with 95%.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from visiontokens.analyze.stats import LEVEL, Estimate
from visiontokens.report.book import Cell
from visiontokens.verify.claims import Claim, cited
from visiontokens.verify.evidence import Difference, Evidence, NotRun
from visiontokens.verify.kinds import Falls, Level, Ordering, Pair, Values
from visiontokens.verify.verdict import FAIL, NOT_RUN, PASS, Line, Word, measured, missing, questions_needed


def ordering(test: Ordering, claim: Claim, evidence: Evidence) -> list[Line]:
    """Judge that the first of each pair is above the second.

    PASS: the interval lies above 0. FAIL: it lies below the tolerance, so no lead worth the word is left. Else open.
    """
    return list(_compared(claim, evidence, test.pairs, test.benchmarks, tolerance=test.tolerance, kind="ordering"))


def level(test: Level, claim: Claim, evidence: Evidence) -> list[Line]:
    """Judge that the first of each pair is level with the second (two one-sided tests at 5%).

    PASS: the 90% interval lies inside the tolerance (above its lower end, for `side: lower`). FAIL: the 95% interval
    lies outside it. Else open.
    """
    kind = f"level-{test.side}"
    return list(_compared(claim, evidence, test.pairs, test.benchmarks, tolerance=test.tolerance, kind=kind))


def falls(test: Falls, claim: Claim, evidence: Evidence) -> list[Line]:
    """Judge that scores fall along the rows: the ends are in order, and no step rises.

    A step FAILs when its interval lies above 0 and the rise is more than the tolerance; it passes otherwise.
    """
    ends = _compared(
        claim, evidence, [(test.rows[0], test.rows[-1])], test.benchmarks, tolerance=test.tolerance, kind="ordering"
    )
    steps = [(second, first) for first, second in itertools.pairwise(test.rows)]
    return [*ends, *_compared(claim, evidence, steps, test.benchmarks, tolerance=test.tolerance, kind="step")]


def _compared(
    claim: Claim, evidence: Evidence, pairs: Sequence[Pair], chosen: Sequence[str], *, tolerance: float, kind: str
) -> Iterator[Line]:
    for first, second in pairs:
        what = f"{evidence.label(first)} − {evidence.label(second)}"
        expected = EXPECTED[kind].format(tolerance)
        try:
            benchmarks = evidence.benchmarks(claim, chosen)
            found = evidence.difference(first, second, benchmarks)
        except NotRun as err:
            yield missing(what, expected, str(err))
            continue
        yield judged(what, found, tolerance, kind, pairs=len(pairs), note=f"mean of {len(benchmarks)} benchmark(s)")


EXPECTED = {
    "ordering": "above 0 (a lead below {:g} is none)",
    "level-lower": "no more than {:g} below",
    "level-both": "within ±{:g}",
    "step": "no rise above {:g}",
}


def judged(what: str, found: Difference, tolerance: float, kind: str, *, pairs: int = 1, note: str = "") -> Line:
    """Return the line of one difference under one of the kinds of `EXPECTED`."""
    estimate, sure = found.estimate, 1 - (1 - LEVEL) / pairs
    low, high = estimate.interval(sure)
    word: Word = NOT_RUN
    shown, decides, room = sure, sure, max(estimate.value, tolerance - estimate.value)
    if kind == "ordering":
        word = PASS if low > 0 else FAIL if high < tolerance else NOT_RUN
    elif kind == "step":
        word = FAIL if low > 0 and estimate.value > tolerance else PASS
    else:
        shown = 2 * LEVEL - 1
        room = tolerance + (estimate.value if kind == "level-lower" else -abs(estimate.value))
        decides = shown if room > 0 else sure
        inner_low, inner_high = estimate.interval(shown)
        inside = inner_low > -tolerance and (kind == "level-lower" or inner_high < tolerance)
        outside = high < -tolerance or (kind == "level-both" and low > tolerance)
        word = PASS if inside else FAIL if outside else NOT_RUN
    why = note if word != NOT_RUN else questions_needed(estimate, found.questions, decides, abs(room))
    return measured(what, word, estimate, EXPECTED[kind].format(tolerance), level=shown, reason=why)


def values(test: Values, claim: Claim, evidence: Evidence) -> list[Line]:
    """Judge every cited score against ours: within the tolerance, or off by more than it beyond our interval."""
    book, lines = evidence.book, []
    rows = book.rows[book.rows["paper"] == claim.paper]
    of_row = {(r["table"], r["row"]): r["experiment"] for r in rows.to_dict("records")}
    for place in claim.cites:
        for cell in cited(book.published, claim.paper, place).to_dict("records"):
            column = str(cell["column"])
            if column not in book.benchmarks.index:
                continue
            name = of_row.get((cell["table"], cell["row"]), "")
            ours = book.cells.get((name, column))
            divisor = float(book.benchmarks["divisor"][column])
            lines.append(_valued(f"{cell['row']}, {column}", float(cell["value"]), ours, divisor, test.tolerance))
    if not lines:
        raise NotRun("no cited column is a benchmark that is scored here")
    return lines


def _valued(what: str, printed: float, ours: Cell | None, divisor: float, tolerance: float) -> Line:
    expected = f"{printed:g} ± {tolerance * divisor:g}"
    if ours is None:
        return missing(what, expected, "not run at this scale")
    gap = Estimate(
        (ours.value - printed) / divisor, ours.estimate.questions / divisor, ours.estimate.spread / divisor, ours.seeds
    )
    low, high = gap.interval()
    off = low > tolerance or high < -tolerance
    word = PASS if abs(gap.value) <= tolerance else FAIL if off else NOT_RUN
    reason = "" if word != NOT_RUN else "off by more than the tolerance, but our interval still reaches it"
    half = ours.noise
    text = f"{ours.value:.1f} ± {half:.1f} (95%; {gap.covers})"
    return Line(what, word, text, expected, reason, ours.value, ours.value - half, ours.value + half)


def pooled(parts: Sequence[Estimate]) -> Estimate:
    """Return the mean of independent estimates of one seed."""
    return Estimate(
        sum(part.value for part in parts) / len(parts), math.sqrt(sum(part.se**2 for part in parts)) / len(parts)
    )

"""Tests of recomputed numbers, counted costs and measured times."""

from __future__ import annotations

import math

from visiontokens.analyze.recount import DIFFERS
from visiontokens.verify.claims import Claim
from visiontokens.verify.evidence import Evidence, NotRun
from visiontokens.verify.kinds import Ratio, Recompute, Time
from visiontokens.verify.verdict import ABSENT, FAIL, NOT_RUN, PASS, UNDECIDED, Line, missing


def recompute(test: Recompute, claim: Claim, evidence: Evidence) -> list[Line]:
    """Judge every printed number against what follows from the papers' own definitions, arithmetic shown."""
    table = evidence.errata
    chosen = table[
        (table["paper"] == claim.paper)
        & (table["table"].isin(test.tables) if test.tables else True)
        & table["quantity"].isin(test.quantities)
        & (table["row"].isin(test.rows) if test.rows else True)
    ]
    if chosen.empty:
        raise NotRun(
            f"nothing recomputed for tables {', '.join(test.tables) or 'of any number'}, {', '.join(test.quantities)}"
        )
    return [
        Line(
            what=f"table {line['table']}, {line['row']}, {line['quantity']}",
            verdict=FAIL if line["verdict"] == DIFFERS else PASS,
            found=_shown(line["recomputed"]),
            expected=f"{_shown(line['printed'])} (printed)",
            reason=f"{line['arithmetic']}" + (f" ({line['note']})" if line["note"] else ""),
            value=float(line["recomputed"]),
        )
        for line in chosen.to_dict("records")
    ]


def ratio(test: Ratio, claim: Claim, evidence: Evidence) -> list[Line]:
    """Judge a counted cost as a share of another row's; counts have no interval."""
    lines = []
    for first, second in test.pairs:
        what = f"{test.quantity}: {evidence.label(first)} / {evidence.label(second)}"
        expected = f"{test.expected:g} ± {test.tolerance:g}"
        ours, theirs = (evidence.book.cost(name, test.quantity) for name in (first, second))
        if math.isnan(ours) or math.isnan(theirs) or not theirs:
            lines.append(missing(what, expected, _absent(evidence, test.quantity, (first, second))))
            continue
        share = ours / theirs
        word = PASS if abs(share - test.expected) <= test.tolerance else FAIL
        lines.append(Line(what, word, f"{share:.3f} ({_shown(ours)} / {_shown(theirs)})", expected, value=share))
    return lines


def time(test: Time, claim: Claim, evidence: Evidence) -> list[Line]:
    """Judge a saving of time in percent; inside what timings vary by there is no verdict."""
    lines = []
    for first, second in test.pairs:
        what = f"{test.quantity} time saved: {evidence.label(first)} against {evidence.label(second)}"
        expected = f"at least {test.at_least:g}% (timings vary by {test.tolerance:g}%)"
        ours, theirs = (_seconds(evidence, name, test.quantity) for name in (first, second))
        if math.isnan(ours) or math.isnan(theirs):
            lines.append(missing(what, expected, _absent(evidence, test.quantity, (first, second))))
            continue
        saved = 100 * (1 - ours / theirs)
        word = NOT_RUN
        if saved >= test.at_least + test.tolerance:
            word = PASS
        elif saved < test.at_least - test.tolerance:
            word = FAIL
        reason = "" if word != NOT_RUN else f"{UNDECIDED}: within what timings vary by"
        found = f"{saved:.1f}% ({ours:.3g} against {theirs:.3g} s)"
        lines.append(Line(what, word, found, expected, reason, saved))
    return lines


def _absent(evidence: Evidence, quantity: str, names: tuple[str, str]) -> str:
    """Say which of two rows has no such number."""
    if quantity in {"train", "prefill"}:
        return ABSENT + ", ".join(name for name in names if math.isnan(_seconds(evidence, name, quantity)))
    return ABSENT + ", ".join(name for name in names if math.isnan(evidence.book.cost(name, quantity)))


def _seconds(evidence: Evidence, name: str, quantity: str) -> float:
    """Return seconds of the tune stage (mean over seeds) or of one measured prefill."""
    if quantity == "train":
        return evidence.book.training_seconds(name)
    return evidence.book.cost(name, "prefill_ms") / 1000


def _shown(value: float) -> str:
    """Return six digits, or a whole number where six are not enough for it."""
    return f"{value:,.0f}" if abs(value) >= 1e6 else f"{value:,.6g}"

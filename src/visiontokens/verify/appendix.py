"""The table of claims in the artifact appendix, written from `config/claims.yaml` and the published numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from visiontokens.analyze.reference import REFERENCE, reference
from visiontokens.provenance import atomic_write
from visiontokens.report.methods import with_blocks
from visiontokens.report.write import Table, markdown
from visiontokens.verify.claims import CLAIMS, PAPERS, Claim, Claims, Run, load_claims
from visiontokens.verify.kinds import AnyTest
from visiontokens.verify.ledger import shown

OPENING = "<!-- {}:start -->"
BLOCK = "claims"
ANALYTIC = "`make verify SCALE=smoke`, 3 min, two CPU cores"


def update_claims(page: Path, path: Path = CLAIMS, folder: Path = REFERENCE) -> Path:
    """Replace the generated part of the page.

    Raises:
        ValueError: the markers are missing.
    """
    text = with_claims(page.read_text(encoding="utf-8"), page, path, folder)
    with atomic_write(page) as handle:
        handle.write(text)
    return page


def with_claims(text: str, page: Path, path: Path = CLAIMS, folder: Path = REFERENCE) -> str:
    """Return the page's text with the table of claims of today."""
    claims, published = load_claims(path, folder), reference(folder=folder)
    return with_blocks(text, {BLOCK: _body(claims, published)}, page, OPENING)


def _body(claims: Claims, published: pd.DataFrame) -> str:
    lines = [_line(claim, claims, published) for claim in claims.claims]
    caption = (
        "Each row: the claim, where it stands, the published cells that tell most, what the test of the cheapest scale "
        "asks for, and the command for every scale that has a test. Tolerances are in points of 100 unless they are "
        "counts or percent; their reasons are in `config/claims.yaml` and on the page of the ledger."
    )
    runs = [
        {"Command": f"`{run.command}`", "Evidence": run.level, "Time": run.time, "Hardware": run.hardware}
        for run in claims.runs.values()
    ]
    scales = "What each command takes; `mini` stands for directions and orders in a small world."
    return f"{markdown(Table(pd.DataFrame(lines), caption))}\n{markdown(Table(pd.DataFrame(runs), scales))}".strip()


def _line(claim: Claim, claims: Claims, published: pd.DataFrame) -> dict[str, str]:
    first = claim.tests[0] if claim.tests else None
    return {
        "": claim.id,
        "Claim": claim.statement,
        "In": f"{PAPERS[claim.paper]}, {claim.where}",
        "Published": shown(claim, published) or "–",
        "Expected": f"{first.says} ({first.asks})".strip() if first else f"not tested: {claim.untested}",
        "Command": "; ".join(_command(test, claims) for test in claim.tests) or "–",
    }


def _command(test: AnyTest, claims: Claims) -> str:
    """Return the cheapest command of every level that a test is for."""
    if not test.scales:
        return ANALYTIC
    cheapest: dict[str, Run] = {}
    for name in test.scales:
        cheapest.setdefault(claims.runs[name].level, claims.runs[name])
    return "; ".join(f"`{run.command}` ({run.time}, {run.hardware})" for run in cheapest.values())

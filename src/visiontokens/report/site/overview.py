"""The first page: headline numbers, verdicts on the papers' claims, the summary table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from visiontokens.provenance import read_json
from visiontokens.report.book import AVERAGE, Book
from visiontokens.report.field import BASELINE
from visiontokens.report.numbers import metrics, relative
from visiontokens.report.site.grid import Facet, Grid, grid_of
from visiontokens.report.summaries import summary
from visiontokens.report.write import NOT_PRINTED, Table

HEADLINES = ("stf-mbtf", "volta-four-wider-deeper", "vcc-2-8")
"""Rows in the papers' abstracts: LLaVA-STF's model, LLaVolta's staged training, constant compression."""
VERDICTS = ("PASS", "FAIL", "NOT RUN")
LEDGER = Path("verify/ledger.json")
"""Where the verdicts lie, below the results of a scale."""
CLAIM_KEYS = ("id", "paper", "where", "statement", "tested_as", "published", "verdict", "found")


@dataclass(frozen=True)
class Headline:
    """One row's share of the baseline: of the score, the tokens and the FLOPs, in percent ("" where not known)."""

    label: str
    score: str
    tokens: str
    flops: str
    detail: str


def headlines(book: Book) -> list[Headline]:
    """Return the headline rows that ran."""
    found = metrics(book)
    shares = relative(found, BASELINE)
    lines = []
    for name in HEADLINES:
        if AVERAGE not in shares.get(name, {}):
            continue
        share, own, base = shares[name], found[name], found[BASELINE]
        detail = (
            f"average {own[AVERAGE]:.1f} ±{own[f'{AVERAGE}_ci']:.1f}, "
            f"all tokens {base[AVERAGE]:.1f} ±{base[f'{AVERAGE}_ci']:.1f}"
        )
        score, tokens, flops = (_percent(share.get(key)) for key in (AVERAGE, "tokens_mean", "prefill_flops"))
        lines.append(Headline(book.label(name), score, tokens, flops, detail))
    return lines


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} %"


def summary_grid(book: Book) -> Grid:
    """Return the summary table, sortable."""
    return grid_of(average_first(summary(book)), "summary", text=("Method",))


def average_first(table: Table) -> Table:
    """Return the summary table with its average, the last column, before the benchmarks: a narrow page ends early."""
    columns = list(table.frame.columns)
    return replace(table, frame=table.frame[[*columns[:2], columns[-1], *columns[2:-1]]])


def ledger(results: Path) -> list[dict[str, Any]]:
    """Return the verdicts that `verify` wrote; none where it has not run.

    Raises:
        ValueError: the file holds no list of claims, or a claim lacks a key.
    """
    path = results / LEDGER
    if not path.is_file():
        return []
    content = read_json(path)
    claims = content.get("claims") if isinstance(content, dict) else None
    if not isinstance(claims, list):
        raise ValueError(f"{path}: found no list of claims, expected one under the key 'claims'")
    for i, claim in enumerate(claims):
        missing = [key for key in CLAIM_KEYS if key not in claim]
        if missing or claim["verdict"] not in VERDICTS:
            raise ValueError(
                f"{path}: claim {i + 1}: found keys {sorted(claim)} and verdict {claim.get('verdict')!r}, "
                f"expected {', '.join(CLAIM_KEYS)} and a verdict of {', '.join(VERDICTS)}"
            )
    return claims


def ledger_grid(claims: list[dict[str, Any]]) -> Grid | None:
    """Return the verdicts as a table that is filtered by verdict and paper."""
    if not claims:
        return None
    lines = [
        {
            "Claim": str(claim["id"]),
            "Verdict": str(claim["verdict"]),
            "Where": f"{claim['paper']}, {claim['where']}",
            "What is tested": str(claim["tested_as"] or claim["statement"]),
            "Published": str(claim["published"]) or NOT_PRINTED,
            "Found": str(claim["found"]) or NOT_PRINTED,
        }
        for claim in claims
    ]
    papers = tuple(dict.fromkeys(str(claim["paper"]) for claim in claims))
    facets = {
        "verdict": (Facet("Verdict", VERDICTS), lambda i: str(claims[i]["verdict"])),
        "paper": (Facet("Paper", papers), lambda i: str(claims[i]["paper"])),
    }
    caption = (
        "Claims of both papers and what this scale's results say of each. A FAIL of a recomputed number is a slip in "
        "print; one of a comparison says that this scale's models order otherwise. Commands are in the data file."
    )
    return grid_of(Table(pd.DataFrame(lines), caption), "verdicts", text=tuple(lines[0]), facets=facets)


def counts(claims: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many claims have each verdict."""
    return {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in VERDICTS}

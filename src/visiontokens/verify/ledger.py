"""The ledger: verdicts as JSON, CSV, Markdown, a page, and a table for the terminal."""

from __future__ import annotations

import csv
import json
import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from tabulate import tabulate

from visiontokens.config import Config
from visiontokens.provenance import atomic_write, write_json
from visiontokens.report.summaries import errata_table
from visiontokens.report.write import Table, markdown
from visiontokens.verify.claims import PAPERS, Claim, Claims, cited, load_claims
from visiontokens.verify.claims import Cites as Place
from visiontokens.verify.evidence import Evidence
from visiontokens.verify.judge import Verdict, judge
from visiontokens.verify.verdict import FAIL, NOT_RUN, PASS, Line

FILES = ("ledger.json", "ledger.csv", "ledger.md", "ledger.txt", "ledger.html", "metrics.json")
TEMPLATE = Path(__file__).with_name("ledger.html.jinja")
WORDING = (
    "PASS: the test of the claim holds at this scale. FAIL: it does not, beyond noise. NOT RUN: no rows, no test, or "
    "too few questions to decide; the reason says which. At the mini scales tests are about directions and orders in "
    "a small generated world, not about the papers' numbers; recomputed numbers need no results and hold at any scale. "
    "A FAIL of a recomputed number is a slip in print. With one seed an interval covers question sampling only: "
    "another training may differ by more."
)


@dataclass(frozen=True)
class Ledger:
    """All verdicts of one scale."""

    scale: str
    claims: Claims
    verdicts: Sequence[Verdict]
    published: pd.DataFrame
    errata: pd.DataFrame

    @classmethod
    def of(cls, config: Config) -> Ledger:
        """Judge every claim by the results of a configuration's scale."""
        folder = config.experiments.table.parent
        claims = load_claims(folder / "claims.yaml")
        evidence = Evidence.load(config.results_dir, folder)
        verdicts = judge(claims, config.scale, evidence)
        return cls(config.scale, claims, verdicts, evidence.book.published, evidence.errata)

    @property
    def counts(self) -> dict[str, int]:
        """Number of claims by verdict, all three words."""
        found = Counter(verdict.verdict for verdict in self.verdicts)
        return {word: found[word] for word in (PASS, FAIL, NOT_RUN)}

    @property
    def headline(self) -> str:
        """The counts in a sentence."""
        counted = ", ".join(f"{count} {word}" for word, count in self.counts.items())
        return f"{len(self.verdicts)} claims at scale {self.scale}: {counted}."

    def write(self, out: Path) -> list[Path]:
        """Write `FILES` into `out` and return their paths."""
        rows = [self.row(verdict) for verdict in self.verdicts]
        counts = self.counts
        errata = json.loads(self.errata.to_json(orient="records"))
        write_json(out / "ledger.json", {"scale": self.scale, "counts": counts, "claims": rows, "errata": errata})
        write_json(out / "metrics.json", {"verdicts": counts})
        with atomic_write(out / "ledger.csv") as handle:
            _csv(handle, rows)
        with atomic_write(out / "ledger.md") as handle:
            handle.write(self._markdown())
        with atomic_write(out / "ledger.txt") as handle:
            handle.write(self.terminal())
        with atomic_write(out / "ledger.html") as handle:
            handle.write(self._html(rows))
        return [out / name for name in FILES]

    def row(self, verdict: Verdict) -> dict[str, Any]:
        """Return a verdict as plain values, `lines` with every number."""
        claim, test = verdict.claim, verdict.test
        run = self.claims.runs.get(test.scales[0]) if test is not None and test.scales else None
        return {
            "id": claim.id,
            "paper": PAPERS[claim.paper],
            "where": claim.where,
            "statement": claim.statement,
            "tested_as": test.says if test is not None else "",
            "published": shown(claim, self.published),
            "verdict": verdict.verdict,
            "found": summary_of(verdict),
            "reason": verdict.reason,
            "test": test.kind if test is not None else "",
            "asks": test.asks if test is not None else "",
            "tolerance": getattr(test, "tolerance", None),
            "tolerance_reason": test.because if test is not None else "",
            "command": run.command if run else "make verify" if test is not None else "",
            "note": claim.note,
            "lines": [_plain(line) for line in verdict.lines],
        }

    def table(self) -> Table:
        """Return one line per claim."""
        lines = [
            {
                "Claim": verdict.claim.id,
                "Paper": PAPERS[verdict.claim.paper],
                "Where": verdict.claim.where,
                "Says": verdict.test.says if verdict.test and verdict.test.says else verdict.claim.statement,
                "Verdict": verdict.verdict,
                "Found": summary_of(verdict),
            }
            for verdict in self.verdicts
        ]
        return Table(pd.DataFrame(lines), f"{self.headline} {WORDING}")

    def _markdown(self) -> str:
        lines = [line for verdict in self.verdicts for line in _detail(verdict)]
        detail = Table(pd.DataFrame(lines), "Every comparison and number behind the verdicts.")
        recomputed = errata_table(self.errata, only_differences=False)
        parts = (
            f"# Claims at scale {self.scale}",
            markdown(self.table()),
            "## Numbers",
            markdown(detail),
            "## Errata: printed values recomputed",
            markdown(recomputed),
        )
        return "\n\n".join(part.strip() for part in parts) + "\n"

    def _html(self, rows: list[dict[str, Any]]) -> str:
        environment = jinja2.Environment(
            autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
        recomputed = errata_table(self.errata, only_differences=False)
        return template.render(
            scale=self.scale,
            headline=self.headline,
            wording=WORDING,
            counts=self.counts,
            rows=rows,
            errata={"columns": list(recomputed.frame.columns), "body": recomputed.frame.to_numpy().tolist(),
                    "caption": recomputed.caption},
        )  # fmt: skip

    def terminal(self, width: int = 150) -> str:
        """Return the table for a terminal of that many columns."""
        room = max(24, (width - 36) // 2)
        body = [
            [line["Claim"], line["Verdict"], line["Where"][:20], textwrap.fill(line["Says"], room),
             textwrap.fill(textwrap.shorten(line["Found"], 4 * room, placeholder=" …"), room)]
            for line in self.table().frame.to_dict("records")
        ]  # fmt: skip
        heads = ["", "Verdict", "Where", "Says", "Found"]
        text = tabulate(body, headers=heads, tablefmt="simple", disable_numparse=True)
        return f"{text}\n\n{textwrap.fill(self.headline + ' ' + WORDING, width)}\n"


def summary_of(verdict: Verdict) -> str:
    """Return what was found in one cell: the reason of what is not PASS, or the numbers of the first lines."""
    if verdict.verdict == NOT_RUN and not any(line.verdict != NOT_RUN for line in verdict.lines):
        numbers = [line for line in verdict.lines if not math.isnan(line.value)]
        return "; ".join([verdict.reason, *(f"{line.what}: {line.found}" for line in numbers[:2])])
    telling = [line for line in verdict.lines if line.verdict == verdict.verdict] or list(verdict.lines)
    text = "; ".join(f"{line.what}: {line.found}, expected {line.expected}" for line in telling[:2])
    more = len(telling) - 2
    return text + (f"; and {more} more" if more > 0 else "") + (f". {verdict.reason}" if verdict.reason else "")


def shown(claim: Claim, published: pd.DataFrame) -> str:
    """Return the published cells that tell most, with their units."""
    parts = []
    for table, row, column in claim.shows:
        line = cited(published, claim.paper, Place(table=table, rows=(row,), columns=(column,))).iloc[0]
        parts.append(f"{row}, {column}: {line['value_text']}")
    return "; ".join(parts)


def _plain(line: Line) -> dict[str, Any]:
    numbers = {name: None if math.isnan(value := getattr(line, name)) else value for name in ("value", "low", "high")}
    words = {name: getattr(line, name) for name in ("what", "verdict", "found", "expected", "reason")}
    return words | numbers


def _detail(verdict: Verdict) -> list[dict[str, str]]:
    return [
        {
            "Claim": verdict.claim.id,
            "What": line.what,
            "Verdict": line.verdict,
            "Found": line.found,
            "Expected": line.expected,
            "Arithmetic or reason": line.reason,
        }
        for line in verdict.lines
    ]


def _csv(handle: Any, rows: list[dict[str, Any]]) -> None:
    """Write one line per comparison, claims without any included."""
    own = ["id", "paper", "where", "statement", "verdict", "reason", "test", "tolerance", "command"]
    parts = ["what", "verdict", "found", "expected", "reason", "value", "low", "high"]
    writer = csv.writer(handle, lineterminator="\n")
    writer.writerow([*own, *(f"line_{name}" for name in parts)])
    for row in rows:
        for line in row["lines"] or [dict.fromkeys(parts, "")]:
            writer.writerow([*(row[name] for name in own), *(line[name] for name in parts)])

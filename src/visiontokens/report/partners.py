"""Every row against average pooling at the same budget, question by question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from visiontokens.analyze.paired import against, mean_over
from visiontokens.analyze.significance import holm
from visiontokens.analyze.stats import Z95
from visiontokens.report.book import Book
from visiontokens.report.field import BASELINE, Kind

LEVEL = 0.05
POOLS, TOO_FAR, UNTESTED = "is pooling", "no partner", "not run"


@dataclass(frozen=True)
class Verdict:
    """A row's average score against that of its partner.

    Attributes:
        partner: experiment of the partner; empty where there is none.
        difference: row minus partner, mean over the benchmarks (MME / 20).
        se: its standard error, from questions and, for several seeds, from the spread of the seeds' differences.
        half: half its 95% interval.
        p_value: two-sided, of a t test; `adjusted` after Holm over all rows that have a partner.
        adjusted: see `p_value`.
        text: `better`, `worse`, `level`, or why there is no verdict.
        detectable: true difference that the test finds four times in five.
    """

    partner: str = ""
    difference: float = math.nan
    se: float = math.nan
    half: float = math.nan
    p_value: float = math.nan
    adjusted: float = math.nan
    text: str = TOO_FAR
    detectable: float = math.nan


def partner_of(name: str, known: Mapping[str, Kind], tokens: Mapping[str, float], tolerance: float) -> str:
    """Return the pooling row of the nearest budget, trained if the row is, else test-only; empty if none is near.

    Args:
        name: the row.
        known: kinds of all rows.
        tokens: their mean vision tokens per layer.
        tolerance: largest difference of the budgets, as a share of the row's.
    """
    kind, budget = known[name], tokens[name]
    near = [
        (abs(tokens[other] - budget), other)
        for other, candidate in known.items()
        if candidate.pooling and candidate.trained == kind.trained and other != name
        if abs(tokens[other] - budget) <= tolerance * budget
    ]
    return min(near, key=lambda pair: pair[0])[1] if near else ""


def verdicts(
    book: Book, results: Path, known: Mapping[str, Kind], tolerance: float, resamples: int = 1000
) -> dict[str, Verdict]:
    """Return the verdict of every row that is neither the baseline nor pooling itself."""
    tokens = {name: book.cost(name, "tokens_mean") for name in known}
    found: dict[str, Verdict] = {}
    for name, kind in known.items():
        if name == BASELINE or kind.pooling:
            found[name] = Verdict(text=POOLS if kind.pooling else "")
            continue
        partner = partner_of(name, known, tokens, tolerance)
        found[name] = _tested(book, results, name, partner, resamples) if partner else Verdict()
    tested = [name for name, verdict in found.items() if not math.isnan(verdict.p_value)]
    for name, value in zip(tested, holm([found[name].p_value for name in tested]), strict=True):
        verdict = found[name]
        word = "level" if value >= LEVEL else "better" if verdict.difference > 0 else "worse"
        found[name] = Verdict(**{**vars(verdict), "adjusted": value, "text": word})
    return found


def _tested(book: Book, results: Path, name: str, partner: str, resamples: int) -> Verdict:
    """Compare two rows by the mean over the benchmarks, which hold different questions and are independent."""
    lines = against(results, partner, [name], resamples=resamples, settings=book.settings)
    if set(lines["benchmark"]) != set(book.scored_benchmarks) or lines["seeds"].nunique() > 1:
        return Verdict(partner, text=UNTESTED)
    found = mean_over(lines, book.benchmarks["divisor"])
    return Verdict(partner, found.value, found.se, found.half(), p_value=found.p_value, detectable=found.detectable)


def changes(book: Book, results: Path, experiments: Sequence[str], resamples: int = 1000) -> pd.DataFrame:
    """Return how far rows are from the baseline on every family of benchmarks, question by question.

    Columns: experiment, family (of `config/benchmarks.tsv`), difference (points of 100, mean over its benchmarks), half
    (of its 95% interval over questions).
    """
    lines = against(results, BASELINE, experiments, resamples=resamples, settings=book.settings)
    lines = lines.assign(
        family=lines["benchmark"].map(book.benchmarks["family"]), by=lines["benchmark"].map(book.benchmarks["divisor"])
    )
    found = []
    for (name, family), group in lines.groupby(["experiment", "family"], sort=False):
        spread = float(np.sqrt(((group["se"] / group["by"]) ** 2).sum()) / len(group))
        found.append((name, family, float((group["difference"] / group["by"]).mean()), Z95 * spread))
    return pd.DataFrame(found, columns=["experiment", "family", "difference", "half"])

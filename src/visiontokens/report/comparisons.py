"""The tables of paired comparisons: with the baseline, and with average pooling at the nearest budget."""

from __future__ import annotations

import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from visiontokens.analyze.paired import against, mean_over
from visiontokens.report.book import AVERAGE, Book
from visiontokens.report.field import kinds
from visiontokens.report.partners import partner_of
from visiontokens.report.tables import LABELS
from visiontokens.report.write import NOT_RUN, Table

LEVEL = 0.05
TESTS = (
    "*: significant at 5% after Holm's correction over the benchmarks of a row (one seed: exact McNemar test where "
    "every image has one question, else a permutation test that swaps whole images, exact where it can be counted; "
    "several seeds: t test over questions and seeds). With one seed the interval covers question sampling only. "
    "Detectable: true difference in Avg (MME / 20) that such a comparison finds with 80% power at 5%."
)
NO_PARTNER = "none near"


def paired(book: Book, results: str | Path, baseline: str = "none") -> Table:
    """Return experiment x benchmark: the difference to the baseline on the same questions, marked if significant."""
    names = [name for name in book.run if name != baseline]
    lines = against(Path(results), baseline, names, settings=book.settings)
    body = [{"Method": book.label(name)} | _cells(book, lines[lines["experiment"] == name]) for name in names]
    caption = (
        f"Difference to {book.label(baseline)} on the same questions, with half its 95% interval (bootstrap over "
        f"images or base questions). {TESTS}"
    )
    return Table(pd.DataFrame(body, columns=["Method", *_heads(book)]), caption)


def paired_pooling(
    book: Book, results: str | Path, config: str | Path = "config", tolerance: float = math.inf
) -> Table:
    """Return experiment x benchmark: the difference to average pooling on the same questions.

    Every row is compared with the pooling row of the nearest budget, trained if the row is, within `tolerance` (a share
    of the row's budget); the partner and both budgets are in the table.
    """
    known = kinds(book.run, Path(config))
    tokens = {name: book.cost(name, "tokens_mean") for name in known}
    body = []
    for name, kind in known.items():
        if name == book.baseline or kind.pooling:
            continue
        partner = partner_of(name, known, tokens, tolerance)
        lines = against(Path(results), partner, [name], settings=book.settings) if partner else pd.DataFrame()
        where = f"{book.label(partner)} ({tokens[partner]:.0f})" if partner else NO_PARTNER
        body.append({"Method": f"{book.label(name)} ({tokens[name]:.0f})", "Pooling": where} | _cells(book, lines))
    caption = (
        "Difference to average pooling on the same questions, with half its 95% interval: for every row the pooling "
        "row of the nearest budget, trained if the row is (in brackets: vision tokens of an average decoder layer). "
        f"Where the budgets differ much, the difference is also that of the budgets. {TESTS}"
    )
    return Table(pd.DataFrame(body, columns=["Method", "Pooling", *_heads(book)]), caption)


def _heads(book: Book) -> list[str]:
    heads = [str(book.benchmarks["label"].get(bench, bench)) for bench in book.scored_benchmarks]
    return [*heads, LABELS[AVERAGE], "Detectable"]


def _cells(book: Book, lines: pd.DataFrame) -> dict[str, str]:
    """Return a row's cells by heading."""
    found = {line["benchmark"]: line for line in lines.to_dict("records")}
    cells = [_cell(found.get(bench), 0 if bench == "mme" else 1) for bench in book.scored_benchmarks]
    if not found or set(found) != set(book.scored_benchmarks) or lines["seeds"].nunique() > 1:
        return dict(zip(_heads(book), [*cells, NOT_RUN, NOT_RUN], strict=True))
    mean = mean_over(lines, book.benchmarks["divisor"])
    whole = f"{mean.value:+.1f} ±{mean.half():.1f}"
    return dict(zip(_heads(book), [*cells, whole, f"{mean.detectable:.1f}"], strict=True))


def _cell(line: dict[Hashable, Any] | None, digits: int) -> str:
    if line is None:
        return NOT_RUN
    mark = "*" if line["adjusted"] < LEVEL else ""
    return f"{line['difference']:+.{digits}f} ±{(line['high'] - line['low']) / 2:.{digits}f}{mark}"

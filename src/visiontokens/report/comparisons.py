"""The table of paired comparisons with the baseline."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from visiontokens.analyze.paired import against
from visiontokens.report.book import Book
from visiontokens.report.write import NOT_RUN, Table

LEVEL = 0.05


def paired(book: Book, results: str | Path, baseline: str = "none") -> Table:
    """Return experiment x benchmark: the difference to the baseline on the same questions, marked if significant."""
    names = [name for name in book.run if name != baseline]
    lines = against(Path(results), baseline, names).to_dict("records")
    found = {(line["experiment"], line["benchmark"]): line for line in lines}
    heads = {bench: str(book.benchmarks["label"].get(bench, bench)) for bench in book.scored_benchmarks}
    table = [
        {"Method": book.label(name)}
        | {head: _cell(found.get((name, bench)), 0 if bench == "mme" else 1) for bench, head in heads.items()}
        for name in names
    ]
    caption = (
        f"Difference to {book.label(baseline)} on the same questions, with half its 95% interval (bootstrap over "
        "images or base questions). *: significant at 5% after Holm's correction over the benchmarks of a row (exact "
        "McNemar test where every image has one question, else a permutation test that swaps whole images)."
    )
    return Table(pd.DataFrame(table, columns=["Method", *heads.values()]), caption)


def _cell(line: dict[Hashable, Any] | None, digits: int) -> str:
    if line is None:
        return NOT_RUN
    mark = "*" if line["adjusted"] < LEVEL else ""
    return f"{line['difference']:+.{digits}f} ±{(line['high'] - line['low']) / 2:.{digits}f}{mark}"

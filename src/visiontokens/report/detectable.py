"""The smallest difference that a table's comparisons can see, as the last sentence of its caption."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from visiontokens.analyze.paired import mean_over
from visiontokens.report.book import AVERAGE, Book


def detectable(book: Book, names: Sequence[str], benchmarks: Sequence[str]) -> str:
    """Return the minimum detectable difference to the baseline in words (80% power, 5%), median over rows.

    It is that of the comparison question by question; where scores came without their questions, that of the rows'
    own intervals, which is larger. Empty where nothing can be compared.

    Args:
        book: numbers and results.
        names: the table's rows.
        benchmarks: its columns.
    """
    rows = [name for name in names if name in book.run and name != book.baseline]
    if not rows or not book.baseline or not benchmarks:
        return ""
    found = dict(_paired(book, rows, benchmarks))
    how = "on the same questions"
    if not found:
        found, how = dict(_unpaired(book, rows, benchmarks)), "from the rows' own intervals"
    if not found:
        return ""
    heads = {AVERAGE: "Avg", **book.benchmarks["label"].to_dict()}
    values = ", ".join(
        f"{heads.get(name, name)} {value:.{0 if name == 'mme' else 1}f}" for name, value in found.items()
    )
    seeds = sorted({book.cells[name, benchmarks[0]].seeds for name in rows if (name, benchmarks[0]) in book.cells})
    about = "questions and seeds" if seeds and seeds[0] > 1 else "questions only, one seed"
    return (
        f" Minimum detectable difference to {book.label(book.baseline)} {how} (80% power at 5%, median row; covers "
        f"{about}): {values}."
    )


def _paired(book: Book, rows: Sequence[str], benchmarks: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield (average or benchmark, median over rows), from the questions."""
    lines = book.contrasts
    lines = lines[lines["experiment"].isin(rows) & lines["benchmark"].isin(benchmarks)]
    whole = [
        mean_over(group, book.benchmarks["divisor"]).detectable
        for _, group in lines.groupby("experiment")
        if len(group) == len(benchmarks) and group["seeds"].nunique() == 1
    ]
    if whole:
        yield AVERAGE, statistics.median(whole)
    for name in benchmarks:
        here = lines[lines["benchmark"] == name]
        if len(here):
            yield name, float(here["detectable"].median())


def _unpaired(book: Book, rows: Sequence[str], benchmarks: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield (benchmark, median over rows), from two independent intervals."""
    for name in benchmarks:
        base = book.cells.get((book.baseline, name))
        others = [cell for row in rows if (cell := book.cells.get((row, name)))]
        if base is None or not others:
            continue
        # A cell's detectable difference to a known number; to another noisy row the two add up in squares.
        pairs = [math.hypot(base.estimate.detectable, cell.estimate.detectable) for cell in others]
        yield name, statistics.median(pairs)

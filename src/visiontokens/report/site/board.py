"""The leaderboard page: every row that ran, sortable, filtered by weights, question and budget."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pandas as pd

from visiontokens.report.book import AVERAGE, Book
from visiontokens.report.field import kinds
from visiontokens.report.leaderboard import PART
from visiontokens.report.site.grid import Facet, Grid, grid_of, sort_key
from visiontokens.report.site.overview import average_first
from visiontokens.report.summaries import summary
from visiontokens.report.write import Table

BUDGETS = ("36", "72", "144", "288")
"""Choices of the budget filter, in tokens of an average layer."""
WEIGHTS, QUESTION = "Weights", "Sees the question"
BUDGET = Facet("Tokens at most", BUDGETS, most=True)
WEIGHTS_FACET = Facet(WEIGHTS, ("trained", "training-free"))
QUESTION_FACET = Facet(QUESTION, ("yes", "no"))
SCREEN = ("Tokens by layer", "Pooling partner", "Paper")
"""Columns of words in the table of the target `leaderboard`."""


def run_grid(book: Book, config: Path, pages: dict[str, str]) -> Grid:
    """Return this run's rows with their kinds, costs and scores.

    Args:
        book: the results.
        config: folder of the tables and method files.
        pages: method file -> page of the method, relative to the leaderboard's.
    """
    table = average_first(summary(book))
    known = kinds(book.run, config)
    chosen = [(i, known[name]) for i, name in enumerate(book.run) if name in known]
    frame = table.frame.iloc[[i for i, _ in chosen]].reset_index(drop=True)
    frame.insert(1, WEIGHTS, ["trained" if kind.trained else "training-free" for _, kind in chosen])
    frame.insert(2, QUESTION, ["yes" if kind.query_aware else "no" for _, kind in chosen])
    place = {old: new for new, (old, _) in enumerate(chosen)}
    bold = frozenset((place[i], column) for i, column in table.bold if i in place)
    tokens = [book.cost(kind.experiment, "tokens_mean") for _, kind in chosen]
    facets = {
        "weights": (WEIGHTS_FACET, lambda i: str(frame[WEIGHTS][i])),
        "question": (QUESTION_FACET, lambda i: str(frame[QUESTION][i])),
        "budget": (BUDGET, lambda i: "" if math.isnan(tokens[i]) else f"{tokens[i]:g}"),
    }
    return grid_of(
        Table(frame, table.caption, bold),
        "rows",
        text=("Method",),
        links=lambda i, column: pages.get(chosen[i][1].method, "") if column == "Method" else "",
        facets=facets,
    )


def field_grid(results: Path) -> Grid | None:
    """Return the table of the target `leaderboard`; None where it has not run."""
    path = results / PART / "tables" / "leaderboard.csv"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as handle:
        head, *body = list(csv.reader(handle))
    frame = pd.DataFrame(body, columns=head, dtype=str)
    facets = {
        "weights": (WEIGHTS_FACET, lambda i: str(frame[WEIGHTS][i])),
        "question": (QUESTION_FACET, lambda i: str(frame[QUESTION][i])),
        "budget": (BUDGET, lambda i: sort_key(str(frame["Tokens"][i]))),
    }
    notes = path.with_suffix(".md")
    caption = notes.read_text(encoding="utf-8").strip().rsplit("\n", 1)[-1] if notes.is_file() else ""
    words = ("Method", "Verdict", *SCREEN)
    return grid_of(Table(frame, caption), "field", text=words, facets=facets)


def best(book: Book) -> str:
    """Return the row with the highest average and its interval, in words; "" without scores."""
    cells = {name: cell for name in book.run if (cell := book.cells.get((name, AVERAGE)))}
    if not cells:
        return ""
    top = max(cells, key=lambda name: cells[name].value)
    return f"{book.label(top)}: {cells[top].value:.1f} ±{cells[top].noise:.1f}"

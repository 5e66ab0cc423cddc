"""Tables that a reader sorts and filters: cells with a key to sort by, rows with facets to filter by."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from visiontokens.report.write import NOT_PRINTED, NOT_RUN, Table

_NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_PREFIX = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}


@dataclass(frozen=True)
class Cell:
    """A cell: what it says, what it is sorted by (a number as text, or ""), whether it stands out, where it leads."""

    text: str
    key: str = ""
    strong: bool = False
    href: str = ""


@dataclass(frozen=True)
class Facet:
    """A way to filter: its label and choices; `most` means that a row passes whose value is at most the chosen one."""

    label: str
    choices: tuple[str, ...]
    most: bool = False


@dataclass(frozen=True)
class Grid:
    """A table for a page.

    Attributes:
        id: of the element, unique on the page.
        columns: headings.
        rows: cells.
        facets: filters.
        values: of every row, its value for each facet.
        caption: what the table says.
        text: columns that hold words (aligned left, wrapped).
    """

    id: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    facets: tuple[Facet, ...] = ()
    values: tuple[tuple[str, ...], ...] = ()
    text: frozenset[str] = field(default_factory=frozenset)


def sort_key(text: str) -> str:
    """Return the first number of a cell's text, with its metric prefix applied, or "" where it begins with none."""
    text = text.strip()
    if text in {NOT_RUN, NOT_PRINTED, ""}:
        return ""
    found = _NUMBER.match(text)
    if not found:
        return ""
    value = float(found[0].replace(",", "").replace("−", "-"))
    after = text[found.end() :].lstrip()[:2]
    unit = after[:1] if len(after) < 2 or not after[1].isalpha() else ""
    return f"{value * _PREFIX.get(unit, 1.0):g}"


def grid_of(
    table: Table,
    name: str,
    *,
    text: Sequence[str] = (),
    links: Callable[[int, str], str] | None = None,
    facets: Mapping[str, tuple[Facet, Callable[[int], str]]] | None = None,
) -> Grid:
    """Return a finished table as a grid.

    Args:
        table: its cells are texts.
        name: id of the element.
        text: columns of words.
        links: row number and column -> where the cell leads, "" for nowhere.
        facets: by any name, a filter and the value of every row number.
    """
    columns = tuple(str(column) for column in table.frame.columns)
    texts = table.frame.astype(str).to_numpy().tolist()
    rows = []
    for i, line in enumerate(texts):
        cells = (
            Cell(
                value,
                "" if column in text else sort_key(value),
                (i, column) in table.bold,
                links(i, column) if links else "",
            )
            for column, value in zip(columns, line, strict=True)
        )
        rows.append(tuple(cells))
    chosen = list((facets or {}).values())
    values = tuple(tuple(value(i) for _, value in chosen) for i in range(len(rows)))
    return Grid(name, columns, tuple(rows), table.caption, tuple(facet for facet, _ in chosen), values, frozenset(text))

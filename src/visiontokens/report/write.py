"""A table of strings as CSV, Markdown and booktabs LaTeX."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from visiontokens.provenance import atomic_write

NOT_RUN = "not run"
NOT_PRINTED = "–"
WIDE = 14
"""Tables with more columns span both columns of a page and are shrunk to it in LaTeX."""
LONG = 24
"""Characters above which a cell is no number."""
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "×": r"$\times$", "→": r"$\to$",
    "≤": r"$\le$", "≥": r"$\ge$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A finished table: its cells as text, what it says, and which cells stand out beyond noise.

    Attributes:
        frame: cells; the columns are the headings.
        caption: one or two sentences.
        bold: (row number, column name) of cells in bold.
        rules: row numbers before which a thin rule is drawn.
    """

    frame: pd.DataFrame
    caption: str
    bold: frozenset[tuple[int, str]] = field(default_factory=frozenset)
    rules: frozenset[int] = field(default_factory=frozenset)

    def _repr_markdown_(self) -> str:
        """Show the table in a notebook."""
        return markdown(self)


def number(value: float | None, digits: int = 1) -> str:
    """Return a number with fixed digits, or "not run" where there is none."""
    return NOT_RUN if value is None or math.isnan(value) else f"{value:.{digits}f}"


def integer(value: float | None) -> str:
    """Return a rounded number with thin groups of three, or "not run"."""
    return NOT_RUN if value is None or math.isnan(value) else f"{value:,.0f}"


def with_spread(value: float, spread: float, digits: int = 1) -> str:
    """Return `54.3 ±1.9`, or the value alone where no spread is known."""
    return number(value, digits) if math.isnan(spread) else f"{value:.{digits}f} ±{spread:.{digits}f}"


def si(value: float | None) -> str:
    """Return three significant digits and a metric prefix: `8.26 T`, `2.91 G`, or "not run"."""
    if value is None or math.isnan(value):
        return NOT_RUN
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:.3g} {prefix}"
    return f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Return seconds as `45 s`, `12.3 min` or `15.3 h`, or "not run"."""
    if seconds is None or math.isnan(seconds):
        return NOT_RUN
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def escape_tex(text: str) -> str:
    """Return text with LaTeX's special characters escaped."""
    return "".join(_TEX.get(character, character) for character in text)


def markdown(table: Table) -> str:
    """Return a GitHub-flavoured Markdown table with its caption below."""

    def line(cells: Iterable[str]) -> str:
        """Return one row in Markdown."""
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    heads = [str(name) for name in table.frame.columns]
    aligned = [":--" if _is_text(table.frame[name]) else "--:" for name in table.frame.columns]
    body = [line(_styled(table, i, "**{}**", str)) for i in range(len(table.frame))]
    return "\n".join([line(heads), line(aligned), *body, "", table.caption, ""])


def latex(table: Table) -> str:
    """Return a booktabs `table` environment (needs `\\usepackage{booktabs}`; wide ones also `graphicx`)."""
    wide = len(table.frame.columns) > WIDE
    columns = "".join("l" if _is_text(table.frame[name]) else "r" for name in table.frame.columns)
    head = (
        [r"\begin{table*}", r"\centering", r"\resizebox{\textwidth}{!}{%"]
        if wide
        else [r"\begin{table}", r"\centering"]
    )
    lines = [*head, rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines.append(" & ".join(escape_tex(str(name)) for name in table.frame.columns) + r" \\")
    lines.append(r"\midrule")
    for i in range(len(table.frame)):
        if i in table.rules and i:
            lines.append(r"\midrule")
        lines.append(" & ".join(_styled(table, i, r"\textbf{{{}}}", escape_tex)) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}" + "}" * wide, rf"\caption{{{escape_tex(table.caption)}}}"]
    lines += [r"\end{table*}" if wide else r"\end{table}", ""]
    return "\n".join(lines)


def _styled(table: Table, row: int, bold: str, escape: Callable[[str], str]) -> list[str]:
    cells = [(name, escape(str(table.frame[name].iloc[row]))) for name in table.frame.columns]
    return [bold.format(text) if (row, str(name)) in table.bold else text for name, text in cells]


def _is_text(column: pd.Series) -> bool:
    """Tell whether a column holds words or formulas (then it is aligned left)."""
    filled = [str(value) for value in column if str(value) not in (NOT_RUN, NOT_PRINTED, "")]
    if any(len(value) > LONG for value in filled):
        return True
    return not filled or sum(value.lstrip("-+±")[:1].isdigit() for value in filled) * 2 < len(filled)


def write_table(table: Table, stem: Path) -> list[Path]:
    """Write `<stem>.csv`, `<stem>.md` and `<stem>.tex` and return the paths."""
    texts = {
        ".csv": table.frame.to_csv(index=False, lineterminator="\n"),
        ".md": markdown(table),
        ".tex": latex(table),
    }
    paths = []
    for suffix, text in texts.items():
        path = stem.with_name(stem.name + suffix)
        with atomic_write(path) as handle:
            handle.write(text)
        paths.append(path)
    return paths


def text_table(table: Table, title: str, width: int = 110) -> str:
    """Return a table for a terminal, with a title above and the caption, wrapped, below; a star stands for bold."""
    rows = [_styled(table, i, "{}*", str) for i in range(len(table.frame))]
    body = tabulate(rows, headers=list(table.frame.columns), tablefmt="simple", disable_numparse=True)
    caption = textwrap.fill(table.caption.replace("Bold:", "*:"), width)
    return f"{title}\n\n{body}\n\n{caption}\n"

"""Ablations as bars with intervals: one row per experiment, one panel per quantity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visiontokens.report.book import AVERAGE, Book, Cell
from visiontokens.report.field import BASELINE
from visiontokens.report.style import GREY, method_style, new_figure, not_run

Values = Mapping[str, Cell]


def ablation_bars(
    experiments: Sequence[str], panels: Mapping[str, Values], labels: Mapping[str, str], *, baseline: str = BASELINE
) -> Figure:
    """Draw horizontal bars from the top down, with 95% intervals and a line at the baseline.

    Args:
        experiments: rows, first on top; those without any value are named and left empty.
        panels: title -> experiment -> value.
        labels: experiment -> name.
        baseline: experiment whose value is drawn as a dashed line, if the panel has it.
    """
    if not any(name in values for values in panels.values() for name in experiments):
        return not_run(new_figure(height=2.4), "Ablation")
    figure = new_figure(height=0.75 + 0.27 * len(experiments))
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        _panel(axis, experiments, values, baseline)
        axis.set_title(title)
    axes[0].set_yticks(range(len(experiments)), [labels.get(name, name) for name in experiments])
    axes[0].invert_yaxis()
    return figure


def _panel(axis: Axes, experiments: Sequence[str], values: Values, baseline: str) -> None:
    highest = 0.0
    for position, name in enumerate(experiments):
        cell = values.get(name)
        if cell is None:
            axis.text(0, position, " not run", va="center", color=GREY, fontsize=7)
            continue
        style = method_style(name)
        tested = name.endswith("-test")
        error = cell.noise if cell.noise > 0 and not math.isnan(cell.noise) else None
        axis.barh(
            position, cell.value, xerr=error, height=0.66, color="white" if tested else style.color,
            edgecolor=style.color, hatch="////" if tested else None, linewidth=1,
            error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"},
        )  # fmt: skip
        text = f"{cell.value:.0f}" if cell.value >= 200 else f"{cell.value:.1f}"
        axis.annotate(
            text, (cell.value + (error or 0), position), (3, 0), textcoords="offset points", va="center",
            fontsize=7, bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
        )  # fmt: skip
        highest = max(highest, cell.value + (error or 0))
    if baseline in values:
        axis.axvline(values[baseline].value, color="black", linestyle=(0, (4, 3)), linewidth=1, zorder=2)
        highest = max(highest, values[baseline].value)
    axis.set_ylim(-0.6, len(experiments) - 0.4)
    axis.set_xlim(0, 1.18 * highest or 1)
    axis.grid(axis="y", visible=False)


def bars_of(book: Book, tables: Sequence[str]) -> Figure:
    """Draw the average, and the benchmarks of fine and coarse detail, for all rows of some published tables.

    Args:
        book: numbers and results.
        tables: names as in the experiment table, e.g. `["volta-3", "volta-7"]`.
    """
    claimed = [str(n) for n, named in book.experiments["tables"].items() if set(named) & set(tables)]
    rows = [name for name in claimed if name in book.run]
    panels: dict[str, Values] = {}
    for bench, title in ((AVERAGE, "Average"), ("textvqa", None), ("gqa", None), ("pope", None)):
        values = {name: book.cells[name, bench] for name in [*rows, BASELINE] if (name, bench) in book.cells}
        if values:
            panels[title or str(book.benchmarks["label"][bench])] = values
    labels = {name: book.label(name) for name in rows}
    figure = ablation_bars(rows, panels, labels)
    if rows and len(rows) < len(claimed):
        missing = len(claimed) - len(rows)
        figure.supxlabel(
            f"{missing} of these tables' {len(claimed)} rows are not run at this scale.", fontsize=8, color=GREY
        )
    return figure

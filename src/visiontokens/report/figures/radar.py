"""The radar of LLaVA-STF's Figure 1: one axis per benchmark, each with its own scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from visiontokens.report.book import Book
from visiontokens.report.style import GREY, MethodStyle, method_style, new_figure, shared_legend

INNER = 0.35
"""Radius of each axis' smallest value; the largest is at 1."""


def radar(panels: Mapping[str, pd.DataFrame], labels: Mapping[str, str], styles: Mapping[str, MethodStyle]) -> Figure:
    """Draw one radar per panel.

    Args:
        panels: title -> frame with one row per method (index = name in the legend) and one column per benchmark.
        labels: benchmark -> name at its axis.
        styles: method -> colour and marker.
    """
    figure = new_figure(height=3.9)
    for position, (title, frame) in enumerate(panels.items(), 1):
        axis = figure.add_subplot(1, len(panels), position, projection="polar")
        assert isinstance(axis, PolarAxes)
        axis.set_title(title, pad=18, loc="center")
        complete = frame.dropna(axis=1, how="any")
        if complete.empty:
            axis.set_axis_off()
            axis.text(0, 0, "not run at this scale", color=GREY, ha="center", transform=axis.transData)
            continue
        _panel(axis, complete, labels, styles)
    shared_legend(figure, 3)
    return figure


def _panel(axis: PolarAxes, frame: pd.DataFrame, labels: Mapping[str, str], styles: Mapping[str, MethodStyle]) -> None:
    names = list(frame.columns)
    angles = np.arange(len(names)) * 2 * math.pi / len(names)
    low, high = frame.min(), frame.max()
    span = (high - low).where(high > low, 1.0)
    for method, values in frame.iterrows():
        style = styles[str(method)]
        radius = INNER + (1 - INNER) * (values - low) / span
        closed = [*radius, radius.iloc[0]]
        axis.plot([*angles, angles[0]], closed, color=style.color, marker=style.marker, markersize=4, label=str(method))
        axis.fill([*angles, angles[0]], closed, color=style.color, alpha=0.06)
    axis.set_ylim(0, 1.05)
    axis.set_yticks([INNER, (1 + INNER) / 2, 1.0], ["", "", ""])
    axis.set_xticks(angles, _axis_names(names, labels, low, high), fontsize=7.5)
    axis.tick_params(axis="x", pad=11)
    axis.spines["polar"].set_visible(False)


def _axis_names(names: Sequence[str], labels: Mapping[str, str], low: pd.Series, high: pd.Series) -> list[str]:
    """Return every axis' name with its range below it."""
    digits = [0 if high[name] > 200 else 1 for name in names]
    return [
        f"{labels.get(name, name)}\n{low[name]:.{d}f} – {high[name]:.{d}f}"
        for name, d in zip(names, digits, strict=True)
    ]


def radar_of(book: Book, paper: str, table: str) -> Figure:
    """Draw a published table's rows and our counterparts on the same axes, published left and ours right.

    Benchmarks are the published columns, counter-clockwise in their order; methods carry the published names.
    """
    here = book.published[(book.published["paper"] == paper) & (book.published["table"] == table)]
    published = here.pivot(index="row", columns="column", values="value")
    rows = book.rows[(book.rows["paper"] == paper) & (book.rows["table"] == table)]
    experiments = dict(zip(rows["row"], rows["experiment"], strict=True))
    columns = list(dict.fromkeys(here["column"]))
    ours = pd.DataFrame(
        {
            c: [book.cells[e, c].value if (e, c) in book.cells else math.nan for e in experiments.values()]
            for c in columns
        },
        index=list(experiments),
    )
    styles = {row: method_style(name) for row, name in experiments.items()}
    panels = {"Published": published.loc[list(experiments), columns], "Ours": ours.dropna(how="all")}
    return radar(panels, dict(book.benchmarks["label"]), styles)

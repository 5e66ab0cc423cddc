"""Score against vision tokens kept, for a model that was not retrained (LLaVolta, Fig. 1 left)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visiontokens.report.style import GREY, MARKERS, SEQUENCE, new_figure, shared_legend

COLUMNS = 3


def published_curve(reference: pd.DataFrame) -> pd.DataFrame:
    """Turn the published points (`volta`, `fig1_left`) into the columns of our curve; no intervals are known."""
    grid = reference.pivot(index="row", columns="column", values="value")
    rows = []
    for row, values in grid.iterrows():
        text = str(row)
        layer, stride = (int(n) for n in text.strip("()").split(",")) if text.startswith("(") else (0, 1)
        rows.append((layer, stride, values["kept_percent"] / 100, "gqa", values["gqa"], np.nan, np.nan))
    names = ["layer", "stride", "kept", "benchmark", "value", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=names)


def redundancy_curves(curve: pd.DataFrame, published: pd.DataFrame, labels: Mapping[str, str]) -> Figure:
    """Draw one panel for the paper and one per benchmark of ours; a line per layer K, a point per stride S.

    Args:
        curve: columns layer (of 32), stride, kept (0 .. 1), benchmark, value, ci_low, ci_high; stride 1 = all tokens.
        published: the paper's points in the same columns (see `published_curve`).
        labels: benchmark -> title.
    """
    panels = [("LLaVolta Fig. 1: GQA", published)]
    panels += [
        (f"Ours: {labels.get(str(name), str(name))}", part) for name, part in curve.groupby("benchmark", sort=False)
    ]
    rows = -(-max(len(panels), 2) // COLUMNS)
    figure = new_figure(height=2.55 * rows + 0.4)
    layers = sorted({int(n) for n in pd.concat([curve["layer"], published["layer"]]) if n > 0})
    axes = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True)
    for position, (title, points) in enumerate(panels):
        axis = axes.flat[position]
        _panel(axis, points, layers)
        axis.set_title(title)
        axis.set_ylabel("Accuracy (%)" if position % COLUMNS == 0 else "")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis in axes.flat[max(0, len(panels) - COLUMNS) : len(panels)]:
        axis.set_xlabel("Vision tokens kept (%)")
        axis.xaxis.set_tick_params(labelbottom=True)
    if curve.empty:
        axes.flat[1].text(0, 0.5, "Ours: not run at this scale", color=GREY, va="center")
    shared_legend(figure, 3)
    return figure


def _panel(axis: Axes, points: pd.DataFrame, layers: list[int]) -> None:
    """Draw one line per layer, with its interval as a band, and the uncompressed score as a dashed line."""
    full = points[points["stride"] == 1]
    for number, layer in enumerate(layers):
        line = points[(points["layer"] == layer) & (points["stride"] > 1)]
        line = pd.concat([line, full]).sort_values("kept")
        if len(line) == len(full):
            continue
        color = SEQUENCE[number % len(SEQUENCE)]
        x = 100 * line["kept"].astype(float)
        axis.plot(x, line["value"], color=color, marker=MARKERS[number], label=f"pooled before layer {layer} of 32")
        if line["ci_low"].notna().any():
            low, high = line["ci_low"].astype(float), line["ci_high"].astype(float)
            axis.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    if len(full):
        axis.axhline(float(full["value"].iloc[0]), color="black", linestyle=(0, (4, 3)), linewidth=1, zorder=1)
    axis.set_xlim(0, 103)
    axis.set_ylim(0, 1.1 * float(points[["value", "ci_high"]].astype(float).max().max()))

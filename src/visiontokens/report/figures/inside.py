"""What happens inside: attention per layer, likeness of neighbouring features, what each tower level knows."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from visiontokens.report.style import GREY, MARKERS, SEQUENCE, new_figure, not_run, shared_legend

TARGETS = {
    "vision": ("vision tokens", "#D55E00", "D"),
    "system": ("tokens before the image", "#0072B2", "o"),
    "text": ("question tokens", "#009E73", "^"),
}


def published_attention(reference: pd.DataFrame) -> pd.DataFrame:
    """Turn the digitised points (`volta`, `fig1_right`) into columns layer, target, attention."""
    frame = reference.assign(
        layer=reference["row"].str.removeprefix("layer ").astype(int),
        target=reference["column"].str.removeprefix("attention_"),
        attention=reference["value"],
    )
    return frame[["layer", "target", "attention"]]


def attention_by_layer(attention: pd.DataFrame, published: pd.DataFrame) -> Figure:
    """Draw the mean attention per token from the answer position, ours beside the paper's (LLaVolta, Fig. 1 right).

    Args:
        attention: columns layer (from 0), target (vision, system, text), attention (mean per token).
        published: the same columns.
    """
    figure = new_figure(height=3.0)
    left, right = figure.subplots(1, 2, sharey=True)
    _attention_panel(left, published, "LLaVolta Fig. 1: 7B model (digitised)")
    _attention_panel(right, attention, "Ours")
    left.set_ylabel("Mean attention per token")
    shared_legend(figure, 3)
    return figure


def _attention_panel(axis: Axes, frame: pd.DataFrame, title: str) -> None:
    for target, (label, color, marker) in TARGETS.items():
        line = frame[frame["target"] == target].sort_values("layer")
        if len(line):
            axis.plot(line["layer"], line["attention"], color=color, marker=marker, markersize=4, label=label)
    if frame.empty:
        axis.text(0.5, 0.5, "not run at this scale", color=GREY, ha="center", transform=axis.transAxes)
    axis.set_yscale("log")
    axis.set_title(title)
    axis.set_xlabel("Decoder layer")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def feature_similarity(similarity: pd.DataFrame) -> Figure:
    """Draw the cosine similarity of tower features against their distance on the grid, one line per level.

    Args:
        similarity: columns level, offset ("rows,columns" or "random"), distance (patches), mean, std.
    """
    if similarity.empty:
        return not_run(new_figure(height=2.6), "Feature similarity")
    figure = new_figure(height=3.1)
    near, levels_axis = figure.subplots(1, 2, sharey=True)
    by_level = list(similarity.groupby("level"))
    shown = by_level if len(by_level) <= 4 else [by_level[round(i * (len(by_level) - 1) / 3)] for i in range(4)]
    for number, (level, rows) in enumerate(shown):
        line = rows[rows["offset"] != "random"].groupby("distance")[["mean", "std"]].mean()
        near.plot(line.index, line["mean"], color=SEQUENCE[number], marker=MARKERS[number], label=f"level {level}")
    near.set_xscale("log", base=2)
    near.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    near.set_xlabel("Distance on the grid (patches)")
    near.set_ylabel("Cosine similarity")
    near.set_title("By distance")
    near.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4, columnspacing=1, handlelength=1.4)
    _neighbours(levels_axis, similarity)
    return figure


def _neighbours(axis: Axes, similarity: pd.DataFrame) -> None:
    """Draw adjacent and random pairs by level, with the standard deviation over pairs."""
    kinds = [
        ("adjacent (the 2x2 window)", similarity[similarity["distance"] < 1.5], "#D55E00", "D"),
        ("random pairs", similarity[similarity["offset"] == "random"], "#0072B2", "o"),
    ]
    for label, rows, color, marker in kinds:
        line = rows.groupby("level")[["mean", "std"]].mean()
        axis.errorbar(line.index, line["mean"], line["std"], color=color, marker=marker, capsize=2, lw=1.2, label=label)
    axis.set_title("By level (bars: std over pairs)")
    axis.set_xlabel("Hidden state of the tower (0 = embeddings)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def tower_probe(probe: pd.DataFrame) -> Figure:
    """Draw how well a linear probe reads each attribute from each level of the vision tower.

    Args:
        probe: columns level, target (colour, shape, ...), accuracy (0 .. 1).
    """
    if probe.empty:
        return not_run(new_figure(height=2.6), "Linear probes of the tower")
    figure = new_figure(width=4.6, height=3.1)
    axis = figure.subplots()
    for number, (target, line) in enumerate(probe.groupby("target", sort=False)):
        ordered = line.sort_values("level")
        color, marker = SEQUENCE[number % len(SEQUENCE)], MARKERS[number % len(MARKERS)]
        axis.plot(ordered["level"], 100 * ordered["accuracy"], color=color, marker=marker, label=str(target))
    axis.set_xlabel("Hidden state of the tower (0 = embeddings)")
    axis.set_ylabel("Probe accuracy (%)")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title("What a linear probe reads, by level")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure

"""Loss against optimizer step, both stages of training."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visiontokens.report.style import GREY, method_style, new_figure, not_run, shared_legend

STAGES = {"align": "Stage 1: align the projector", "tune": "Stage 2: instruction tuning"}
SMOOTHING = 0.05
"""Width of the running mean, as a share of the steps."""


def training_curves(logs: pd.DataFrame, labels: dict[str, str]) -> Figure:
    """Draw the training loss of every experiment, smoothed, with the raw values faintly behind; seed 0.

    Args:
        logs: columns experiment, seed, stage, step, loss.
        labels: experiment -> name in the legend.
    """
    if logs.empty:
        return not_run(new_figure(height=2.6), "Training")
    first = logs[logs["seed"] == logs["seed"].min()]
    figure = new_figure(height=4.0)
    for axis, (stage, title) in zip(figure.subplots(1, len(STAGES)), STAGES.items(), strict=True):
        _panel(axis, first[first["stage"] == stage], labels)
        axis.set_title(title)
        axis.set_xlabel("Optimizer step")
    figure.axes[0].set_ylabel("Training loss")
    shared_legend(figure, 3)
    return figure


def _panel(axis: Axes, logs: pd.DataFrame, labels: dict[str, str]) -> None:
    dashes = ["-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1))]
    used: dict[str, int] = {}
    top = 0.0
    present = set(logs["experiment"])
    for name in [*(known for known in labels if known in present), *sorted(present - set(labels))]:
        line = logs[logs["experiment"] == name].sort_values("step")
        style = method_style(name)
        number = used[style.color] = used.get(style.color, -1) + 1
        window = max(1, round(SMOOTHING * len(line)))
        smooth = line["loss"].rolling(window, min_periods=1, center=True).mean()
        axis.plot(line["step"], line["loss"], color=style.color, alpha=0.12, linewidth=0.6)
        axis.plot(
            line["step"], smooth, color=style.color, linestyle=dashes[number % len(dashes)], linewidth=1.3,
            marker=style.marker, markevery=max(1, len(line) // 6), markersize=4, label=labels.get(name, name),
        )  # fmt: skip
        top = max(top, float(line["loss"].quantile(0.98)))
    if logs.empty:
        axis.text(0.5, 0.5, "not run at this scale", color=GREY, ha="center", transform=axis.transAxes)
    else:
        axis.set_ylim(0, 1.05 * top)

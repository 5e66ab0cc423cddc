"""The inference scaling law: error against tokens per model size, and what every offset D would make of it."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visiontokens.analyze.scaling import Study
from visiontokens.report.style import GREY, MARKERS, SEQUENCE, new_figure, not_run


def size_label(billions: float) -> str:
    """Return a number of parameters as `7B` or `1.6M`."""
    return f"{billions:.3g}B" if billions >= 0.1 else f"{1000 * billions:.3g}M"


def scaling_figure(study: Study | None) -> Figure:
    """Draw the points with the law at offset 0, and fit and exponents over the offset.

    Right panel: squared residuals (relative to the best ones) and both exponents move with D; their ratio stays.
    """
    if study is None:
        return not_run(new_figure(height=2.6), "Inference scaling law")
    figure = new_figure(height=3.2)
    left, right = figure.subplots(1, 2)
    _law(left, study)
    _offsets(right, study)
    return figure


def _law(axis: Axes, study: Study) -> None:
    points = study.points
    tokens = np.geomspace(points["tokens"].min(), points["tokens"].max(), 60)
    for number, (size, group) in enumerate(points.groupby("parameters_billion")):
        color, marker = SEQUENCE[number % len(SEQUENCE)], MARKERS[number % len(MARKERS)]
        billions = float(str(size))
        axis.plot(group["tokens"], group["error"], marker, color=color, label=size_label(billions))
        axis.plot(tokens, study.zero.predict(np.full_like(tokens, billions), tokens), color=color, linewidth=1)
    axis.set_xscale("log")
    axis.set_xlabel("Vision tokens")
    axis.set_ylabel("Error (1 - mean accuracy)")
    axis.legend(title="Language model", title_fontsize=8)


def _offsets(axis: Axes, study: Study) -> None:
    lowest = float(study.points["error"].min())
    shown = study.profile[study.profile["offset"].between(-lowest, 0.8 * lowest)]
    first = shown.iloc[0]
    best = study.profile["sse"].min()
    for name, color, style in (("alpha", SEQUENCE[0], "-"), ("beta", SEQUENCE[1], "-"), ("ratio", SEQUENCE[2], "--")):
        label = {"ratio": "alpha / beta"}.get(name, name)
        axis.plot(shown["offset"], shown[name] / first[name], style, color=color, label=label)
    axis.plot(shown["offset"], shown["sse"] / best, ":", color=GREY, label="squared residuals / least")
    axis.set_yscale("log")
    axis.set_xlabel("Fixed offset D")
    axis.set_ylabel(f"Relative to D = {first['offset']:.2f} (residuals: to the least)")
    axis.legend()

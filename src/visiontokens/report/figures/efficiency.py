"""Accuracy against cost, with the Pareto front and labels that keep clear of each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from visiontokens.report.book import AVERAGE, Book
from visiontokens.report.style import method_style, new_figure, not_run

LABEL_SIZE = 7
MAX_NAMES = 8  # more points than this carry numbers, with a key below: names would cover each other


def front(cost: Sequence[float], score: Sequence[float]) -> list[int]:
    """Return the positions of points that no other point beats (as cheap and better, or cheaper and as good)."""
    order = sorted(range(len(cost)), key=lambda i: (cost[i], -score[i]))
    best, kept = -np.inf, []
    for i in order:
        if score[i] > best:
            best = score[i]
            kept.append(i)
    return kept


def pareto(points: pd.DataFrame, costs: Sequence[tuple[str, str]], score: str = "Average score") -> Figure:
    """Draw one panel per cost; filled marks are trained with their method, hollow ones use it at test time only.

    Args:
        points: columns experiment, label, score, noise (half interval) and one per cost.
        costs: (column, axis title).
        score: title of the y axis.
    """
    usable = points.dropna(subset=["score", *(column for column, _ in costs)])
    if usable.empty:
        return not_run(new_figure(height=2.6), "Accuracy against cost")
    names, keyed = usable["label"].tolist(), len(usable) > MAX_NAMES
    rows = -(-len(names) // 3) if keyed else 0
    figure = new_figure(width=7.2, height=0.4 + 3.4 * len(costs) + 0.16 * rows)
    for axis, (column, title) in zip(figure.subplots(len(costs), 1, squeeze=False)[:, 0], costs, strict=True):
        _panel(axis, usable, column)
        axis.set_xlabel(title)
        axis.set_ylabel(score)
    if keyed:
        labelled = zip(usable["experiment"], names, strict=True)
        handles = [_mark(name, f"{number}  {label}") for number, (name, label) in enumerate(labelled, 1)]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=LABEL_SIZE)
    figure.draw_without_rendering()
    texts = [str(i) for i in range(1, len(names) + 1)] if keyed else names
    for axis, (column, _) in zip(figure.axes, costs, strict=True):
        place_labels(axis, usable[column].tolist(), usable["score"].tolist(), texts)
    return figure


def _mark(experiment: str, label: str = "") -> Line2D:
    """Return the mark of an experiment: hollow where its method is used at test time only."""
    style = method_style(experiment)
    face = "white" if experiment.endswith("-test") else style.color
    return Line2D(
        [], [], color=style.color, marker=style.marker, markersize=7, markerfacecolor=face, markeredgewidth=1.3,
        linestyle="", label=label,
    )  # fmt: skip


def _panel(axis: Axes, points: pd.DataFrame, column: str) -> None:
    best = front(points[column].tolist(), points["score"].tolist())
    line = points.iloc[best]
    axis.step(line[column], line["score"], where="post", color="#555555", linewidth=1, zorder=1)
    for _, point in points.iterrows():
        mark = _mark(str(point["experiment"]))
        axis.errorbar(
            point[column], point["score"], point["noise"], color=mark.get_color(), marker=mark.get_marker(),
            markersize=7, markerfacecolor=mark.get_markerfacecolor(), markeredgewidth=1.3, elinewidth=0.8, zorder=3,
        )  # fmt: skip
    if points[column].max() > 3 * points[column].min() > 0:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.margins(x=0.12, y=0.12)


def place_labels(axis: Axes, xs: Sequence[float], ys: Sequence[float], texts: Sequence[str]) -> None:
    """Write a label near every point that has one, where it covers neither a mark nor another label.

    Labels far from their point get a thin line. Positions on growing circles around the point are tried in a fixed
    order, so that the result is repeatable.
    """
    figure = axis.figure
    assert isinstance(figure, Figure) and isinstance(figure.canvas, FigureCanvasAgg)
    renderer = figure.canvas.get_renderer()
    frame = axis.get_window_extent(renderer)
    pixels = axis.transData.transform(list(zip(xs, ys, strict=True)))
    marks = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in pixels]
    taken = _steps(axis, [xs[i] for i in front(xs, ys)], [ys[i] for i in front(xs, ys)])
    for i in sorted((i for i, text in enumerate(texts) if text), key=lambda i: (-ys[i], xs[i])):
        label = axis.annotate(
            texts[i], (xs[i], ys[i]), (0, 0), textcoords="offset points", fontsize=LABEL_SIZE, ha="left", va="center",
            color="#222222", zorder=4, annotation_clip=False,
        )  # fmt: skip
        size = label.get_window_extent(renderer)
        per_point = figure.dpi / 72
        for dx, dy, align in _offsets():
            centre = marks[i].x0 + 5, marks[i].y0 + 5
            left = centre[0] + dx * per_point - {"left": 0, "center": size.width / 2, "right": size.width}[align]
            box = Bbox.from_bounds(left, centre[1] + dy * per_point - size.height / 2, size.width, size.height)
            if _free(box, frame, itertools.chain(marks, taken)):
                break
        label.set(ha=align, in_layout=False)
        label.set_position((dx, dy))
        taken.append(box)
        if abs(dx) + abs(dy) > 22:
            line = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
            leader = axis.annotate("", (xs[i], ys[i]), (dx, dy), textcoords="offset points", arrowprops=line)
            leader.set_in_layout(False)


def _steps(axis: Axes, xs: Sequence[float], ys: Sequence[float]) -> list[Bbox]:
    """Return the pieces of the front's line as boxes, in pixels: right to the next cost, then up to its score."""
    corners = []
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        corners.append((x, y))
        if i + 1 < len(xs):
            corners.append((xs[i + 1], y))
    pixels = axis.transData.transform(corners)
    return [
        Bbox.from_extents(min(a[0], b[0]) - 1, min(a[1], b[1]) - 1, max(a[0], b[0]) + 1, max(a[1], b[1]) + 1)
        for a, b in itertools.pairwise(pixels)
    ]


def _offsets() -> Iterable[tuple[float, float, str]]:
    """Yield offsets in points with the alignment of the text, from near to far."""
    for radius in (8, 14, 20, 28, 38, 50, 64):
        for dx, dy in ((1, 0), (-1, 0), (0.7, 0.8), (0.7, -0.8), (-0.7, 0.8), (-0.7, -0.8), (0, 1), (0, -1)):
            yield radius * dx, radius * dy, "center" if dx == 0 else "left" if dx > 0 else "right"


def _free(box: Bbox, frame: Bbox, others: Iterable[Bbox]) -> bool:
    inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    return inside and not any(box.overlaps(other) for other in others)


COSTS = (
    ("tokens", "Vision tokens, mean over decoder layers"),
    ("gflops", "Prefill GFLOPs"),
    ("prefill_ms", "Measured prefill time (ms)"),
)
"""Cost columns of `cost_points` with their axis titles."""


def cost_points(book: Book) -> pd.DataFrame:
    """Return average score and cost of every experiment that has both."""
    lines = []
    for name in book.run:
        cell = book.cells.get((name, AVERAGE))
        if cell is None:
            continue
        lines.append(
            {
                "experiment": name,
                "label": book.label(name),
                "score": cell.value,
                "noise": cell.noise,
                "tokens": book.cost(name, "tokens_mean"),
                "gflops": book.cost(name, "prefill_flops") / 1e9,
                "prefill_ms": book.cost(name, "prefill_ms"),
            }
        )
    columns = ["experiment", "label", "score", "noise", *(column for column, _ in COSTS)]
    return pd.DataFrame(lines, columns=columns)

"""Figures of the leaderboard: accuracy against cost, against the budget by family, and which benchmarks suffer."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from visiontokens.report.field import BASELINE, STAGED, Kind
from visiontokens.report.figures.efficiency import front, place_labels
from visiontokens.report.leaderboard import Leaderboard
from visiontokens.report.style import GREY, MethodStyle, family_styles, new_figure, not_run

SCORE = "Average score (MME / 20)"
PANELS = (("gflops", "Prefill GFLOPs"), ("prefill_ms", "Measured prefill time (ms)"))
COLUMNS = 4
BUDGETS = (1, 3, 9, 36, 144, 576)


def points(board: Leaderboard) -> pd.DataFrame:
    """Return budget, cost and average score of every row that has both, with its family and whether it was trained."""
    book = board.book
    lines = []
    for name, kind in board.kinds.items():
        cell = board.cell(name)
        if cell is not None:
            lines.append(
                {
                    "experiment": name, "label": book.label(name), "family": base_family(kind), "trained": kind.trained,
                    "score": cell.value, "noise": cell.noise, "tokens": book.cost(name, "tokens_mean"),
                    "gflops": book.cost(name, "prefill_flops") / 1e9, "prefill_ms": book.cost(name, "prefill_ms"),
                }
            )  # fmt: skip
    columns = ["experiment", "label", "family", "trained", "score", "noise", "tokens", "gflops", "prefill_ms"]
    return pd.DataFrame(lines, columns=columns).dropna(subset=["tokens", "gflops", "prefill_ms"])


def base_family(kind: Kind) -> str:
    """Return the family as the styles know it: `stf-mbtf`, `vcc`, `volta` for stage schedules."""
    return "volta" if kind.family == STAGED else kind.name.replace("_", "-")


def cost_fronts(data: pd.DataFrame) -> Figure:
    """Draw accuracy against FLOPs and against measured time, a mark per row, the names of the Pareto front's rows."""
    if data.empty:
        return not_run(new_figure(height=2.6), "Accuracy against cost")
    styles = family_styles(data["family"])
    figure = new_figure(height=7.4 + 0.17 * math.ceil((len(styles) + 2) / 5))
    axes = figure.subplots(len(PANELS), 1)
    for axis, (column, title) in zip(axes, PANELS, strict=True):
        best = data.iloc[front(data[column].tolist(), data["score"].tolist())]
        axis.step(best[column], best["score"], where="post", color="#555555", linewidth=1, zorder=1)
        for row in data.to_dict("records"):
            _point(axis, row, row[column], styles[row["family"]])
        _costs(axis, data[column])
        axis.set(xlabel=title, ylabel=SCORE)
    handles = [_handle(styles[name], name) for name in sorted(styles)]
    handles += [
        _handle(MethodStyle(GREY, "o"), "trained"),
        _handle(MethodStyle(GREY, "o"), "training-free", hollow=True),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    figure.draw_without_rendering()
    for axis, (column, _) in zip(axes, PANELS, strict=True):
        chosen = set(front(data[column].tolist(), data["score"].tolist()))
        texts = [label if i in chosen else "" for i, label in enumerate(data["label"])]
        place_labels(axis, data[column].tolist(), data["score"].tolist(), texts)
    return figure


def _point(axis: Axes, row: Mapping[Hashable, Any], x: float, style: MethodStyle) -> None:
    axis.errorbar(
        x, row["score"], row["noise"], color=style.color, marker=style.marker, markersize=6,
        markerfacecolor=style.color if row["trained"] else "white", markeredgewidth=1.2, elinewidth=0.6, zorder=3,
    )  # fmt: skip


def _handle(style: MethodStyle, label: str, *, hollow: bool = False) -> Line2D:
    face = "white" if hollow else style.color
    return Line2D(
        [], [], color=style.color, marker=style.marker, markerfacecolor=face, markersize=6, linestyle="", label=label
    )


def _costs(axis: Axes, values: pd.Series) -> None:
    """Use a logarithmic axis with round numbers where costs differ by more than a factor of three."""
    if values.max() > 3 * values.min() > 0:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.margins(x=0.08, y=0.08)


def budget_curves(data: pd.DataFrame) -> Figure:
    """Draw accuracy against the budget, one panel per family, with average pooling's rows in grey in all of them."""
    families = [name for name in sorted(set(data["family"])) if name != BASELINE]
    if not families:
        return not_run(new_figure(height=2.6), "Accuracy against budget")
    styles = family_styles(data["family"])
    rows = math.ceil(len(families) / COLUMNS)
    figure = new_figure(height=0.5 + 1.75 * rows)
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    pooled = data[(data["family"] == "avgpool") & data["trained"]].sort_values("tokens")
    full = data.loc[data["experiment"] == BASELINE, "score"]
    for axis, family in zip(axes.flat, families, strict=False):
        axis.plot(pooled["tokens"], pooled["score"], color="#bbbbbb", linewidth=3, zorder=1, label="average pooling")
        for value in full:
            axis.axhline(value, color="black", linestyle=(0, (4, 3)), linewidth=0.8, zorder=1)
        mine = data[data["family"] == family].sort_values("tokens")
        for trained, part in mine.groupby("trained"):
            style = styles[family]
            axis.errorbar(
                part["tokens"], part["score"], part["noise"], color=style.color, marker=style.marker, markersize=5,
                markerfacecolor=style.color if trained else "white", elinewidth=0.6, linewidth=1,
                linestyle="-" if trained else ":",
            )  # fmt: skip
        axis.set_title(family, fontsize=8.5)
    for axis in axes.flat[len(families) :]:
        axis.set_axis_off()
    _budgets(axes, len(families), data["tokens"])
    handles = [
        Line2D([], [], color="#bbbbbb", linewidth=3, label="average pooling, trained"),
        Line2D([], [], color="black", linestyle=(0, (4, 3)), linewidth=0.8, label="all tokens"),
        Line2D([], [], color=GREY, marker="o", label="trained"),
        Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linestyle=":", label="training-free"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _budgets(axes: np.ndarray, used: int, tokens: pd.Series) -> None:
    """Label the shared axes: budgets on a logarithmic axis below the last panel of every column."""
    axes.flat[0].set_xscale("log")
    axes.flat[0].set_xlim(0.8 * float(tokens.min()), 1.4 * float(tokens.max()))
    for position, axis in enumerate(axes.flat[:used]):
        axis.xaxis.set_major_locator(FixedLocator(BUDGETS))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if position + COLUMNS >= used:
            axis.set_xlabel("Tokens per layer")
            axis.xaxis.set_tick_params(labelbottom=True)
        if position % COLUMNS == 0:
            axis.set_ylabel("Average score")


def harm_map(board: Leaderboard, found: pd.DataFrame) -> Figure:
    """Draw the difference to the baseline by family of benchmarks; what lies within its 95% interval is in brackets.

    Args:
        board: names the rows and orders them by budget.
        found: as `partners.changes`.
    """
    if found.empty:
        return not_run(new_figure(height=2.4), "Difference to the baseline")
    order = sorted(dict.fromkeys(found["experiment"]), key=lambda name: -board.book.cost(name, "tokens_mean"))
    grid = found.pivot(index="experiment", columns="family", values="difference").loc[order]
    columns = list(dict.fromkeys(found["family"]))
    noise = found.pivot(index="experiment", columns="family", values="half").loc[order, columns].to_numpy()
    values = grid[columns].to_numpy()
    texts = [
        [f"({v:+.1f})" if abs(v) <= n else f"{v:+.1f}" for v, n in zip(*pair, strict=True)]
        for pair in zip(values, noise, strict=True)
    ]
    figure = new_figure(height=1.3 + 0.2 * len(order))
    axis = figure.subplots()
    limit = max(5.0, float(np.nanquantile(np.abs(values), 0.95)))
    sns.heatmap(
        values, ax=axis, cmap="PuOr", center=0, vmin=-limit, vmax=limit, annot=np.array(texts), fmt="",
        annot_kws={"fontsize": 6.5}, linewidths=0.6, linecolor="white",
        cbar_kws={"label": "Points of 100 against all tokens", "extend": "both", "shrink": min(1.0, 12 / len(order))},
    )  # fmt: skip
    names = [f"{board.book.label(name)} ({board.book.cost(name, 'tokens_mean'):.0f})" for name in order]
    axis.set_yticks(np.arange(len(order)) + 0.5, names, rotation=0, fontsize=6.5)
    axis.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=30, ha="right", fontsize=7)
    axis.tick_params(length=0)
    return figure

"""One look for every figure: colours that colour-blind readers tell apart, markers that survive grey print."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from visiontokens.provenance import atomic_write

GREY = "#8a8a8a"
WIDTH = 7.2
"""Width in inches of a figure that spans the page."""
SEQUENCE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#332288", "#117733")
"""Colours for lines that are not methods (layers, benchmarks), in order."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "p")


@dataclass(frozen=True)
class MethodStyle:
    """How one family of methods is drawn, in every figure."""

    color: str
    marker: str


FAMILIES: Mapping[str, MethodStyle] = {
    "none": MethodStyle("#000000", "o"),
    "avgpool": MethodStyle("#E69F00", "s"),
    "stf": MethodStyle("#56B4E9", "^"),
    "mbtf": MethodStyle("#0072B2", "v"),
    "stf-mbtf": MethodStyle("#D55E00", "D"),
    "vcc": MethodStyle("#009E73", "P"),
    "volta": MethodStyle("#CC79A7", "X"),
    "random": MethodStyle("#8a8a8a", "<"),
    "kmeans": MethodStyle("#999933", ">"),
    "fastv": MethodStyle("#882255", "h"),
    "qformer": MethodStyle("#332288", "p"),
    "progressive": MethodStyle("#44AA99", "*"),
}
"""Style by the beginning of an experiment's id; the longest match counts."""
MORE_MARKERS = ("d", "H", "8", "v", "s", "^", "<", "D", "p", ">", "P")
"""Marks of families that are not listed, beside the colours of `SEQUENCE`; the two numbers have no common factor."""
OTHER = MethodStyle("#666666", "d")


def method_style(experiment: str) -> MethodStyle:
    """Return the style of an experiment by its id, e.g. `vcc-2-8-test`; unknown families share one grey diamond."""
    matching = [name for name in FAMILIES if experiment == name or experiment.startswith(f"{name}-")]
    return FAMILIES[max(matching, key=len)] if matching else OTHER


def family_styles(families: Iterable[str]) -> dict[str, MethodStyle]:
    """Return a style of its own for every family: known ones as in all figures, others by their alphabetical place."""
    found = {name: FAMILIES[name] for name in families if name in FAMILIES}
    used = {*FAMILIES.values()}
    free = (
        MethodStyle(SEQUENCE[n % len(SEQUENCE)], MORE_MARKERS[n % len(MORE_MARKERS)])
        for n in range(len(SEQUENCE) * len(MORE_MARKERS))
    )
    fresh = (style for style in free if style not in used)
    return found | dict(zip(sorted({*families} - {*found}), fresh, strict=False))


def theme() -> None:
    """Set the seaborn theme; every figure function calls it, so notebooks need not."""
    rc: dict[str, Any] = {
        "font.family": "DejaVu Sans",
        "figure.dpi": 110,
        "savefig.dpi": 200,
        "figure.constrained_layout.use": True,
        "axes.edgecolor": "#333333",
        "axes.linewidth": 0.8,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "legend.handlelength": 3.0,  # long enough to tell dashes apart
        "lines.linewidth": 1.5,
        "lines.markersize": 5.5,
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
    }
    sns.set_theme(context="paper", style="whitegrid", rc=rc)


def new_figure(width: float = WIDTH, height: float = 3.0) -> Figure:
    """Return an empty figure of this size in inches, in the common theme and outside pyplot's list of figures."""
    theme()
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write `<stem>.png` and `<stem>.pdf` and return both paths.

    Neither holds a date or a version, so the same data give the same bytes.
    """
    written = []
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None, "Producer": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:], metadata=metadata)
        path = stem.with_name(stem.name + suffix)
        with atomic_write(path, "wb") as handle:
            handle.write(buffer.getvalue())
        written.append(path)
    return written


def shared_legend(figure: Figure, columns: int) -> None:
    """Draw one legend below all panels, every name once."""
    entries = [axis.get_legend_handles_labels() for axis in figure.axes]
    handles = {name: handle for pair in entries for handle, name in zip(*pair, strict=True)}
    if handles:
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns)


def not_run(figure: Figure, what: str) -> Figure:
    """Write "not run at this scale" across a figure that has no data."""
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, f"{what}:\nnot run at this scale", ha="center", va="center", color=GREY, fontsize=11)
    return figure

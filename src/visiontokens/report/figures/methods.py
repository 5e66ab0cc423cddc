"""One schematic per method: tower, projector, decoder layers with their vision tokens, and where the method acts."""

from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from visiontokens.provenance import atomic_write
from visiontokens.report.methods import Facts
from visiontokens.report.style import new_figure

PATCHES = 576
ACTS, PLAIN, ALIVE, READ, CACHED = "#D55E00", "#dddddd", "#56B4E9", "#cfe6f5", "#222222"
THIN = 6
"""Least height of a bar, so that a single token can be seen."""
COLORS = 48
"""Colours of the stored picture; the drawing has a handful and their edges."""
KEY = "Description"


def schematic(fact: Facts) -> Figure:
    """Draw one method at LLaVA-1.5-7B's sizes; orange marks where it acts."""
    figure = new_figure(width=6.6, height=2.05)
    axes = figure.subplots(1, 2, width_ratios=(1, 2.1))
    _before(axes[0], fact)
    _layers(axes[1], fact)
    question = "sees the question" if fact.query_aware else "does not see the question"
    training = ", trains in a way of its own" if "training" in fact.places else ""
    budget = "tokens per layer are searched" if fact.searched else f"{_tokens(fact.mean)} per layer"
    figure.suptitle(f"{fact.id}: {budget}, {question}{training}", fontsize=9)
    return figure


def _before(axis: Axes, fact: Facts) -> None:
    """Draw what stands in front of the language model."""
    axis.set(xlim=(0, 10), ylim=(0, 10))
    axis.set_axis_off()
    levels = "1 level" if len(fact.levels) == 1 else f"{len(fact.levels)} levels"
    _box(axis, 0.1, f"vision tower\n{PATCHES} patches\n{levels} read", on="vision tower" in fact.places)
    _box(axis, 5.3, f"projector\n{_tokens(fact.tokens[0])}\nto the LLM", on="before the LLM" in fact.places)
    for start, end in ((4.3, 5.2), (9.5, 10.6)):
        arrow = {"arrowstyle": "->", "color": "#333333", "linewidth": 1}
        axis.annotate("", (end, 5), (start, 5), arrowprops=arrow, annotation_clip=False)


def _tokens(count: float) -> str:
    return f"{count:.4g} token{'s' * (count != 1)}"


def _box(axis: Axes, left: float, text: str, *, on: bool) -> None:
    color = ACTS if on else PLAIN
    axis.add_patch(
        FancyBboxPatch((left, 2.2), 4.1, 5.6, boxstyle="round,pad=0.05,rounding_size=0.4", facecolor=color, alpha=0.35,
                       edgecolor=color, linewidth=1.5)
    )  # fmt: skip
    axis.text(left + 2.05, 5, text, ha="center", va="center", fontsize=7.5)


def _layers(axis: Axes, fact: Facts) -> None:
    """Draw a bar per decoder layer, pale where tokens are only read; a line where the cache keeps another number."""
    depth = len(fact.tokens)
    alive, computed = (
        [max(count, THIN) if count else 0 for count in counts] for counts in (fact.tokens, fact.computed)
    )
    if alive != computed:
        axis.bar(range(depth), alive, width=0.8, color=READ, label="read as keys and values")
    axis.bar(range(depth), computed, width=0.8, color=ALIVE, label="computed")
    if fact.cached != fact.tokens:
        axis.step(
            [*range(depth), depth], [*fact.cached, fact.cached[-1]], where="post", color=CACHED, linewidth=1.2,
            label="left in the cache",
        )  # fmt: skip
    plain = fact.cached == fact.tokens == fact.computed
    if not plain:
        axis.legend(loc="upper right", fontsize=6.5, ncols=3)
    inside = "inside the LLM" in fact.places
    changed = [i for i, (before, after) in enumerate(pairwise(fact.tokens), 1) if before != after] if inside else []
    top = (1.22 if plain else 1.42) * max(PATCHES, *fact.tokens)
    for index in changed if len(changed) < depth // 2 else []:
        axis.annotate(
            "", (index - 0.5, fact.tokens[index - 1]), (index - 0.5, (0.96 if plain else 0.86) * top),
            arrowprops={"arrowstyle": "-|>", "color": ACTS, "linewidth": 1.5},
        )  # fmt: skip
    if inside:
        for side in axis.spines.values():
            side.set(visible=True, edgecolor=ACTS, linewidth=1.5)
    axis.set(xlim=(-0.8, depth - 0.2), ylim=(0, top), xlabel="Decoder layer (bars: its vision tokens)")
    axis.set_xticks([0, *range(7, depth, 8)])
    axis.set_yticks([0, 144, 288, PATCHES])
    axis.tick_params(labelsize=7)
    axis.grid(axis="x", visible=False)


def save_schematics(found: Iterable[Facts], folder: Path) -> list[Path]:
    """Write `<folder>/<method id>.png` for every method, with the drawn facts as text inside; return the paths.

    Figures of method files that no row uses any more are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for fact in found:
        path = folder / f"{fact.id}.png"
        buffer = io.BytesIO()
        schematic(fact).savefig(buffer, format="png", dpi=110)
        info = PngInfo()
        info.add_text(KEY, fact.drawn())
        with Image.open(buffer) as drawn, atomic_write(path, "wb") as handle:
            drawn.convert("RGB").quantize(COLORS).save(handle, format="PNG", optimize=True, pnginfo=info)
        paths.append(path)
    for old in set(folder.glob("*.png")) - set(paths):
        old.unlink()
    return paths


def drawn_facts(path: Path) -> str:
    """Return the facts that a stored schematic was drawn from."""
    with Image.open(path) as picture:
        return str(picture.info[KEY])

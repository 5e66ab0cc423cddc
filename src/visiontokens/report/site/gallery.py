"""Every table and figure of a run, each with the notebook, rule and data that it comes from."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from visiontokens.report.leaderboard import PART
from visiontokens.report.site.shell import copy

TITLES = {
    "01_redundancy": "How redundant are vision tokens?",
    "02_training": "How did training go?",
    "03_main_results": "Main results of both papers",
    "04_ablations": "Ablations",
    "05_efficiency": "Accuracy against cost",
    "06_errata": "Published numbers, recomputed",
    "07_leaderboard": "The field's methods beside average pooling",
    "08_video": "Video",
}
DATA = {
    "scores/": ("scores",),
    "efficiency/": ("efficiency",),
    "redundancy/": ("redundancy-curve", "redundancy-attention", "redundancy-similarity", "redundancy-probe"),
    "models/": ("training",),
    "validation/": ("validation",),
    "published numbers": ("published",),
}
"""What a notebook says it reads, by its words, and the data files of the site that hold it."""


@dataclass(frozen=True)
class Notebook:
    """An executed notebook: where its page is (relative to the site), what it reads, what it writes."""

    name: str
    title: str
    page: str
    source: str
    rule: str
    data: tuple[str, ...]
    tables: frozenset[str]
    figures: frozenset[str]


@dataclass(frozen=True)
class Figure:
    """A figure: its stem below the site, its caption, the notebook that draws it."""

    name: str
    stem: str
    caption: str
    notebook: Notebook | None


@dataclass(frozen=True)
class Sheet:
    """A table: its stem below the site, its cells as text, its caption, the notebook that writes it."""

    name: str
    stem: str
    caption: str
    columns: list[str]
    body: list[list[str]]
    notebook: Notebook | None


def copy_notebooks(results: Path, names: list[str], out: Path, data: set[str]) -> list[Notebook]:
    """Copy the executed notebooks of a run and of its leaderboard, where they are, and say what each is about."""
    places = [(name, results / "notebooks", "notebooks") for name in names]
    places.append(("07_leaderboard", results / PART, "leaderboard"))
    found = []
    for name, folder, rule in places:
        page = folder / f"{name}.html"
        if not page.is_file():
            continue
        copy(page, out / "notebooks" / page.name)
        source = folder / f"{name}.ipynb"
        code = copy(source, out / "notebooks" / source.name).read_text(encoding="utf-8") if source.is_file() else "{}"
        found.append(describe(name, code, f"{rule}.smk", data))
    return found


def describe(name: str, text: str, rule: str, data: set[str]) -> Notebook:
    """Return what a notebook's own text says of it; of the data files that it reads those that are in `data`."""
    cells = json.loads(text).get("cells", [])
    words = " ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    reads = words.split("**Reads**")[1].split("\n\n")[0] if "**Reads**" in words else ""
    files = tuple(file for mark, files in DATA.items() if mark in reads for file in files if file in data)
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    written = list(_written(ast.parse(code)))
    return Notebook(
        name=name,
        title=TITLES.get(name, name),
        page=f"notebooks/{name}.html",
        source=f"notebooks/{name}.ipynb",
        rule=f"source/{rule}.txt",
        data=files,
        tables=frozenset(stem for kind, stem in written if kind == "table"),
        figures=frozenset(stem for kind, stem in written if kind == "figure"),
    )


def _written(node: ast.AST, loops: Mapping[str, list[str]] = MappingProxyType({})) -> Iterator[tuple[str, str]]:
    """Yield ("table" or "figure", name) for every call `desk.table(name, ...)`, names of a loop one by one."""
    if isinstance(node, ast.For) and isinstance(node.target, ast.Name) and isinstance(node.iter, ast.Tuple):
        values = [str(item.value) for item in node.iter.elts if isinstance(item, ast.Constant)]
        loops = {**loops, node.target.id: values}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"table", "figure"}:
        first = node.args[0]
        names = loops.get(first.id, []) if isinstance(first, ast.Name) else [str(getattr(first, "value", ""))]
        yield from ((node.func.attr, name) for name in names)
    for child in ast.iter_child_nodes(node):
        yield from _written(child, loops)


def copy_figures(folder: Path, out: Path, notebooks: list[Notebook]) -> list[Figure]:
    """Copy the figures of a folder, with their captions."""
    found = []
    for path in sorted((folder / "figures").glob("*.png")):
        for suffix in (".png", ".pdf", ".txt"):
            beside = path.with_suffix(suffix)
            if beside.is_file():
                copy(beside, out / "figures" / beside.name)
        note = path.with_suffix(".txt")
        caption = note.read_text(encoding="utf-8").strip() if note.is_file() else path.stem
        drawn = next((notebook for notebook in notebooks if path.stem in notebook.figures), None)
        found.append(Figure(path.stem, f"figures/{path.stem}", caption, drawn))
    return found


def copy_tables(folder: Path, out: Path, notebooks: list[Notebook]) -> list[Sheet]:
    """Copy the tables of a folder, and read them."""
    found = []
    for path in sorted((folder / "tables").glob("*.csv"), key=lambda path: _natural(path.stem)):
        for suffix in (".csv", ".md", ".tex"):
            beside = path.with_suffix(suffix)
            if beside.is_file():
                copy(beside, out / "tables" / beside.name)
        with path.open(encoding="utf-8", newline="") as handle:
            head, *body = list(csv.reader(handle))
        notes = path.with_suffix(".md")
        caption = notes.read_text(encoding="utf-8").strip().rsplit("\n", 1)[-1] if notes.is_file() else path.stem
        writer = next((notebook for notebook in notebooks if path.stem in notebook.tables), None)
        found.append(Sheet(path.stem, f"tables/{path.stem}", caption, head, body, writer))
    return found


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a key that sorts `volta-10` behind `volta-9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]

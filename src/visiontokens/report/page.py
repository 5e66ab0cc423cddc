"""The page a reader opens: summary, figures, tables and notebooks of one scale, readable without a network."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import jinja2

from visiontokens.provenance import atomic_write
from visiontokens.report.write import Table

TEMPLATE = Path(__file__).with_name("page.html.jinja")
TITLES = {
    "01_redundancy": "How redundant are vision tokens?",
    "02_training": "How did training go?",
    "03_main_results": "Main results of both papers",
    "04_ablations": "Ablations",
    "05_efficiency": "Accuracy against cost",
    "06_errata": "Published numbers, recomputed",
    "07_leaderboard": "The field's methods beside average pooling",
}


def write_page(out: Path, summary: Table, scale: str, notebooks: list[str]) -> Path:
    """Write `<out>/index.html`, linking what lies in `<out>/tables`, `<out>/figures` and beside it in `notebooks`."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(
        scale=scale,
        summary=_rows(summary),
        notebooks=[_notebook(out, name) for name in notebooks],
        figures=[_figure(path) for path in sorted((out / "figures").glob("*.png"))],
        tables=[_table(path) for path in sorted((out / "tables").glob("*.csv"))],
    )
    with atomic_write(out / "index.html") as handle:
        handle.write(text)
    return out / "index.html"


def _rows(table: Table) -> dict[str, Any]:
    columns = [str(name) for name in table.frame.columns]
    body = [
        [(str(table.frame[name].iloc[i]), (i, name) in table.bold) for name in table.frame.columns]
        for i in range(len(table.frame))
    ]
    return {"columns": columns, "body": body, "caption": table.caption}


def _notebook(out: Path, name: str) -> dict[str, str]:
    target = out.parent / "notebooks" / f"{name}.html"
    return {"title": TITLES.get(name, name), "name": name, "href": Path(os.path.relpath(target, out)).as_posix()}


def _figure(path: Path) -> dict[str, str]:
    caption = path.with_suffix(".txt")
    return {
        "stem": f"figures/{path.stem}",
        "name": path.stem,
        "caption": caption.read_text(encoding="utf-8").strip() if caption.exists() else path.stem,
    }


def _table(path: Path) -> dict[str, Any]:
    with path.open(encoding="utf-8", newline="") as handle:
        head, *body = list(csv.reader(handle))
    notes = path.with_suffix(".md")
    caption = notes.read_text(encoding="utf-8").strip().rsplit("\n", 1)[-1] if notes.exists() else path.stem
    return {"stem": f"tables/{path.stem}", "name": path.stem, "caption": caption, "columns": head, "body": body}

"""Executing notebooks byte-stably, rendering them, and the summary of a run."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
import papermill
from nbconvert import HTMLExporter

from visiontokens.config import Config, load_config
from visiontokens.provenance import atomic_write
from visiontokens.report.book import Book
from visiontokens.report.numbers import summary_frame, write_numbers
from visiontokens.report.summaries import summary as summary_table
from visiontokens.report.write import text_table

STYLE = """<style>
.jp-Notebook { max-width: 1100px; margin: 0 auto; }
.jp-RenderedMarkdown table, .jp-RenderedHTMLCommon table { display: block; overflow-x: auto; font-size: 80%; }
.jp-RenderedHTMLCommon td { white-space: nowrap; }
.jp-RenderedHTMLCommon td:nth-child(n+6):not([style*="right"]) { white-space: normal; min-width: 14em; }
.jp-OutputArea-output img { max-width: 100%; height: auto; }
</style>
</head>"""


def run_notebook(notebook: Path, executed: Path, html: Path, out: Path, config_files: Sequence[str | Path]) -> None:
    """Execute a notebook against the results of a configuration and render it; tables and figures go to `out`.

    The executed notebook holds no times, versions or random ids, so equal results give equal bytes. It is kept when a
    cell fails, and the error is raised.
    """
    config = load_config(config_files)
    parameters = {
        "results": str(config.results_dir),
        "out": str(out),
        "config": str(config.experiments.table.parent),
    }
    execute(notebook, executed, parameters)
    with atomic_write(html) as handle:
        handle.write(to_html(executed))


def execute(notebook: Path, executed: Path, parameters: dict[str, str]) -> None:
    """Run a notebook by papermill in the current folder and write it without anything that varies between runs."""
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    # tqdm would ask for a widget's package, in a warning that names a folder of this machine.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "executed.ipynb"
        try:
            papermill.execute_notebook(
                str(notebook), str(raw), parameters, kernel_name="python3", progress_bar=False, log_output=False
            )
        finally:
            if raw.exists():
                with atomic_write(executed) as handle:
                    handle.write(stable(raw.read_text(encoding="utf-8")))


def stable(text: str) -> str:
    """Return an executed notebook without times, versions and random cell ids."""
    notebook = nbformat.reads(text, as_version=4)
    notebook.metadata.pop("papermill", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:03d}"
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    return nbformat.writes(notebook) + "\n"


def to_html(executed: Path) -> str:
    """Return an executed notebook as one HTML page without scripts, so that it needs no network."""
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata["title"] = executed.stem
    body, _ = exporter.from_notebook_node(notebook)
    body = re.sub(r"<script\b.*?</script>", "", body, flags=re.DOTALL)
    return body.replace("</head>", STYLE, 1)


def summary(config: Config, out: Path) -> None:
    """Write summary.txt, summary.csv, metrics.json, numbers.json and numbers.tex into `out`."""
    book = Book.load(config.results_dir, config.experiments.table.parent)
    table = summary_table(book)
    with atomic_write(out / "summary.txt") as handle:
        handle.write(text_table(table, f"Scale {config.scale}: method x benchmark"))
    with atomic_write(out / "summary.csv") as handle:
        summary_frame(book).to_csv(handle, index=False, lineterminator="\n")
    write_numbers(book, out)

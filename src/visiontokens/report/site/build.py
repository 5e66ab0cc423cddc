"""Building the site: everything is copied or rendered into one folder that can be moved or sent as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

from visiontokens.config import Config
from visiontokens.provenance import stamp
from visiontokens.report.book import Book
from visiontokens.report.convergence import convergence, verdict
from visiontokens.report.leaderboard import PART
from visiontokens.report.site import board, gallery, overview
from visiontokens.report.site.data import HEADLINES, commits, write_data
from visiontokens.report.site.explorer import write_explorer
from visiontokens.report.site.handbook import page_names, write_handbook
from visiontokens.report.site.shell import HERE, Shell, copy

RULES = ("notebooks.smk", "leaderboard.smk", "site.smk")
"""Rule files that the pages link to."""

FOLDERS = ("assets", "data", "figures", "methods", "notebooks", "source", "tables")
"""Folders of the site, which are made anew."""


def build_site(config: Config, out: Path, docs: Path = Path("docs"), rules: Path = Path("workflow/rules")) -> Path:
    """Write the site of a run and return its first page.

    Args:
        config: whose results are shown.
        out: folder of the site.
        docs: folder of `methods.md` and `methods/`.
        rules: folder of the workflow's rule files.
    """
    results, tables = config.results_dir, config.experiments.table.parent
    for folder in FOLDERS:  # what an earlier run has left there is not this one's
        shutil.rmtree(out / folder, ignore_errors=True)
        (out / folder).mkdir(parents=True)
    for asset in sorted((HERE / "assets").iterdir()):
        copy(asset, out / "assets" / asset.name)
    for name in RULES:
        copy(rules / name, out / "source" / f"{name}.txt")
    book = Book.load(results, tables)
    data = write_data(book, results, out)
    shell = Shell(out, config.scale, _facts(results))
    notebooks = gallery.copy_notebooks(results, config.report.notebooks, out, data)
    folders = [results / "paper", results / PART]
    shell.page(
        "gallery",
        "Tables and figures",
        "gallery",
        notebooks=notebooks,
        figures=[figure for folder in folders for figure in gallery.copy_figures(folder, out, notebooks)],
        tables=[table for folder in folders for table in gallery.copy_tables(folder, out, notebooks)],
    )
    pages = page_names(docs, tables)
    write_handbook(shell, docs)
    write_explorer(shell, book, results / "explorer", pages)
    shell.page(
        "leaderboard",
        "Leaderboard",
        "leaderboard",
        rows=board.run_grid(book, tables, pages),
        field=board.field_grid(results),
        best=board.best(book),
    )
    return _overview(shell, book, results, data)


def _overview(shell: Shell, book: Book, results: Path, data: set[str]) -> Path:
    claims = overview.ledger(results)
    files = [*(f"{name}.csv" for name in sorted(data)), *HEADLINES, *([overview.LEDGER.name] if claims else [])]
    return shell.page(
        "index",
        f"Compact vision tokens: results at scale {shell.scale}",
        "overview",
        headlines=overview.headlines(book),
        gate=verdict(convergence(results, dict(book.experiments["label"])).frame),
        claims=overview.ledger_grid(claims),
        counts=overview.counts(claims),
        summary=overview.summary_grid(book),
        files=[name for name in files if (shell.out / "data" / name).is_file()],
        rows=len(book.run),
        benchmarks=len(book.scored_benchmarks),
    )


def _facts(results: Path) -> dict[str, str]:
    """Return what the footer says of where the numbers come from."""
    now, made = stamp(), commits(results)
    return {
        "Results made at commit": ", ".join(made) or "not recorded",
        "Pages made at commit": f"{now['commit'] or 'not recorded'}{'+' if now['dirty'] else ''}",
    }

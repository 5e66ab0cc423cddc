"""The pages of the site: their data, their links, and what they say where something was not run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from site_results import SCALE, Here, write_site_results

from visiontokens.report.site.build import build_site
from visiontokens.report.site.gallery import describe
from visiontokens.report.site.grid import Facet, grid_of, sort_key
from visiontokens.report.site.handbook import relinked, to_html
from visiontokens.report.site.overview import LEDGER, ledger, ledger_grid
from visiontokens.report.write import Table

NOTEBOOKS = sorted(Path("notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of made-up results."""
    root = write_site_results(tmp_path_factory.mktemp("site") / f"results/{SCALE}")
    return build_site(Here.at(root), root / "site").parent


@pytest.mark.parametrize(
    ("text", "key"),
    [("1,400 ±62", "1400"), ("775 M", "7.75e+08"), ("3.69 G", "3.69e+09"), ("-1.2", "-1.2"), ("−3", "-3"),
     ("not run", ""), ("–", ""), ("STF", ""), ("60 MB", "60"), ("", "")],
)  # fmt: skip
def test_cells_are_sorted_by_the_number_they_begin_with(text: str, key: str) -> None:
    assert sort_key(text) == key


def test_a_grid_keeps_bold_cells_and_the_rows_values() -> None:
    table = Table(pd.DataFrame({"A": ["x", "y"], "B": ["2", "not run"]}), "Says it.", frozenset({(0, "B")}))
    grid = grid_of(table, "g", text=("A",), facets={"a": (Facet("A", ("x", "y")), lambda i: "xy"[i])})
    assert [cell.key for row in grid.rows for cell in row] == ["", "2", "", ""]
    assert [cell.strong for cell in grid.rows[0]] == [False, True]
    assert grid.values == (("x",), ("y",))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_tells_what_it_writes_and_reads(path: Path) -> None:
    known = {"scores", "efficiency", "training", "validation", "published", "redundancy-curve"}
    found = describe(path.stem, path.read_text(encoding="utf-8"), "notebooks.smk", known)
    assert found.title != path.stem
    assert found.tables or found.figures
    assert found.data, "the page links the data of every notebook"


def test_the_loop_of_a_notebook_is_followed() -> None:
    text = next(path for path in NOTEBOOKS if path.stem == "04_ablations").read_text(encoding="utf-8")
    found = describe("04_ablations", text, "notebooks.smk", set())
    assert {"stf-3", "volta-9"} <= found.tables
    assert found.figures == {"stf_ablations", "volta_compressors", "volta_schedules"}


def test_links_of_a_document_lead_to_pages_or_become_words() -> None:
    html = relinked(to_html("[a](b.md) [c](../x.md) <!-- note -->\n\n| h |\n|--|\n| 1 |\n"), {"b.md": "b.html"}.get)
    assert 'href="b.html"' in html
    html = relinked(to_html("[a](b.md) [c](../x.md) <!-- note -->"), lambda link: "")
    assert "<a " not in html and "note" not in html and ">a c" in html.replace("<p>", ">")


def claim(number: int, verdict: str) -> dict[str, object]:
    words = {"paper": "stf", "where": "Table 2", "statement": "s", "tested_as": "", "published": "", "found": "1.5"}
    return {"id": f"C{number}", "verdict": verdict, **words}


def test_verdicts_are_read_and_bad_ones_refused(tmp_path: Path) -> None:
    assert ledger(tmp_path) == [] and ledger_grid([]) is None
    path = tmp_path / LEDGER
    path.parent.mkdir()
    path.write_text(json.dumps({"claims": [claim(1, "PASS"), claim(2, "NOT RUN")]}))
    grid = ledger_grid(ledger(tmp_path))
    assert grid is not None and [values[0] for values in grid.values] == ["PASS", "NOT RUN"]
    path.write_text(json.dumps({"claims": [claim(1, "MAYBE")]}))
    with pytest.raises(ValueError, match=r"ledger\.json: claim 1: .*'MAYBE'.*expected"):
        ledger(tmp_path)


def test_every_link_of_every_page_leads_somewhere(site: Path) -> None:
    pages = [path for path in sorted(site.rglob("*.html")) if path.parent.name != "notebooks"]
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        links = re.findall(r'(?:href|src)="([^"#]+)[^"]*"', text)
        assert [link for link in links if link.startswith(("http", "/", "file"))] == [], page.name
        missing = [link for link in links if ":" not in link and not (page.parent / link).exists()]
        assert missing == [], page.name


def test_every_table_and_figure_names_its_notebook_and_its_rule(site: Path) -> None:
    text = (site / "gallery.html").read_text(encoding="utf-8")
    parts = re.findall(r'id="(?:table|figure)-([\w-]+)"(.*?)</(?:details|figure)>', text, re.DOTALL)
    assert {name for name, _ in parts} >= {"errata", "errata_all"}
    for name, part in parts:
        assert "notebooks/" in part and "source/" in part, name


def test_pages_say_what_was_not_run(site: Path) -> None:
    assert "make verify" in (site / "index.html").read_text(encoding="utf-8")
    assert "snakemake leaderboard" in (site / "leaderboard.html").read_text(encoding="utf-8")


def test_two_builds_give_the_same_bytes(site: Path, tmp_path: Path) -> None:
    again = build_site(Here.at(site.parent), tmp_path / "again").parent
    files = [path.relative_to(site) for path in sorted(site.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(again) for path in sorted(again.rglob("*")) if path.is_file()]
    assert [name for name in files if (site / name).read_bytes() != (again / name).read_bytes()] == []

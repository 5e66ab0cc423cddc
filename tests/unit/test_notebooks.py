"""The notebooks: thin, stripped, stable, and executable into the same bytes twice."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest
from site_results import Here
from synthetic_results import write_results

from visiontokens.config import Config, ReportConfig
from visiontokens.report.catalog import CATALOG
from visiontokens.report.render import execute, stable, summary, to_html
from visiontokens.report.site.build import build_site

NOTEBOOKS = sorted(Path("notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


def code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def test_all_configured_notebooks_are_there():
    assert set(Config().report.notebooks) <= set(NAMES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_is_stripped_and_short(path):
    cells = nbformat.read(path, 4).cells
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
    assert [cell["id"] for cell in cells] == [f"{path.stem[:2]}-{i:02d}" for i in range(len(cells))]
    assert len(code(path)) <= 12
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert [cell.metadata.get("tags") for cell in code(path)].count(["parameters"]) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_holds_no_logic(path):
    for cell in code(path):
        tree = ast.parse(cell.source)
        kinds = (ast.FunctionDef, ast.ClassDef, ast.While, ast.Try)
        assert not any(isinstance(node, kinds) for node in ast.walk(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.module == "pathlib" or (node.module or "").startswith("visiontokens.")


def test_every_catalogued_table_is_in_a_notebook():
    text = "".join(path.read_text() for path in NOTEBOOKS)
    assert [name for name in CATALOG if f'\\"{name}\\"' not in text] == []


def test_execution_is_byte_stable_and_needs_no_network(tmp_path):
    errata = Path("notebooks/06_errata.ipynb")
    parameters = {"results": str(tmp_path), "out": str(tmp_path / "paper"), "config": "config"}
    for name in ("a", "b"):
        execute(errata, tmp_path / f"{name}.ipynb", parameters)
    assert (tmp_path / "a.ipynb").read_bytes() == (tmp_path / "b.ipynb").read_bytes()
    assert (tmp_path / "paper/tables/errata.tex").exists()
    html = to_html(tmp_path / "a.ipynb")
    assert "11,340" in html
    assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', html) == []


def test_a_failing_notebook_is_kept_and_raises(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1"), nbformat.v4.new_code_cell("1 / 0")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "bad.ipynb")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        execute(tmp_path / "bad.ipynb", tmp_path / "executed.ipynb", {})
    assert "ZeroDivisionError" in (tmp_path / "executed.ipynb").read_text()


def test_stable_text_has_no_times_or_versions():
    cell = nbformat.v4.new_code_cell("1", metadata={"papermill": {"duration": 1.0}, "execution": {"iopub": "t"}})
    notebook = nbformat.v4.new_notebook(
        cells=[cell], metadata={"papermill": {}, "language_info": {"name": "python", "version": "3.1"}}
    )
    text = stable(nbformat.writes(notebook))
    assert "papermill" not in text and '"version"' not in text and "cell-000" in text


@pytest.mark.slow
def test_all_notebooks_run_and_the_site_links_them(tmp_path):
    root = write_results(tmp_path / "results/mini", only=["none", "avgpool", "stf-mbtf", "vcc-2-8-test"])
    out = root / "paper"
    for path in NOTEBOOKS:
        executed = root / "notebooks" / path.name
        execute(path, executed, {"results": str(root), "out": str(out), "config": "config"})
        executed.with_suffix(".html").write_text(to_html(executed))
        assert sys.prefix not in executed.read_text(), f"{path.name} shows a warning that names the environment"
    _check_site(root)


def _check_site(root: Path) -> None:
    """Write the site over finished notebooks: all links lead somewhere, all tables and figures name their notebook."""
    config = Here.at(root).model_copy(update={"report": ReportConfig(notebooks=NAMES)})
    summary(config, root / "paper")
    page = build_site(config, root / "site").with_name("gallery.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:href|src)="([^"#:]+)"', page)
    assert len(links) > 60
    assert [link for link in links if not (root / "site" / link).exists()] == []
    parts = re.findall(r'id="(?:table|figure)-([\w-]+)"(.*?)</(?:details|figure)>', page, re.DOTALL)
    names = {path.stem for kind in ("tables/*.csv", "figures/*.png") for path in (root / "paper").glob(kind)}
    assert {name for name, part in parts if 'href="notebooks/' in part} == names
    assert "Scale mini" in (root / "paper/summary.txt").read_text()

"""docs/methods.md and its figures are those of the experiment table and the classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from planning import ROOT

from visiontokens.report.figures.methods import drawn_facts, save_schematics
from visiontokens.report.methods import Facts, all_facts, blocks, facts, with_blocks

PAGE = ROOT / "docs/methods.md"
FIGURES = ROOT / "docs/figures/methods"


@pytest.fixture(scope="module")
def found() -> list[Facts]:
    return all_facts(ROOT / "config")


def test_the_page_is_generated_from_table_files_and_classes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    parts = blocks(PAGE.with_suffix(""), ROOT / "config")
    assert with_blocks(text, parts, PAGE) == text, "run: visiontokens methods"


def test_every_method_has_its_figure(found: list[Facts]) -> None:
    assert {path.stem for path in FIGURES.glob("*.png")} == {fact.id for fact in found}, "run: visiontokens methods"
    stale = [fact.id for fact in found if drawn_facts(FIGURES / f"{fact.id}.png") != fact.drawn()]
    assert not stale, "run: visiontokens methods"
    assert max(path.stat().st_size for path in FIGURES.glob("*.png")) < 40_000


def test_facts_are_those_of_the_papers_sizes() -> None:
    fastv = facts(ROOT / "config/methods/fastv-2-8.yaml", {False})
    assert fastv.tokens == (576.0,) * 2 + (72.0,) * 30 and fastv.cached == fastv.tokens
    assert fastv.mean == pytest.approx(103.5)
    assert (fastv.query_aware, fastv.weights, fastv.places) == (True, "training-free", ("inside the LLM",))


def test_figures_of_methods_that_are_gone_are_removed(tmp_path: Path, found: list[Facts]) -> None:
    (tmp_path / "gone.png").write_bytes(b"")
    (path,) = save_schematics(found[:1], tmp_path)
    assert list(tmp_path.iterdir()) == [path] and drawn_facts(path) == found[0].drawn()


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"page\.md: expected the markers <!-- a:begin --> and <!-- a:end -->"):
        with_blocks("nothing", {"a": "text"}, Path("page.md"))

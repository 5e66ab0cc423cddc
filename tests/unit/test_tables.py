"""Tables: published shape, ours below, "not run" where nothing was run, bold only beyond noise, three formats."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_results import write_results

from visiontokens.analyze import collect
from visiontokens.analyze.reference import ResultError, reference
from visiontokens.report.book import AVERAGE, Book, Cell
from visiontokens.report.catalog import CATALOG, regenerate
from visiontokens.report.details import costs, redundancy_fall, redundancy_grid, training_runs
from visiontokens.report.figures.redundancy import published_curve
from visiontokens.report.numbers import macro, metrics, relative, write_numbers
from visiontokens.report.summaries import orderings, pairs, sampling, schemes, summary
from visiontokens.report.tables import COMMON, clear_winner
from visiontokens.report.write import (
    NOT_RUN,
    Table,
    duration,
    escape_tex,
    latex,
    markdown,
    si,
    text_table,
    with_spread,
    write_table,
)

MAIN = ["none", "avgpool", "stf-mbtf", "volta-four-wider-deeper", "vcc-2-8", "vcc-2-8-test"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("mini"), only=MAIN)


@pytest.fixture(scope="module")
def book(results):
    return Book.load(results)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    return Book.load(tmp_path_factory.mktemp("nothing"))


def test_further_benchmarks_are_shown_and_not_averaged(tmp_path):
    folder = write_results(tmp_path, only=["none"])
    before = Book.load(folder)
    for path in folder.glob("scores/none/seed*/gqa.json"):
        score = json.loads(path.read_text()) | {"benchmark": "seed", "value": 99.0}
        path.with_name("seed.json").write_text(json.dumps(score))
    after = Book.load(folder)
    assert set(after.scored_benchmarks) - set(before.scored_benchmarks) == {"seed"}
    assert after.cells["none", AVERAGE] == before.cells["none", AVERAGE]
    assert after.cells["none", "seed"].value == 99


def line(table: Table, method: str, source: str) -> pd.Series:
    frame = table.frame
    at = frame.index[frame["Method"] == method][0]
    return frame.loc[at if frame.loc[at, "Source"] == source else at + 1]


@pytest.mark.parametrize("name", CATALOG)
def test_every_table_is_made_with_and_without_results(name, book, empty):
    for source in (book, empty):
        table = regenerate(source, name)
        assert len(table.frame) >= 1
        assert not table.frame.isna().any().any()
    assert (regenerate(empty, name).frame.query("Source == 'ours'").iloc[:, 2:] == NOT_RUN).all().all()


def test_published_and_ours_stand_below_each_other(book):
    table = regenerate(book, "volta-2")
    assert list(table.frame["Source"][:4]) == ["paper", "ours", "paper", "ours"]
    published = line(table, "No compression", "paper")
    assert published["GQA"] == "62.6 ±0.49"
    assert published["FLOPs"] == "8.26 T"
    assert published["Training"] == "15.3 h"
    ours = line(table, "No compression", "ours")
    assert ours["GQA"].startswith(f"{book.cells['none', 'gqa'].value:.1f} ±")
    assert ours["MM-Vet"] == NOT_RUN
    assert line(table, "Two stages", "ours")["GQA"] == NOT_RUN


def test_staged_rows_count_training_tokens(book):
    ours = line(regenerate(book, "volta-2"), "Four stages, wider then deeper", "ours")
    stages = [576 + 7 * 72, 576 + 7 * 288, 4 * 576 + 4 * 288, 8 * 576]
    assert ours["#Tokens"] == f"{sum(stages) / 4:,.0f}"
    assert book.cost("volta-four-wider-deeper", "tokens_total") == 8 * 576


def test_common_average_covers_the_same_benchmarks_for_both(book):
    published = line(regenerate(book, "volta-2"), "No compression", "paper")
    values = [62.6, 70.8, 1467 / 20, 58.3, 86.1, 65.3, 59.4, 78.9, 49.8]
    assert published[COMMON] == f"{sum(values) / 9:.1f}"


def test_unreadable_tables_list_our_rows_only(book):
    table = regenerate(book, "stf-3")
    assert set(table.frame["Source"]) == {"ours"}
    assert book.label("stf-mbtf") in set(table.frame["Method"])


def test_unknown_table_is_named(book):
    with pytest.raises(ValueError, match="'volta-77'"):
        regenerate(book, "volta-77")


@given(gap=st.floats(0.1, 20), noise=st.floats(0.01, 10))
def test_bold_only_beyond_both_intervals(gap, noise):
    cells = {i: Cell(value, half=noise, std=0.0, seeds=2) for i, value in enumerate((50, 50 + gap, 10))}
    assert clear_winner(cells) == (1 if gap > math.hypot(noise, noise) else None)
    cells = {i: Cell(value, half=noise) for i, value in enumerate((50, 50 + gap, 10))}
    assert clear_winner(cells) is None, "one seed"


def test_a_single_row_is_never_bold():
    assert clear_winner({0: Cell(50, half=1)}) is None


def test_seeds_give_mean_and_deviation(tmp_path):
    book = Book.load(write_results(tmp_path, only=["none"], seeds=3))
    cell = book.cells["none", "gqa"]
    values = book.scores.query("benchmark == 'gqa'")["value"]
    assert (cell.value, cell.std, cell.seeds) == (pytest.approx(values.mean()), pytest.approx(values.std()), 3)
    assert cell.noise > cell.half
    ours = line(regenerate(book, "volta-2"), "No compression", "ours")
    assert ours["GQA"] == f"{values.mean():.1f} ±{values.std():.1f}"


def test_average_needs_every_benchmark(tmp_path):
    book = Book.load(write_results(tmp_path, only=["none"], skip=("gqa",)))
    assert ("none", AVERAGE) not in book.cells
    assert book.average("none", ["pope", "mme"]).value == pytest.approx(
        (book.cells["none", "pope"].value + book.cells["none", "mme"].value / 20) / 2
    )
    assert "gqa" not in book.scored_benchmarks


def test_every_table_of_scores_says_what_it_can_see(book):
    """Made-up scores come without questions, so the rows' own intervals must do; the sampling error is 2.2 / 1.96."""
    for table in (summary(book), regenerate(book, "volta-2"), regenerate(book, "stf-3")):
        assert "Minimum detectable difference to LLaVA-1.5, all tokens from the rows' own intervals" in table.caption
        assert "(80% power at 5%, median row; covers questions only, one seed)" in table.caption
    expected = math.sqrt(2) * 2.2 / 1.96 * 2.8016
    assert f"GQA {expected:.1f}" in summary(book).caption
    assert "Minimum detectable" not in regenerate(book, "volta-8").caption


def test_summary_has_intervals_tokens_flops_and_latency(book):
    frame = summary(book).frame
    assert list(frame["Method"]) == [book.label(name) for name in book.run]
    assert {"Tokens", "FLOPs", "Prefill ms", "MME", "Avg"} <= set(frame)
    assert all("±" in text for text in frame["GQA"])


def test_schemes_show_printed_recomputed_and_ours(book):
    frame = schemes(book).frame.set_index("Scheme")
    assert frame.loc["Two stages", "Stage 1"] == "(2,8): 557 / 556.5 / 427"
    assert frame.loc["Two stages", "Stage 2"] == "none: 100"
    assert frame.loc["Three stages, last stage compression", "Stage 1"].startswith("(2,16): 825 / 825.8")


def test_orderings_count_every_pair_once(book):
    found = list(pairs(book, "stf-fig1"))
    assert len(found) == 3
    assert {verdict for *_, verdict in found} <= {"agrees", "disagrees", "open"}
    assert all(gap > 0 for _, _, gap, _, _ in found)
    table = orderings(book, {"stf-fig1": "Figure 1", "volta-4": "Table 4"}).frame
    assert list(table["Pairs"]) == ["3", NOT_RUN]


def test_details_are_complete(book, results):
    labels = dict(book.benchmarks["label"])
    curve = collect.redundancy(results, "curve")
    paper = published_curve(reference("volta", "fig1_left"))
    grid = redundancy_grid(curve, paper, labels)
    assert len(grid.frame) == 13
    assert not (grid.frame == NOT_RUN).any().any()
    assert len(redundancy_fall(curve, labels).frame) == 12
    assert "Minimum detectable difference to all tokens" in grid.caption
    assert (redundancy_grid(curve.iloc[:0], paper, labels).frame["Kept %, ours"] == NOT_RUN).all()
    assert len(training_runs(book).frame) == 2 * 5
    assert len(costs(book).frame) == len(MAIN)
    assert len(sampling(book).frame) == 9


def test_numbers_are_written_once_and_named_for_latex(book, tmp_path):
    write_numbers(book, tmp_path)
    flat = json.loads((tmp_path / "numbers.json").read_text())
    assert flat["none/gqa"] == f"{book.cells['none', 'gqa'].value:.1f}"
    macros = (tmp_path / "numbers.tex").read_text().splitlines()
    names = [text.split("{")[1].rstrip("}") for text in macros]
    assert len(names) == len(set(names)) == len(flat)
    assert macro("vcc-2-8-test", "mmbench_cn") == "vtVccTwoEightTestMmbenchCn"
    assert relative(metrics(book))["avgpool"]["tokens_mean"] == 25.0


def test_three_formats_hold_the_same_cells(tmp_path):
    frame = pd.DataFrame({"Method": ["A & B", "C"], "GQA": ["61.0 ±0.5", NOT_RUN]})
    table = Table(frame, "50% of it_all.", bold=frozenset({(0, "GQA")}), rules=frozenset({1}))
    paths = write_table(table, tmp_path / "t")
    assert [p.suffix for p in paths] == [".csv", ".md", ".tex"]
    assert pd.read_csv(paths[0]).equals(frame)
    assert "| A & B | **61.0 ±0.5** |" in markdown(table)
    assert "61.0 ±0.5*" in text_table(table, "Title")
    tex = latex(table)
    assert r"A \& B & \textbf{61.0 $\pm$0.5} \\" in tex
    assert r"\begin{tabular}{lr}" in tex
    assert r"50\% of it\_all." in tex
    assert tex.count(r"\midrule") == 2


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=30))
def test_latex_escapes_leave_no_active_character(text):
    escaped = escape_tex(text)
    assert escaped.count("&") == escaped.count(r"\&")
    assert escaped.count("%") == escaped.count(r"\%")


def test_formats_of_numbers():
    assert with_spread(54.321, 1.94) == "54.3 ±1.9"
    assert with_spread(54.321, math.nan) == "54.3"
    assert (si(8.26e12), si(2.91e9), si(math.nan)) == ("8.26 T", "2.91 G", NOT_RUN)
    assert (duration(45), duration(738), duration(55080)) == ("45 s", "12.3 min", "15.3 h")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"benchmark": "pope"}, "found 'pope', expected 'gqa'"),
        ({"value": None}, "key 'value'"),
    ],
)
def test_a_wrong_score_file_is_named(tmp_path, change, message):
    write_results(tmp_path, only=["none"])
    path = tmp_path / "scores/none/seed0/gqa.json"
    found = json.loads(path.read_text()) | change
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))
    with pytest.raises(ResultError, match=message) as caught:
        collect.scores(tmp_path)
    assert "seed0/gqa.json" in str(caught.value)


def test_a_wrong_log_line_is_named(tmp_path):
    write_results(tmp_path, only=["none"])
    path = tmp_path / "models/none/seed0/tune/log.jsonl"
    path.write_text(path.read_text() + '{"step": 3')
    with pytest.raises(ResultError, match=r"log.jsonl:301"):
        collect.training_logs(tmp_path)


def test_parts_are_flattened(results):
    parts = collect.parts(results)
    assert {"number", "by/color"} == set(parts["part"])

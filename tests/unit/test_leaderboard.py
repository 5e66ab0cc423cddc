"""The leaderboard: kinds from rows and classes, partners by budget, verdicts from questions, figures from all of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from synthetic_board import write_board

from visiontokens.analyze.collect import run_files
from visiontokens.compress.base import Geometry, MethodSpec
from visiontokens.config import load_config, load_experiments, read_experiments
from visiontokens.report.book import Cell
from visiontokens.report.comparisons import paired, paired_pooling
from visiontokens.report.field import Kind, acts, kinds, profile
from visiontokens.report.figures.leaderboard import budget_curves, cost_fronts, harm_map, points
from visiontokens.report.leaderboard import Leaderboard, cell_text, leaderboard_frame, leaderboard_table, tally
from visiontokens.report.partners import changes, partner_of
from visiontokens.report.style import FAMILIES, family_styles, save_figure
from visiontokens.report.summaries import summary
from visiontokens.report.write import latex

ROWS = {"none": 0.8, "avgpool": 0.6, "stf": 0.75, "stf-mbtf": 0.6, "qformer-32": 0.3, "vcc-2-8-test": 0.5,
        "fastv-2-8-test": 0.3}  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_board(tmp_path_factory.mktemp("board") / "mini", ROWS, seeds=2)


@pytest.fixture(scope="module")
def board(results):
    return Leaderboard.load(results, resamples=200)


def test_kinds_come_from_rows_and_classes():
    found = kinds(read_experiments(Path("config/experiments.tsv")))
    assert (found["stf"].trained, found["stf"].query_aware, found["stf"].pooling) == (True, False, False)
    assert (found["fastv-2-8-test"].trained, found["fastv-2-8-test"].query_aware) == (False, True)
    assert found["vcc-2-8-test"].pooling and found["avgpool"].pooling
    assert found["volta-last-stage"].family == "schedule" and not found["volta-last-stage"].pooling
    assert found["none"].trained


def test_a_row_on_weights_of_the_same_method_is_trained(tmp_path):
    """One model that serves several budgets (M3) is trained at all of them."""
    (tmp_path / "methods").symlink_to(Path("config/methods").resolve())
    (tmp_path / "schedules").symlink_to(Path("config/schedules").resolve())
    head = Path("config/experiments.tsv").read_text().splitlines()[0]
    lines = [
        head,
        "wide\tWide\tm3\t\tavgpool\tavgpool\t\t\tfield\t1\t\t",
        "narrow\tNarrow\tm3\t\tavgpool4\t\t\twide\tfield\t1\t\t",
        "other\tOther\tm3\t\tvcc-2-8\t\t\twide\tfield\t1\t\t",
    ]
    (tmp_path / "experiments.tsv").write_text("\n".join(lines) + "\n")
    found = kinds(["wide", "narrow", "other"], tmp_path)
    assert [kind.trained for kind in found.values()] == [True, True, False]


def test_where_a_method_acts_is_read_from_its_hooks_and_counts():
    geometry = Geometry(16, 8, (24, 24), 32, 8)
    found = {
        name: acts(MethodSpec.from_yaml(f"config/methods/{name}.yaml").build(geometry))
        for name in ("none", "avgpool", "mbtf", "fastv-2-8", "vcc-2-8", "vcc-before-4")
    }
    assert (found["none"], found["avgpool"]) == ([], ["before the LLM"])
    assert found["mbtf"] == ["vision tower", "before the LLM"]
    assert found["fastv-2-8"] == found["vcc-2-8"] == ["inside the LLM"]
    assert "before the LLM" in found["vcc-before-4"]


@pytest.mark.parametrize(
    ("counts", "text"),
    [([144.0] * 8, "144"), ([576.0] * 2 + [72.0] * 6, "576 x2, 72 x6"), ([10.25, 10.25, 3.0], "10.2 x2, 3 x1")],
)
def test_profiles_are_runs(counts, text):
    assert profile(counts) == text


def kind(name, *, trained=True, pooling=False):
    return Kind(name, name, name, name, trained, query_aware=False, pooling=pooling)


def test_the_partner_is_the_nearest_pooling_row_of_the_same_kind():
    known = {
        "row": kind("row"), "a": kind("a", pooling=True), "b": kind("b", pooling=True),
        "free": kind("free", trained=False, pooling=True), "far": kind("far"),
    }  # fmt: skip
    tokens = {"row": 100.0, "a": 90.0, "b": 106.0, "free": 100.0, "far": 300.0}
    assert partner_of("row", known, tokens, 0.15) == "b"
    assert partner_of("row", known, tokens, 0.05) == ""
    assert partner_of("far", known, tokens, 0.15) == ""
    assert partner_of("row", known, {**tokens, "row": math.nan}, 0.15) == ""


def test_paired_tables_compare_with_the_baseline_and_with_pooling(board):
    book = board.book
    rows = paired(book, book.results).frame.set_index("Method")
    assert float(rows.loc[book.label("avgpool"), "Avg"].split(" ")[0]) == pytest.approx(-20, abs=3)
    table = paired_pooling(book, book.results)
    pooled = table.frame.assign(Method=[text.rsplit(" (", 1)[0] for text in table.frame["Method"]]).set_index("Method")
    assert pooled.loc[book.label("stf"), "Pooling"].startswith(book.label("avgpool"))
    assert float(pooled.loc[book.label("stf"), "Avg"].split(" ")[0]) == pytest.approx(15, abs=3)
    assert float(pooled.loc[book.label("stf"), "Detectable"]) == pytest.approx(
        board.verdicts["stf"].detectable, abs=0.3
    )
    assert not {book.label("avgpool"), book.label("none")} & set(pooled.index)
    assert "on the same questions (80% power" in summary(book).caption


def test_verdicts_are_those_of_the_questions(board):
    verdicts = board.verdicts
    assert (verdicts["stf"].partner, verdicts["stf"].text) == ("avgpool", "better")
    assert (verdicts["stf-mbtf"].partner, verdicts["stf-mbtf"].text) == ("avgpool", "level")
    assert verdicts["stf-mbtf"].difference == 0
    assert (verdicts["fastv-2-8-test"].partner, verdicts["fastv-2-8-test"].text) == ("vcc-2-8-test", "worse")
    assert verdicts["qformer-32"].text == "no partner"
    assert verdicts["avgpool"].text == "is pooling" and verdicts["none"].text == ""
    gap = verdicts["stf"]
    assert gap.difference == pytest.approx(15, abs=3) and 0 < gap.half < 5
    assert gap.detectable == pytest.approx(2.80 * gap.se, rel=0.01)
    assert gap.adjusted >= gap.p_value


def test_the_table_says_all_that_is_asked(board):
    table = leaderboard_table(board)
    lines = table.frame.set_index("Method")
    assert lines.index[0] == "LLaVA-1.5, all tokens", "rows by falling budget"
    stf, fastv = lines.loc["STF"], lines.loc["FastV, test only"]
    assert (stf["Weights"], stf["Sees the question"], stf["Tokens"]) == ("trained", "no", "144.0")
    assert (fastv["Weights"], fastv["Sees the question"]) == ("training-free", "yes")
    assert fastv["Tokens by layer"] == "576 x1, 72 x7"
    assert " ±" in stf["GQA"] and "[" in stf["GQA"], "several seeds: spread and interval"
    assert stf["Pooling partner"] == "AvgPool 2x2, retrained (144.0)"
    assert float(stf["Prefill speed-up"]) > 1 and 90 < float(stf["Kept %"]) < 100
    assert not {"not run"} & set(stf)
    assert r"\resizebox" in latex(table)
    frame = leaderboard_frame(board).set_index("experiment")
    assert frame.loc["stf", "gqa"] == pytest.approx(board.book.cells["stf", "gqa"].value)
    assert "STF" in tally(board).frame.set_index("Verdict").loc["better than average pooling at its budget", "Which"]


def test_scores_of_one_seed_show_their_interval_only():
    assert cell_text(Cell(54.32, half=1.9)) == "54.3 [52.4, 56.2]"
    assert cell_text(Cell(54.32, half=1.9, std=0.8, seeds=3)) == "54.3 ±0.8 [52.4, 56.2]"
    assert cell_text(None) == "not run"


def test_runs_of_other_targets_do_not_count(results, tmp_path):
    """Seeds and rows that only the leaderboard ran are not in the reports of the main rows."""
    settings = tmp_path / "config.yaml"
    settings.write_text("experiments: {only: [stf]}\n")
    found = {(name, seed) for name, seed, _ in run_files(results, "scores/*/seed*/gqa.json", settings)}
    assert found == {("none", 0), ("stf", 0)}
    everything = {(name, seed) for name, seed, _ in run_files(results, "scores/*/seed*/gqa.json")}
    assert everything == {(name, seed) for name in ROWS for seed in (0, 1)}


def test_its_settings_choose_its_rows():
    config = load_config("config/config.yaml")
    rows = load_experiments(config.for_leaderboard())
    assert {row.set for row in rows.values()} == {"main", "field"}
    assert {row.set for row in load_experiments(config).values()} == {"main"}
    assert config.for_leaderboard().experiments.seeds == 3


def test_figures_show_every_row(board, results, tmp_path):
    data = points(board)
    assert len(data) == len(ROWS)
    fronts = cost_fronts(data)
    assert [axis.get_xlabel() for axis in fronts.axes] == ["Prefill GFLOPs", "Measured prefill time (ms)"]
    panels = [axis.get_title(loc="left") for axis in budget_curves(data).axes if axis.get_title(loc="left")]
    assert panels == sorted({"avgpool", "stf", "stf-mbtf", "qformer", "vcc", "fastv"})
    found = changes(board.book, results, list(ROWS), resamples=100)
    assert set(found["experiment"]) == set(ROWS) - {"none"}
    heat = harm_map(board, found)
    texts = {text.get_text() for text in heat.axes[0].texts}
    assert any(text.startswith("(") for text in texts) or all(abs(found["difference"]) > found["half"])
    first, second = (save_figure(cost_fronts(data), tmp_path / name)[0] for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_what_has_not_run_is_said(tmp_path):
    board = Leaderboard.load(tmp_path)
    assert leaderboard_table(board).frame.empty
    for figure in (cost_fronts(points(board)), budget_curves(points(board)), harm_map(board, pd.DataFrame())):
        assert "not run at this scale" in figure.axes[0].texts[0].get_text()


def test_every_family_has_a_style_of_its_own():
    names = [*FAMILIES, *(f"new-{i}" for i in range(30))]
    styles = family_styles(names)
    assert set(styles) == set(names) and len(set(styles.values())) == len(names)
    assert styles["vcc"] == FAMILIES["vcc"]


def test_per_layer_counts_come_from_the_records(board, results):
    record = json.loads((results / "leaderboard/efficiency/vcc-2-8-test.json").read_text())
    assert board.per_layer["vcc-2-8-test"] == record["tokens_per_layer"]

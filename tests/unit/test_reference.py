"""The published numbers: complete, typed once, loud about damage."""

from __future__ import annotations

import pytest

from visiontokens.analyze.collect import benchmarks, experiments
from visiontokens.analyze.errata import SCORES
from visiontokens.analyze.reference import REFERENCE, REFERENCE_FILES, ResultError, reference, reference_rows
from visiontokens.data.benchmarks import BENCHMARKS, MAIN_BENCHMARKS

VOLTA_ROWS = {
    "2": 7,
    "3": 10,
    "4": 2,
    "5": 7,
    "6": 2,
    "7": 4,
    "8": 6,
    "9": 6,
    "10": 2,
    "fig1_left": 13,
    "fig1_right": 32,
}


@pytest.mark.parametrize(("table", "rows"), VOLTA_ROWS.items())
def test_every_row_of_llavolta_is_there(table, rows):
    assert reference("volta", table)["row"].nunique() == rows


@pytest.mark.parametrize("table", ["2", "3", "4", "5", "6", "7", "10"])
def test_every_row_has_all_thirteen_scores_and_the_average(table):
    counts = reference("volta", table).groupby("row")["column"].agg(set)
    assert all({*SCORES, "average"} <= columns for columns in counts)


def test_no_number_is_typed_twice():
    frame = reference()
    assert not frame.duplicated(["paper", "table", "row", "column"]).any()
    assert (frame["source"] != "").all()
    assert frame["unit"].isin(frame["unit"].unique()).all() and (frame["unit"] != "").all()


def test_three_runs_give_deviations_in_the_main_tables():
    main = reference("volta", "2")
    scores = main[main["column"].isin(SCORES)]
    assert scores["std"].notna().all()


def test_percentages_and_scores_are_in_range():
    frame = reference()
    percent = frame[(frame["unit"] == "percent") & frame["column"].isin([*SCORES, "average"])]
    assert percent["value"].between(0, 100).all()
    assert frame.loc[frame["column"] == "mme", "value"].between(800, 2000).all()


def test_the_two_papers_share_their_baseline():
    radar = reference("stf", "fig1").set_index(["row", "column"])["value"]
    zoo = reference("llava15", "zoo").set_index(["row", "column"])["value"]
    for name in ("vqav2", "gqa", "vizwiz", "scienceqa", "textvqa", "pope", "mmbench", "mmbench_cn"):
        assert radar["LLaVA-1.5 (100% tokens)", name] == zoo["LLaVA-1.5-7B", name]


def test_known_contradictions_are_marked():
    suspect = reference()
    marked = suspect[suspect["suspect"] != ""]
    assert {("volta", "2"), ("volta", "7"), ("volta", "9"), ("stf", "fig1")} <= set(
        zip(marked["paper"], marked["table"], strict=True)
    )


def test_rows_point_to_published_rows_and_to_experiments():
    rows, published = reference_rows(), reference()
    known = set(zip(published["paper"], published["table"], published["row"], strict=True))
    assert set(zip(rows["paper"], rows["table"], rows["row"], strict=True)) <= known
    assert set(rows["experiment"]) <= set(experiments()["id"])


def test_every_claimed_table_exists_and_is_claimed_back():
    """An experiment that says it is a row of a published table is found there, where that table has rows."""
    rows = reference_rows()
    mapped = set(zip(rows["paper"] + "-" + rows["table"], rows["experiment"], strict=True))
    for _, line in experiments().iterrows():
        for table in line["tables"]:
            readable = table in set(rows["paper"] + "-" + rows["table"]) - {"stf-2"}
            assert not readable or (table, line["id"]) in mapped, (table, line["id"])


def test_benchmark_names_are_the_columns():
    """Of the nine; those about videos hold another metric than the published columns, further ones have none."""
    assert set(MAIN_BENCHMARKS) <= {*SCORES}
    assert set(benchmarks().index) == set(BENCHMARKS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("61.8", "61,8", "expected a number"), ("suspect,source", "doubt,source", "expected")],
)
def test_a_damaged_file_is_named(tmp_path, old, new, message):
    for name in REFERENCE_FILES:
        (tmp_path / name).write_text((REFERENCE / name).read_text())
    path = tmp_path / "llava_stf.csv"
    damaged = path.read_text().replace(old, f'"{new}"' if "," in new and "suspect" not in new else new, 1)
    path.write_text(damaged)
    with pytest.raises(ResultError, match=message) as caught:
        reference(folder=tmp_path)
    assert "llava_stf.csv" in str(caught.value)


def test_unknown_table_is_an_error():
    with pytest.raises(ResultError, match="'99'"):
        reference("volta", "99")

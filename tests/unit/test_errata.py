"""Recomputed columns: what the papers print wrong, and nothing else."""

from __future__ import annotations

import pytest

from visiontokens.analyze.errata import errata
from visiontokens.analyze.recount import DIFFERS, MATCHES, pooled_total, stages


@pytest.fixture(scope="module")
def table():
    return errata()


def cell(table, number, row, quantity):
    found = table[(table["table"] == number) & (table["row"] == row) & (table["quantity"] == quantity)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize(
    ("row", "tokens", "ratio"),
    [
        ("Two stages", 10872, 169.5),
        ("Three stages, deeper", 10704, 172.2),
        ("Three stages, wider", 10512, 175.3),
        ("Four stages, wider then deeper", 11340, 162.5),
        ("Four stages, deeper then wider", 11484, 160.5),
    ],
)
def test_stage_means_of_table_2_differ(table, row, tokens, ratio):
    line = cell(table, "2", row, "#Tokens")
    assert (line["recomputed"], line["verdict"]) == (tokens, DIFFERS)
    line = cell(table, "2", row, "CR (%)")
    assert line["recomputed"] == pytest.approx(ratio, abs=0.05)
    assert line["verdict"] == DIFFERS


def test_what_table_2_gets_right(table):
    assert cell(table, "2", "Three stages, last stage compression", "#Tokens")["recomputed"] == 7848
    right = table[
        (table["table"] == "2") & table["row"].isin(["No compression", "Three stages, last stage compression"])
    ]
    assert (right["verdict"] == MATCHES).all()


def test_the_named_slips_reproduce_the_printed_tokens():
    """Each explanation in the notes is arithmetic that gives the printed integer."""
    full, slip = 18432, 2 * 576 + 30 * 18
    heavy, wide, deep = pooled_total(2, 8), pooled_total(2, 2), pooled_total(16, 2)
    assert (slip + full) / 2 == 10062
    assert (slip + 16 * 576 + 16 * 18 + deep + full) / 4 == 10863
    assert (2 * 576 + 16 * 72 + wide + deep + full) / 4 == 11088
    assert round(0.33 * (heavy + pooled_total(16, 8) + full)) == 10597
    assert round(0.33 * (heavy + wide + full)) == 10407


def test_only_one_stage_averaged_tflops_is_off(table):
    column = table[table["quantity"] == "TFLOPs, stage mean (arXiv v1)"]
    wrong = column[column["verdict"] == DIFFERS]
    assert list(wrong["row"]) == ["Three stages, wider"]
    assert wrong["recomputed"].iloc[0] == pytest.approx(5.05, abs=0.01)


def test_tables_1_and_5_match_throughout(table):
    analytic = table[table["table"].isin(["1", "5"]) & (table["quantity"] != "Avg")]
    assert len(analytic) > 30
    assert (analytic["verdict"] == MATCHES).all()
    assert (table.loc[table["quantity"].str.startswith("TFLOPs at"), "verdict"] == MATCHES).all()


def test_three_of_the_printed_averages_differ(table):
    means = table[table["quantity"] == "Avg"]
    wrong = means[means["verdict"] == DIFFERS]
    assert len(means) == 34
    assert list(zip(wrong["table"], wrong["row"], strict=True)) == [
        ("3", "K-Means (train and test)"),
        ("5", "(16,8)"),
        ("7", "Layer-wise progressive (train and test)"),
    ]


def test_table_9_is_recomputed_from_its_shares(table):
    column = table[(table["table"] == "9") & (table["quantity"] == "#Tokens")]
    assert list(column["recomputed"]) == [18432, 14652, 10872, 7092, 4824, 3312]
    assert list(column["verdict"]) == [MATCHES] + 5 * [DIFFERS]


def test_table_7_single_is_not_8_8(table):
    line = cell(table, "7", "Single (test only)", "CR (%)")
    assert line["recomputed"] == pytest.approx(290.9, abs=0.1)
    assert line["verdict"] == DIFFERS
    assert cell(table, "7", "Layer-wise progressive (test only)", "CR (%)")["recomputed"] == pytest.approx(
        266.7, abs=0.1
    )


def test_gqa_of_the_fusion_model_is_printed_twice(table):
    line = table[table["table"] == "fig1"].iloc[0]
    assert (line["printed"], line["recomputed"], line["verdict"]) == (61.8, 61.9, DIFFERS)


def test_figure_1_positions_follow_the_formula(table):
    assert (table.loc[table["table"] == "fig1_left", "verdict"] == MATCHES).all()


def test_headline_percentages_follow_from_table_2(table):
    lines = table[(table["table"] == "headline") & table["quantity"].str.contains("saved")]
    assert [round(value, 1) for value in lines["recomputed"]] == [16.3, 19.0, 19.0, 23.8]
    assert (lines["verdict"] == MATCHES).all()
    removed = table[table["quantity"] == "tokens removed (%)"].set_index("row")["verdict"]
    assert list(removed) == [MATCHES, DIFFERS], "the setting that section 4.2 names removes 37.5%"


def test_sizes_of_the_fusion_modules_follow_from_their_widths(table):
    lines = table[(table["paper"] == "stf") & table["table"].isin(["1", "2"])]
    assert len(lines) == 7
    assert (lines["verdict"] == MATCHES).all()


def test_video_tokens_repeat_the_slips_of_table_2(table):
    video = table[(table["table"] == "8") & (table["quantity"] == "#Tokens")].set_index("row")
    images = table[(table["table"] == "2") & (table["quantity"] == "#Tokens")].set_index("row")
    for row, line in video.iterrows():
        assert line["printed"] == 8 * images["printed"][row]
        assert line["verdict"] == images["verdict"][row]


def test_arithmetic_says_what_was_computed(table):
    """The arithmetic column evaluates to the recomputed value wherever it is plain arithmetic."""
    checked = 0
    for _, line in table.iterrows():
        text = line["arithmetic"]
        if set(text) <= set("0123456789.+-*/() e"):
            assert eval(text) == pytest.approx(line["recomputed"], rel=1e-3), line
            checked += 1
    assert checked > 90


def test_schemes_are_read_from_the_reference():
    assert stages()["Four stages, deeper then wider"] == [(2, 8), (16, 8), (16, 2), (0, 1)]

"""Normalisation and soft accuracy: constructed cases whose official results are known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visiontokens.evaluate.normalize import (
    CONTRACTIONS,
    VIZWIZ_CONTRACTIONS,
    m4c_accuracy,
    normalize_m4c,
    normalize_official,
    normalize_vizwiz,
    official_vqa_accuracy,
    soft_accuracy,
    strip_punctuation,
    vizwiz_accuracy,
)


@pytest.mark.parametrize(
    ("answers", "prediction", "official", "m4c"),
    [
        (["yes"] * 10, "Yes", 0, 1),
        (["yes"] * 9 + ["no"], "Yes.", 1, 1),
        (["2"] * 10, "two", 0, 1),
        (["2"] * 9 + ["3"], "two", 1, 1),
        (["red, white"] * 3 + ["red"] * 7, "red,white", 0.9, 0),
    ],
)
def test_official_and_m4c_evaluators_differ_as_known(answers, prediction, official, m4c):
    assert official_vqa_accuracy(prediction, answers) == pytest.approx(official)
    assert m4c_accuracy(prediction, answers) == pytest.approx(m4c)


@pytest.mark.parametrize(("matches", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_leave_one_out_accuracy(matches, score):
    assert soft_accuracy(matches) == pytest.approx(score)


@given(st.integers(0, 10))
def test_soft_accuracy_is_the_mean_over_the_ten_subsets(matches):
    votes = [True] * matches + [False] * (10 - matches)
    subsets = [min(1, sum(votes[:i] + votes[i + 1 :]) / 3) for i in range(10)]
    assert soft_accuracy(matches) == pytest.approx(sum(subsets) / 10)


@pytest.mark.parametrize(
    ("text", "official", "m4c"),
    [
        ("man's", "man's", "man 's"),
        ("red,white", "red white", "redwhite"),
        ("1,000", "1000", "1000"),
        ("The  Two dogs.", "2 dogs", "2 dogs"),
        ("dont know", "don't know", "don't know"),
        ("red-white", "red white", "red white"),
        ("red -white-blue", "red whiteblue", "red whiteblue"),
        ("3.5", "3.5", "3.5"),
        ("a\tb\nc", "b c", "b c"),
        ("none", "0", "0"),
        ("Im", "im", "im"),
    ],
)
def test_normalised_forms(text, official, m4c):
    assert normalize_official(text) == official
    assert normalize_m4c(text) == m4c


def test_at_most_32_periods_are_removed():
    assert strip_punctuation("." * 40) == "." * 8


def test_contraction_tables_have_120_entries_and_the_known_oddities():
    assert len(CONTRACTIONS) == len(VIZWIZ_CONTRACTIONS) == 120
    assert CONTRACTIONS["somebody'd"] == "somebodyd"
    assert CONTRACTIONS["couldnt've"] == CONTRACTIONS["couldn'tve"] == "couldn't've"
    assert sum("'" in key + value for key, value in VIZWIZ_CONTRACTIONS.items()) == 10


def test_vizwiz_normalises_the_prediction_only():
    assert vizwiz_accuracy("The Can", ["can"] * 10) == 1
    assert vizwiz_accuracy("can", ["Can"] * 10) == 0
    # Backticks in the evaluator's table: a contraction can never match what people write.
    assert normalize_vizwiz("dont") == "don`t"
    assert vizwiz_accuracy("don't", ["don't"] * 10) == 1
    assert vizwiz_accuracy("dont", ["don't"] * 10) == 0


@given(st.text(max_size=30))
def test_normalisation_leaves_one_line_in_lower_case(text):
    for normalised in (normalize_official(text), normalize_m4c(text)):
        assert normalised == " ".join(normalised.split())
        assert not set(normalised.split()) & {"a", "an", "the"}

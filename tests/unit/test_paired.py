"""Paired comparisons with the baseline: from score files to a corrected verdict."""

import numpy as np
import pandas as pd
import pytest

from visiontokens.analyze.paired import against, mean_over
from visiontokens.evaluate.score import Score, write_score
from visiontokens.evaluate.score.base import MEAN_CORRECT


def write(results, experiment, seed, outcomes, per_image):
    records = [
        {"question_id": str(i), "group": str(i // per_image), "correct": float(right), "prediction": ""}
        for i, right in enumerate(outcomes)
    ]
    score = Score("gqa", "accuracy", 100 * float(np.mean(outcomes)), {}, records, MEAN_CORRECT)
    folder = results / "scores" / experiment / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    write_score(score, folder / "gqa.json", resamples=50)


@pytest.mark.parametrize(("per_image", "test"), [(1, "mcnemar"), (4, "permutation, exact")])
def test_a_clear_loss_is_found_and_its_sign_is_right(tmp_path, per_image, test):
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.8
    write(tmp_path, "none", 0, right, per_image)
    write(tmp_path, "worse", 0, right & (rng.random(200) < 0.7), per_image)
    write(tmp_path, "same", 0, right, per_image)
    found = against(tmp_path, "none", ["none", "worse", "same"]).set_index("experiment")
    assert list(found.index) == ["worse", "same"]
    assert found.loc["worse", "difference"] == pytest.approx(-24, abs=5)
    assert found.loc["worse", "low"] < found.loc["worse", "difference"] < found.loc["worse", "high"] < 0
    assert found.loc["worse", "adjusted"] < 0.01
    assert found.loc["worse", "test"] == test
    assert (found.loc["same", "difference"], found.loc["same", "p_value"]) == (0, 1)


def test_seeds_are_a_second_level(tmp_path):
    """The same questions for all seeds; what differs between seeds widens the interval."""
    right = np.arange(100) % 3 > 0
    for seed in range(3):
        write(tmp_path, "none", seed, right, 1)
        write(tmp_path, "other", seed, ~right if seed else right, 1)
        write(tmp_path, "alike", seed, ~right, 1)
    write(tmp_path, "other", 3, right, 1)  # the baseline has no such seed
    other, alike = against(tmp_path, "none", ["other", "alike"]).to_dict("records")
    assert (other["seeds"], other["questions"], other["test"]) == (3, 100, "t")
    assert other["gaps"] == pytest.approx((0, -32, -32))
    assert other["difference"] == pytest.approx(-64 / 3)
    assert other["high"] - other["low"] > 1.8 * (alike["high"] - alike["low"])
    assert alike["se"] == pytest.approx(alike["questions_se"])
    assert alike["se"] < other["se"]


def test_the_mean_over_benchmarks_adds_their_errors_in_squares(tmp_path):
    rng = np.random.default_rng(1)
    for name in ("none", "other"):
        write(tmp_path, name, 0, rng.random(100) < 0.5, 1)
    line = against(tmp_path, "none", ["other"])
    both = pd.concat([line, line.assign(benchmark="mme", difference=0.0, gaps=[(0.0,)])])
    found = mean_over(both, pd.Series({"gqa": 1, "mme": 20}))
    assert found.value == pytest.approx(line["difference"].iloc[0] / 2)
    assert found.se == pytest.approx(line["se"].iloc[0] * np.hypot(1, 1 / 20) / 2)
    with pytest.raises(ValueError, match="0 benchmarks"):
        mean_over(line[:0], pd.Series())


def test_scores_without_their_questions_are_left_out(tmp_path):
    for name in ("none", "other"):
        write(tmp_path, name, 0, [1, 0, 1], 1)
    (tmp_path / "scores/other/seed0/gqa.questions.csv").unlink()
    assert against(tmp_path, "none", ["other"]).empty

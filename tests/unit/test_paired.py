"""Paired comparisons with the baseline: from score files to a corrected verdict."""

import numpy as np
import pytest

from visiontokens.analyze.paired import against
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


@pytest.mark.parametrize(("per_image", "test"), [(1, "mcnemar"), (4, "permutation")])
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


def test_seeds_count_as_repeated_answers_to_one_question(tmp_path):
    right = np.arange(100) % 2 > 0
    for seed in range(3):
        write(tmp_path, "none", seed, right, 1)
        write(tmp_path, "other", seed, ~right if seed else right, 1)
    write(tmp_path, "other", 3, right, 1)  # the baseline has no such seed
    (line,) = against(tmp_path, "none", ["other"]).to_dict("records")
    assert (line["seeds"], line["questions"], line["test"]) == (3, 100, "permutation")


def test_scores_without_their_questions_are_left_out(tmp_path):
    for name in ("none", "other"):
        write(tmp_path, name, 0, [1, 0, 1], 1)
    (tmp_path / "scores/other/seed0/gqa.questions.csv").unlink()
    assert against(tmp_path, "none", ["other"]).empty

"""Exact match on videos: what counts, by type, over the free types as they are and as the official script has them."""

from __future__ import annotations

import pytest

from visiontokens.data.benchmarks import Example
from visiontokens.evaluate.score import score_json
from visiontokens.evaluate.score.videoqa import score_activitynet, score_exact


def example(number: int, answer: str, kind: str, video: str = "a") -> Example:
    return Example(str(number), f"{video}.avi", "What?", video, {"answer": answer, "kind": kind})


@pytest.mark.parametrize(
    ("text", "right"), [("red", 1), ("Red.", 1), (" red ", 1), ("dark red", 0), ("", 0), ("reddish", 0)]
)
def test_an_answer_is_compared_as_a_whole(text: str, right: float) -> None:
    score = score_exact([example(0, "red", "what")], {"0": text}, name="tgif_qa")
    assert score.value == 100 * right
    assert score.metric == "exact match (offline)", "never to be taken for a judged accuracy"


def test_types_and_free_types() -> None:
    """The official script divides by all but the first three types of the file, whichever these are."""
    kinds = ["color", "motion", "number", "number", "spatial", "temporal"]
    examples = [example(i, "x", kind) for i, kind in enumerate(kinds)]
    answers = {"0": "x", "1": "y", "2": "x", "3": "y", "4": "x", "5": "x"}
    score = score_activitynet(examples, answers)
    assert score.value == pytest.approx(100 * 4 / 6)
    assert score.parts["type/number"] == 50 and score.parts["type/motion"] == 0
    assert score.parts["free"] == pytest.approx(100 * 2 / 3)
    official = score_activitynet(examples, answers, literal=True)
    assert official.parts["free"] == pytest.approx(100 * 2 / 2) and official.policy == {"literal": True}
    assert official.value == score.value
    assert score_activitynet(examples, {**answers, "0": "X."}).value == score.value
    assert score_activitynet(examples, {**answers, "0": "X."}, literal=True).value < score.value


def test_the_interval_resamples_videos() -> None:
    examples = [example(i, "x", "color", video=f"v{i // 10}") for i in range(40)]
    answers = {str(i): "x" if i // 10 % 2 else "y" for i in range(40)}
    found = score_json(score_activitynet(examples, answers), resamples=400)
    assert found["bootstrap"]["groups"] == 4
    assert found["ci_high"] - found["ci_low"] > 60, "four videos, all right or all wrong"


def test_a_missing_answer_is_named() -> None:
    with pytest.raises(ValueError, match="no prediction for question id '1'"):
        score_exact([example(0, "a", "what"), example(1, "b", "what")], {"0": "a"}, name="msvd_qa")

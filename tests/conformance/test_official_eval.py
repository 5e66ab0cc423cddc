"""Scores of LLaVA-1.5-13B recomputed from its released prediction files, to the last digit.

The files carry their own licences and are not part of the repository. `VISIONTOKENS_OFFICIAL_EVAL` names a folder with
`pope/` (coco_pope_*.json, llava_pope_test.jsonl, answers_llava-v1.5-13b.jsonl), `scienceqa/` (llava_test_CQM-A.json,
pid_splits.json, llava-v1.5-13b_result.json) and `mmbench/` (llava-v1.5-13b.xlsx, answers_llava-v1.5-13b.jsonl).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from visiontokens.data.benchmarks import BENCHMARKS
from visiontokens.evaluate.predictions import read_predictions
from visiontokens.evaluate.score import score_benchmark, score_json

FOLDER = os.environ.get("VISIONTOKENS_OFFICIAL_EVAL")
pytestmark = pytest.mark.skipif(not FOLDER, reason="VISIONTOKENS_OFFICIAL_EVAL names no folder of released predictions")
ROOT = Path(FOLDER or ".")

# (tp, fp, tn, fn, accuracy, precision, recall, F1, yes ratio); None where no figure was published
POPE = {
    "random": (1182, 31, 1379, 318, 0.8801, 0.9744, 0.7880, 0.8714, 0.4168),
    "popular": (1182, 59, 1441, 318, 0.8743, None, None, 0.8625, None),
    "adversarial": (1182, 117, 1383, 318, 0.8550, None, None, 0.8446, None),
}
COLUMNS = ("tp", "fp", "tn", "fn", "accuracy", "precision", "recall", "f1", "yes_ratio")


def test_pope_mean_f1_and_category_tables():
    score = score_benchmark("pope", ROOT / "pope" / "answers_llava-v1.5-13b.jsonl", ROOT)
    assert score.n == 8910
    assert round(score.value, 3) == 85.947
    for category, row in POPE.items():
        for column, expected in zip(COLUMNS, row, strict=True):
            if expected is not None:
                assert round(score.parts[f"{category}/{column}"], 4) == expected, (category, column)
    assert len({record["group"] for record in score.per_question}) == 500


def test_pope_interval_holds_the_value():
    score = score_benchmark("pope", ROOT / "pope" / "answers_llava-v1.5-13b.jsonl", ROOT)
    found = score_json(score, resamples=500)
    assert found["ci_low"] < found["value"] < found["ci_high"]
    assert found["bootstrap"]["groups"] == 500
    assert 1 < found["ci_high"] - found["ci_low"] < 4


@pytest.fixture(scope="module")
def scienceqa(tmp_path_factory):
    result = json.loads((ROOT / "scienceqa" / "llava-v1.5-13b_result.json").read_text())
    path = tmp_path_factory.mktemp("scienceqa") / "answers.jsonl"
    lines = [json.dumps({"question_id": key, "text": text}) for key, text in result["outputs"].items()]
    path.write_text("\n".join(lines))
    return score_benchmark("scienceqa", path, ROOT), result


def test_scienceqa_image_and_overall_accuracy(scienceqa):
    score, _ = scienceqa
    image = [record for record in score.per_question if record["has_image"]]
    assert (sum(record["correct"] for record in image), len(image)) == (1445, 2017)
    assert round(score.value, 4) == 71.6411
    assert (sum(record["correct"] for record in score.per_question), score.n) == (3155, 4241)
    assert round(score.parts["all"], 4) == 74.3928


def test_scienceqa_letters_and_every_single_index(scienceqa):
    score, result = scienceqa
    parsed = Counter(record["parsed"] for record in score.per_question)
    assert parsed == {"B": 1756, "A": 1555, "C": 646, "D": 268, "E": 11, "FAILED": 5}
    assert {record["question_id"]: record["index"] for record in score.per_question} == result["results"]


def test_mmbench_circular_first_pass_and_all_rows():
    score = score_benchmark("mmbench", ROOT / "mmbench" / "answers_llava-v1.5-13b.jsonl", ROOT)
    assert score.n == 4377
    assert sum(record["base"] for record in score.per_question) == 1176
    assert round(score.value, 4) == 67.6871
    assert round(score.parts["first_pass"], 4) == 75.4252
    assert round(score.parts["all_rows"], 4) == 76.4451
    assert score.parts["unparsed"] == 0


def test_mmbench_prompts_are_those_that_llava_recorded():
    """LLaVA's recorded prompt lacks the suffix and, in the sheet, the hint; the rest must be equal."""
    recorded = {}
    with (ROOT / "mmbench" / "answers_llava-v1.5-13b.jsonl").open() as handle:
        for line in handle:
            record = json.loads(line)
            recorded[str(record["question_id"])] = record["prompt"]
    for example in BENCHMARKS["mmbench"].read(ROOT):
        body, _, suffix = example.prompt.rpartition("\n")
        assert recorded[example.question_id].endswith(body), example.question_id
        assert suffix == "Answer with the option's letter from the given choices directly."


def test_prompts_of_pope_and_scienceqa_are_those_that_llava_recorded():
    prompts = {example.question_id: example.prompt for example in BENCHMARKS["pope"].read(ROOT)}
    with (ROOT / "pope" / "answers_llava-v1.5-13b.jsonl").open() as handle:
        for line in handle:
            record = json.loads(line)
            assert prompts[str(record["question_id"])] == record["prompt"]
    prompts = {example.question_id: example.prompt for example in BENCHMARKS["scienceqa"].read(ROOT)}
    outcome = json.loads((ROOT / "scienceqa" / "llava-v1.5-13b_output.jsonl").read_text())
    for record in outcome["correct"] + outcome["incorrect"]:
        assert prompts[record["question_id"]] == record["question"].removeprefix("<image>\n")


def test_released_answer_files_pass_validation():
    examples = BENCHMARKS["pope"].read(ROOT)
    answers = read_predictions(ROOT / "pope" / "answers_llava-v1.5-13b.jsonl", examples)
    assert list(answers) == [example.question_id for example in examples]

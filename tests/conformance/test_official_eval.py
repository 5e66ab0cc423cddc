"""Scores of LLaVA-1.5-13B recomputed from its released prediction files, to the last digit.

The files carry their own licences and are not part of the repository. `VISIONTOKENS_OFFICIAL_EVAL` names a folder with
`pope/` (coco_pope_*.json, llava_pope_test.jsonl, answers_llava-v1.5-13b.jsonl), `scienceqa/` (llava_test_CQM-A.json,
pid_splits.json, llava-v1.5-13b_result.json) and `mmbench/` (llava-v1.5-13b.xlsx, answers_llava-v1.5-13b.jsonl).
Tests of further files are skipped where these are not in the folder: `seed/` (answers_upload_llava-v1.5-13b.jsonl, the
repository's evaluate_result/SEED-Bench-1/GPT-4V.json), `mmmu/` (the repository's answer_dict_val.json and
example_outputs) and `vizwiz/` (llava_test.jsonl, answers_llava-v1.5-13b.jsonl, answers_upload_llava-v1.5-13b.json).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import openpyxl
import pytest

from visiontokens.data.benchmarks import BENCHMARKS, Example
from visiontokens.evaluate.predictions import read_predictions
from visiontokens.evaluate.score import SCORERS, score_benchmark, score_json
from visiontokens.evaluate.submission import write_submission

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


def official(*names):
    """Return a file of the folder, or skip the test and name the file."""
    path = ROOT.joinpath(*names)
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def test_seed_image_part_of_llava_13b_and_both_parts_of_gpt_4v():
    """The gold letters are those that the organisers' own result file repeats."""
    listed = official("seed", "GPT-4V.json").read_text().splitlines()
    rows = [json.loads(line.rstrip().rstrip(",")) for line in listed if line.strip()]
    gold = {row["question_id"]: row["gt_answer"] for row in rows}
    upload = official("seed", "answers_upload_llava-v1.5-13b.jsonl")
    ids = [json.loads(line)["question_id"] for line in upload.read_text().splitlines()]
    seen: Counter[str] = Counter()
    examples = []
    for key in (key for key in ids if not key.startswith("v")):
        seen[key] += 1
        meta = {"answer": gold[key], "type": "?", "part": "image", "official_id": key}
        examples.append(Example(key if seen[key] == 1 else f"{key}#{seen[key]}", None, "", key, meta))
    assert [key for key, count in seen.items() if count > 1] == ["49914"]
    score = SCORERS["seed"].score(examples, SCORERS["seed"].answers(upload, examples))
    assert (score.n, round(score.value, 4)) == (14233, 68.2077)
    for part, expected in (("image", 0.69073), ("video", 0.60500)):
        found = [
            row["prediction"] == row["gt_answer"] for row in rows if (row["question_id"][0] == "v") == (part == "video")
        ]
        assert round(sum(found) / len(found), 5) == expected


MMMU = {
    "llava1.5_13b/total_val_output.json": 0.367,
    "llava1.5_13b_val.json": 0.360,
    "qwen_vl/total_val_output.json": 0.361,
}
MMMU_DOMAINS = {
    "Art and Design": 0.525, "Business": 0.227, "Science": 0.293, "Health and Medicine": 0.387,
    "Humanities and Social Science": 0.550, "Tech and Engineering": 0.310,
}  # fmt: skip


@pytest.mark.parametrize("name", MMMU)
def test_mmmu_of_released_answers(name):
    official("mmmu", "answer_dict_val.json")
    examples = BENCHMARKS["mmmu"].read(ROOT)
    scorer = SCORERS["mmmu"]
    score = scorer.score(examples, scorer.answers(official("mmmu", "example_outputs", name), examples))
    assert score.n == 900
    assert Counter(record["kind"] for record in score.per_question) == {"multiple-choice": 847, "open": 53}
    assert round(score.value / 100, 3) == MMMU[name]
    if name.startswith("llava1.5_13b/"):
        for domain, expected in MMMU_DOMAINS.items():
            assert round(score.parts[f"domain/{domain}"] / 100, 3) == expected, domain


@pytest.mark.parametrize(("model", "unparsed"), [("llava1.5_13b", 2), ("qwen_vl", 48)])
def test_mmmu_of_released_responses_with_the_official_random_letters(model, unparsed):
    """Parsed here, with the seed and order of the official script, both give what its own parsed answers give."""
    official("mmmu", "answer_dict_val.json")
    folder = official("mmmu", "example_outputs", model)
    rows = [row for path in folder.glob("*/output.json") for row in json.loads(path.read_text())]
    options = {row["id"]: tuple((row.get("index2ans") or {}).values()) for row in rows}
    examples = [
        replace(example, meta={**example.meta, "options": options[example.question_id]})
        for example in BENCHMARKS["mmmu"].read(ROOT)
    ]
    scorer = SCORERS["mmmu"]
    answers = scorer.answers(folder, examples)
    score = scorer.score(examples, answers, **scorer.policies["official"])
    assert round(score.value / 100, 3) == MMMU[f"{model}/total_val_output.json"]
    assert score.parts["unparsed"] == unparsed
    assert scorer.score(examples, answers, **scorer.policies["correct"]).value < score.value


def test_vizwiz_upload_is_llavas_to_the_byte(tmp_path):
    official("vizwiz", "llava_test.jsonl")
    out = tmp_path / "upload.json"
    write_submission("vizwiz", official("vizwiz", "answers_llava-v1.5-13b.jsonl"), ROOT, out)
    assert out.read_bytes() == official("vizwiz", "answers_upload_llava-v1.5-13b.json").read_bytes()
    rows = json.loads(out.read_text())
    assert (len(rows), sum(row["answer"] == "unanswerable" for row in rows)) == (8000, 2361)


def test_mmbench_upload_is_llavas_cell_by_cell(tmp_path):
    out = tmp_path / "upload.xlsx"
    write_submission("mmbench", official("mmbench", "answers_llava-v1.5-13b.jsonl"), ROOT, out)
    found, released = (
        list(openpyxl.load_workbook(path, read_only=True).worksheets[0].iter_rows(values_only=True))
        for path in (out, official("mmbench", "llava-v1.5-13b.xlsx"))
    )
    assert len(found) == 4378 and found == released

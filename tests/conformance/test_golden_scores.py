"""Scores of released answer files through the command, to the last digit: what a user with the files can repeat.

The files carry their own licences and are not part of the repository. `VISIONTOKENS_OFFICIAL_EVAL` names a folder with
one for each benchmark, which holds official files under their own names and answers as they were released. A row of
the table whose files are not there is skipped and names the first one that is missing.

The expected numbers were computed with the official scripts, except where a row says something else; those of
LLaVA-1.5-13B round to the published ones (POPE 85.9, MME 1531.3, MMBench 67.7, ScienceQA 71.6, MM-Vet 36.1 to 36.5).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from visiontokens.cli import main
from visiontokens.evaluate.normalize import normalize_m4c
from visiontokens.evaluate.released import read_content
from visiontokens.evaluate.score import SCORERS

FOLDER = os.environ.get("VISIONTOKENS_OFFICIAL_EVAL")
pytestmark = pytest.mark.skipif(not FOLDER, reason="VISIONTOKENS_OFFICIAL_EVAL names no folder of released predictions")
ROOT = Path(FOLDER or ".")


class Golden(NamedTuple):
    """One released answer file and its numbers.

    Attributes:
        benchmark: name.
        answers: file below the benchmark's folder.
        score: the score, rounded as given.
        parts: some parts, rounded as given.
        truth: one of the official files that are needed.
    """

    benchmark: str
    answers: str
    score: float
    parts: dict[str, float]
    truth: str


_13B = "llava-v1.5-13b"
_POPE = {
    "random/f1": 0.8714, "random/accuracy": 0.8801, "random/tp": 1182, "random/fp": 31, "random/tn": 1379,
    "random/fn": 318, "popular/f1": 0.8625, "adversarial/f1": 0.8446,
}  # fmt: skip
_MME_13B = {
    "cognition": 295.36, "existence": 185, "count": 155, "position": 133.33, "color": 170, "posters": 160.54,
    "celebrity": 152.94, "scene": 161.25, "landmark": 170.5, "artwork": 117.75, "OCR": 125,
    "commonsense_reasoning": 127.86, "numerical_calculation": 42.5, "text_translation": 77.5, "code_reasoning": 47.5,
}  # fmt: skip
_MMBENCH = {"first_pass": 75.4252, "all_rows": 76.4451}
_ACTIVITYNET = {
    "type/motion": 18.78, "type/spatial": 22.33, "type/temporal": 3.5, "type/yes/no": 76.34, "type/color": 33.67,
    "type/object": 22.16, "type/location": 28.75, "type/number": 64.03, "type/other": 35.8, "free": 75.83,
}  # fmt: skip


def _reviews(size: str, number: int, score: float, printed: tuple[float, float, float, float]) -> Golden:
    """Return LLaVA-Bench's row: all, conversation, detail and complex as the official summary prints them."""
    parts = dict(zip((f"printed/{name}" for name in ("all", "conv", "detail", "complex")), printed, strict=True))
    return Golden("llava_bench", f"llava-v1.5-{size}-eval{number}.jsonl", score, parts, "")


GOLDEN = [
    Golden("pope", f"answers_{_13B}.jsonl", 85.947, _POPE, "coco_pope_random.json"),
    Golden("mme", f"answers_{_13B}.jsonl", 1531.32, _MME_13B, "Your_Results/existence.txt"),
    Golden("mme", "LaVIN", 963.6114445778, {"cognition": 249.6428571429, "OCR": 107.5}, "Your_Results/existence.txt"),
    Golden("mmbench", f"{_13B}.xlsx", 67.6871, _MMBENCH, f"{_13B}.xlsx"),
    Golden("mmbench", f"answers_{_13B}.jsonl", 67.6871, _MMBENCH, f"{_13B}.xlsx"),
    Golden("scienceqa", f"{_13B}_result.json", 71.6411, {"all": 74.3928, "failed": 5}, "pid_splits.json"),
    Golden("scienceqa", f"{_13B}_output.jsonl", 71.6411, {"all": 74.3928, "failed": 5}, "pid_splits.json"),
    Golden("mmvet", "llava-v1.5-7b_gpt-4-grade-3runs.json", 31.1009,
           {"run/1": 31.2385, "run/2": 30.8257, "run/3": 31.2385, "std": 0.1946}, ""),
    Golden("mmvet", f"{_13B}_gpt-4-grade-3runs.json", 36.3150,
           {"run/1": 36.1009, "run/2": 36.5138, "run/3": 36.3303}, ""),
    _reviews("7b", 1, 64.75, (64.7, 59.3, 47.7, 77.6)),
    _reviews("7b", 2, 65.33, (65.3, 59.0, 48.5, 78.8)),
    _reviews("7b", 3, 66.35, (66.3, 59.0, 50.8, 79.6)),
    Golden("llava_bench", f"{_13B}-eval1.jsonl", 72.83, {"printed/all": 72.8}, ""),
    Golden("llava_bench", f"{_13B}-eval2.jsonl", 72.74, {"printed/all": 72.7}, ""),
    Golden("llava_bench", f"{_13B}-eval3.jsonl", 72.07, {"printed/all": 72.1}, ""),
    Golden("activitynet_qa", "pred_val_example.json", 39.84, _ACTIVITYNET, "val_a.json"),
    Golden("mmmu", "llava1.5_13b/total_val_output.json", 0.367, {}, "answer_dict_val.json"),
    Golden("mmmu", "llava1.5_13b_val.json", 0.360, {}, "answer_dict_val.json"),
    Golden("mmmu", "qwen_vl/total_val_output.json", 0.361, {}, "answer_dict_val.json"),
]  # fmt: skip
"""MMMU's published unit is a share of 1; a score in percent is compared after division by 100."""


def needed(*files: Path) -> None:
    """Skip unless all files are there."""
    missing = [path for path in files if not path.exists()]
    if missing:
        pytest.skip(f"{missing[0]} is not there")


def scored(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """Return what the command prints."""
    assert main(["score", *map(str, arguments)]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def digits(number: float) -> int:
    """Return the decimal places that a number is written with."""
    return len(str(number).partition(".")[2])


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"{row.benchmark}-{Path(row.answers).name}")
def test_released_answers_give_their_numbers(row: Golden, capsys: pytest.CaptureFixture[str]) -> None:
    if row.benchmark not in SCORERS:
        pytest.skip(f"{row.benchmark} has no scorer")
    answers = ROOT / row.benchmark / row.answers
    needed(answers, ROOT / row.benchmark / row.truth)
    found = scored(capsys, row.benchmark, "--answers", answers, "--data", ROOT, "--policy", "official")
    unit = 0.01 if row.benchmark == "mmmu" and found["score"] > 1 else 1.0
    assert round(found["score"] * unit, digits(row.score)) == row.score
    for name, expected in row.parts.items():
        assert round(found["parts"][name], digits(expected)) == expected, name
    assert found["policies"]["official"] == found["score"] and found["n"] > 0
    again = scored(capsys, row.benchmark, "--answers", answers, "--data", ROOT, "--policy", "correct")
    assert again["score"] == again["policies"]["correct"] == found["policies"]["correct"]


def test_the_published_llava_bench_number_is_the_mean_of_three_printed_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """65.4 in the model zoo; rounding once only would give 65.5."""
    files = [ROOT / "llava_bench" / f"llava-v1.5-7b-eval{number}.jsonl" for number in (1, 2, 3)]
    needed(*files)
    printed = [scored(capsys, "llava_bench", "--answers", f, "--data", ROOT)["parts"]["printed/all"] for f in files]
    assert round(sum(printed) / 3, 1) == 65.4


def test_free_questions_of_activitynet_are_counted_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    answers = ROOT / "activitynet_qa" / "pred_val_example.json"
    needed(answers)
    found = scored(capsys, "activitynet_qa", "--answers", answers, "--data", ROOT, "--policy", "correct")
    assert round(found["parts"]["free"], 2) == 50.55 and round(found["other_parts"]["free"], 2) == 75.83


def test_vizwiz_answers_become_the_released_upload() -> None:
    folder = ROOT / "vizwiz"
    needed(folder / f"answers_{_13B}.jsonl", folder / f"upload_{_13B}.json")
    answers, upload = (read_content(folder / name) for name in (f"answers_{_13B}.jsonl", f"upload_{_13B}.json"))
    assert not isinstance(answers, dict) and not isinstance(upload, dict)
    submitted = [normalize_m4c(record["text"]) for _, record in answers]
    assert submitted == [record["answer"] for _, record in upload]
    assert (len(submitted), submitted.count("unanswerable")) == (8000, 2361)


def test_seed_images_of_the_13b_upload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The truth is that of the released GPT-4V answers, which hold it beside every image question."""
    if "seed" not in SCORERS:
        pytest.skip("seed has no scorer")
    truth, upload = ROOT / "seed" / "GPT-4V.json", ROOT / "seed" / f"upload_{_13B}.jsonl"
    needed(truth, upload)
    rows = [json.loads(line.rstrip().rstrip(",")) for line in truth.read_text().splitlines() if line.strip()]
    images = {row["question_id"]: row["gt_answer"] for row in rows if not row["question_id"].startswith("v")}
    choices = {f"choice_{letter}": letter for letter in "abcd"}
    questions = [
        {"question_id": key, "answer": images[key], "question_type_id": 1, "data_id": key, "question": "?", **choices}
        for key in [*images, "49914"]  # this id occurs twice in the official file, too
    ]
    (tmp_path / "SEED-Bench.json").write_text(json.dumps({"questions": questions}))
    found = scored(capsys, "seed", "--answers", upload, "--data", tmp_path)
    assert (found["n"], round(found["score"], 3)) == (14233, 68.208)

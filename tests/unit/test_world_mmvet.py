"""MM-Vet of the mini world: official format, answers that are true, the same bytes from the same seed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from visiontokens.config import FurtherConfig
from visiontokens.data.benchmarks import BENCHMARKS, Example
from visiontokens.data.miniworld.benchmarks import mmvet
from visiontokens.data.miniworld.files import WorldFiles
from visiontokens.data.miniworld.tokenizer import build_tokenizer
from visiontokens.evaluate.score import SCORERS, read_answers, score_answers
from visiontokens.evaluate.score.mmvet import compared

SIZES = FurtherConfig(seed=3, mmvet_questions=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    files = WorldFiles(root)
    assert mmvet.write(files, SIZES, "benchmarks/mmvet") == {"questions": 120, "images": 120}
    assert {name for name, _ in files.images} == {"further"}
    return root / "benchmarks"


@pytest.fixture(scope="module")
def examples(folder: Path) -> list[Example]:
    return BENCHMARKS["mmvet"].read(folder)


def test_the_loader_reads_questions_images_and_capabilities(folder: Path, examples: list[Example]) -> None:
    assert [example.question_id for example in examples] == [f"v1_{number}" for number in range(120)]
    for example in examples:
        image = BENCHMARKS["mmvet"].image_path(folder, example)
        assert image is not None and image.is_file()
    counts = Counter(name for example in examples for name in example.meta["capabilities"])
    assert set(counts) == {"rec", "ocr", "spat", "math", "gen"}
    assert min(counts.values()) >= 8, counts
    together = Counter(example.meta["capabilities"] for example in examples)
    assert len(together) >= 6, "questions need several sets of capabilities"


def test_answers_use_both_marks_and_known_words_only(examples: list[Example]) -> None:
    answers = [example.meta["answer"] for example in examples]
    assert sum("<AND>" in answer for answer in answers) > 30
    assert any("<OR>" in answer for answer in answers)
    tokenizer = build_tokenizer()
    for example in examples:
        assert tokenizer.unk_token_id not in tokenizer(example.prompt)["input_ids"], example.prompt


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(folder: Path, tmp_path: Path) -> None:
    for seed, same in ((3, True), (4, False)):
        mmvet.write(WorldFiles(tmp_path / str(seed)), FurtherConfig(seed=seed, mmvet_questions=120), "mmvet")
        for name in ("mm-vet.json", "images/v1_7.png"):
            first, second = (folder / "mmvet" / name, tmp_path / str(seed) / "mmvet" / name)
            assert (first.read_bytes() == second.read_bytes()) is same


def test_scores_of_the_stand_in_are_labelled(examples: list[Example], tmp_path: Path) -> None:
    """The truth scores 100, half of a double question 50 or so, and the score says that nobody judged."""
    truth = {
        example.question_id: example.meta["answer"].split("<OR>")[0].replace("<AND>", " and ") for example in examples
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps(truth))
    answers, judged = read_answers("mmvet", path, examples)
    score = score_answers("mmvet", examples, answers, judged=judged)
    assert score.value == 100
    assert score.judge is not None and score.judge["stand_in"] and "not a judge" in score.judge["id"]
    assert SCORERS["mmvet"].score(examples, dict.fromkeys(truth, "")).value == 0
    assert compared("red<AND>12", "red") == 0.5
    assert compared("3<OR>three", "three of them") == 1.0

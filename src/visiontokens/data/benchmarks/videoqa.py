"""Open questions about videos with one gold answer: MSVD-QA, MSRVTT-QA, TGIF-QA's FrameQA and ActivityNet-QA.

Files, as Video-LLaVA's evaluation reads them: `test_q.json` (`video_name`, `question`, `question_id`), `test_a.json`
(`answer`, `type`, `question_id`), `videos/<video_name>` with one of five suffixes; ActivityNet's video files have `v_`
before the name. The original releases do as well: `test_qa.json` (`video_id`, `question`, `answer`) of MSVD-QA and
MSRVTT-QA, TGIF-QA's `Test_frameqa_question.csv`, which is parted by tabs. Questions and answers are joined by id: the
official script joins them by place, which is wrong as soon as the questions are split among processes.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.base import BenchmarkError, Example, read_object, require
from visiontokens.data.videos import find_video

ACTIVITYNET_TYPES = ("motion", "spatial", "temporal", "yes/no", "color", "object", "location", "number", "other")
"""Question types by number; the first three are asked by template, the others are the "free" ones."""
TGIF_TYPES = ("object", "number", "color", "location")
"""FrameQA's types by number."""
TGIF_FILE = "Test_frameqa_question.csv"

Pair = tuple[dict[str, Any], dict[str, Any]]
"""The records of a question and of its answer."""


def load_xu(root: Path, *, file: str, suffix: bool = True) -> list[Example]:
    """Read MSVD-QA or MSRVTT-QA below `root`; types are the questions' first words where the file has none.

    Args:
        root: folder of the files.
        file: name of a video's file in the original release, with `{}` for its number.
        suffix: ask for a single word or phrase (our choice: exact match cannot score sentences); Video-LLaVA, whose
            answers a language model judges, asks the bare question.

    Raises:
        FileNotFoundError: a file is missing.
        BenchmarkError: a record lacks a key, or a question has no answer.
    """
    return [
        _example(root, question, answer, kind=str(answer.get("type") or question["question"].split()[0].lower()),
                 file=question["video_name"], suffix=suffix)
        for question, answer in (_original(root, file) if _only(root, "test_qa.json") else _pairs(root))
    ]  # fmt: skip


load_msvd = partial(load_xu, file="vid{}")
load_msrvtt = partial(load_xu, file="video{}")


def load_tgif(root: Path, *, suffix: bool = True) -> list[Example]:
    """Read TGIF-QA's FrameQA test questions below `root` (arguments and errors: see `load_xu`)."""
    examples = []
    for question, answer in _frame_qa(root / TGIF_FILE) if _only(root, TGIF_FILE) else _pairs(root):
        number = str(answer.get("type", ""))
        kind = TGIF_TYPES[int(number)] if number in {"0", "1", "2", "3"} else number or "frame"
        examples.append(_example(root, question, answer, kind=kind, file=question["video_name"], suffix=suffix))
    return examples


def load_activitynet(root: Path, *, suffix: bool = True, split: str = "test") -> list[Example]:
    """Read a split of ActivityNet-QA below `root` (other arguments and errors: see `load_xu`)."""
    examples = []
    for question, answer in _pairs(root, split):
        number = answer.get("type")
        if not isinstance(number, int) or not 0 <= number < len(ACTIVITYNET_TYPES):
            where = f"{root / f'{split}_a.json'}: question id {answer['question_id']!r}"
            raise BenchmarkError(f"{where}: found type {number!r}, expected 0 to {len(ACTIVITYNET_TYPES) - 1}")
        kind, file = ACTIVITYNET_TYPES[number], f"v_{question['video_name']}"
        examples.append(_example(root, question, answer, kind=kind, file=file, suffix=suffix))
    return examples


def _only(root: Path, name: str) -> bool:
    """Return whether the original release is there and the converted pair of files is not."""
    return (root / name).is_file() and not (root / "test_q.json").is_file()


def _original(root: Path, file: str) -> list[Pair]:
    """Return the pairs of the original release; where it numbers no questions, their place does."""
    pairs = []
    for number, row in enumerate(_records(root / "test_qa.json", ("video_id", "question", "answer"))):
        key = row.get("id", number)
        asked = {"video_name": file.format(row["video_id"]), "question": row["question"], "question_id": key}
        pairs.append((asked, {"answer": row["answer"], "question_id": key}))
    return pairs


def _frame_qa(path: Path) -> list[Pair]:
    """Return the pairs of TGIF-QA's table."""
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))
    pairs = []
    for number, row in enumerate(rows, 2):
        where = f"{path}:{number}"
        require(row, ("gif_name", "question", "answer", "type", "vid_id"), where)
        if None in row.values() or None in row:
            raise BenchmarkError(f"{where}: found another number of columns than in the header")
        asked = {"video_name": row["gif_name"], "question": row["question"], "question_id": row["vid_id"]}
        pairs.append((asked, {"answer": row["answer"], "type": row["type"], "question_id": row["vid_id"]}))
    return pairs


def _pairs(root: Path, split: str = "test") -> list[Pair]:
    """Return every question with its answer."""
    answered = root / f"{split}_a.json"
    asked = _records(root / f"{split}_q.json", ("video_name", "question", "question_id"))
    answers = {str(row["question_id"]): row for row in _records(answered, ("answer", "question_id"))}
    for row in asked:
        if str(row["question_id"]) not in answers:
            raise BenchmarkError(f"{answered}: no answer to question id {row['question_id']!r}")
    return [(row, answers[str(row["question_id"])]) for row in asked]


def _records(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    rows = read_object(path)
    if not isinstance(rows, list):
        raise BenchmarkError(f"{path}: found {type(rows).__name__}, expected a list of records")
    for number, row in enumerate(rows):
        require(row, keys, f"{path}: record {number}")
    return rows


def _example(
    root: Path, question: dict[str, Any], answer: dict[str, Any], *, kind: str, file: str, suffix: bool
) -> Example:
    text = str(question["question"])
    return Example(
        question_id=str(question["question_id"]),
        image=find_video(root / "videos", file),
        prompt=prompts.short_answer(text) if suffix else text,
        group=str(question["video_name"]),
        meta={
            "answer": str(answer["answer"]),
            "kind": kind,
            "question": text,
            "official_id": str(question["video_name"]),
        },
    )

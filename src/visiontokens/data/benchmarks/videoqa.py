"""MSVD-QA and ActivityNet-QA: open questions about videos, one gold answer (Xu et al., 2017; Yu et al., 2019).

Files, as Video-LLaVA's evaluation reads them: `test_q.json` (`video_name`, `question`, `question_id`), `test_a.json`
(`answer`, `type`, `question_id`), `videos/<video_name>` with one of four suffixes; ActivityNet's video files have `v_`
before the name. Questions and answers are joined by id: the official script joins them by place, which is wrong as
soon as the questions are split among processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.base import BenchmarkError, Example, read_object, require
from visiontokens.data.videos import find_video

ACTIVITYNET_TYPES = ("motion", "spatial", "temporal", "yes/no", "color", "object", "location", "number", "other")
"""Question types by number; the first three are asked by template, the others are the "free" ones."""


def load_msvd(root: Path, *, suffix: bool = True) -> list[Example]:
    """Read MSVD-QA below `root`; types are the questions' first words where the file has none.

    Args:
        root: folder of the files.
        suffix: ask for a single word or phrase (our choice: exact match cannot score sentences); Video-LLaVA, whose
            answers a language model judges, asks the bare question.

    Raises:
        FileNotFoundError: a file is missing.
        BenchmarkError: a record lacks a key, or a question has no answer.
    """
    return [
        _example(root, question, answer, kind=str(answer.get("type") or question["question"].split()[0].lower()),
                 file=question["video_name"], suffix=suffix)
        for question, answer in _pairs(root)
    ]  # fmt: skip


def load_activitynet(root: Path, *, suffix: bool = True) -> list[Example]:
    """Read ActivityNet-QA below `root` (arguments and errors: see `load_msvd`)."""
    examples = []
    for question, answer in _pairs(root):
        number = answer.get("type")
        if not isinstance(number, int) or not 0 <= number < len(ACTIVITYNET_TYPES):
            where = f"{root / 'test_a.json'}: question id {answer['question_id']!r}"
            raise BenchmarkError(f"{where}: found type {number!r}, expected 0 to {len(ACTIVITYNET_TYPES) - 1}")
        kind, file = ACTIVITYNET_TYPES[number], f"v_{question['video_name']}"
        examples.append(_example(root, question, answer, kind=kind, file=file, suffix=suffix))
    return examples


def _pairs(root: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return every question with its answer."""
    asked = _records(root / "test_q.json", ("video_name", "question", "question_id"))
    answers = {str(row["question_id"]): row for row in _records(root / "test_a.json", ("answer", "question_id"))}
    for row in asked:
        if str(row["question_id"]) not in answers:
            raise BenchmarkError(f"{root / 'test_a.json'}: no answer to question id {row['question_id']!r}")
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
        meta={"answer": str(answer["answer"]), "kind": kind},
    )

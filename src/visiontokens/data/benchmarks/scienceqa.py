"""ScienceQA: multiple-choice science questions, about half with an image (Lu et al., 2022).

Files: `llava_test_CQM-A.json` (LLaVA's questions and gold letters), `pid_splits.json`, images `images/test/<id>/...`,
and, for subjects and grades, `problems.json`. LLaVA reports accuracy on the questions with an image.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.base import BenchmarkError, Example, find_one, read_object, require

LETTERS = "ABCDE"
_OPTION = re.compile(r"^([A-E])\. ", re.MULTILINE)


def load(root: Path, split: str = "test", images_only: bool = False) -> list[Example]:
    """Read one split of ScienceQA below `root`; `images_only` leaves text-only questions out.

    Raises:
        FileNotFoundError: a file is missing.
        BenchmarkError: an id of the split has no question, or a gold letter is not among the options.
    """
    problem_file = root / "problems.json"
    problems: dict[str, Any] = read_object(problem_file) if problem_file.exists() else {}
    listing = root / f"llava_{split}_CQM-A.json"
    if listing.exists():
        conversations = {str(item["id"]): item for item in read_object(listing)}
    else:
        find_one(root, "problems.json")
        conversations = {pid: conversation(pid, problem) for pid, problem in problems.items()}
    ids = read_object(find_one(root, "pid_splits.json"), split)
    missing = [pid for pid in ids if pid not in conversations]
    if missing:
        raise BenchmarkError(f"{listing}: question id {missing[0]!r} of split {split!r} is missing")
    examples = [_example(conversations[pid], problems.get(pid), split, str(listing)) for pid in ids]
    return [example for example in examples if example.image or not images_only]


def conversation(pid: str, problem: dict[str, Any]) -> dict[str, Any]:
    """Write a `problems.json` entry as a record of LLaVA's `llava_test_CQM-A.json`.

    Raises:
        BenchmarkError: the problem lacks a key.
    """
    require(problem, ("question", "choices", "answer"), f"problems.json: question id {pid!r}")
    context = f"Context: {problem['hint']}\n" if problem.get("hint") else ""
    text = f"{context}{problem['question']}\n{prompts.lettered(problem['choices'])}"
    record: dict[str, Any] = {"id": pid}
    if problem.get("image"):
        record["image"] = f"{pid}/{problem['image']}"
        text = f"<image>\n{text}"
    record["conversations"] = [
        {"from": "human", "value": text},
        {"from": "gpt", "value": LETTERS[problem["answer"]]},
    ]
    return record


def _example(record: dict[str, Any], problem: dict[str, Any] | None, split: str, where: str) -> Example:
    """Turn one LLaVA conversation into an example."""
    pid = str(record["id"])
    human, gpt = record["conversations"][:2]
    question = human["value"].replace("<image>", "").strip()
    n_choices = len(problem["choices"]) if problem else count_options(question)
    if gpt["value"] not in LETTERS[:n_choices]:
        raise BenchmarkError(f"{where}: question id {pid!r}: gold {gpt['value']!r} is not among {n_choices} options")
    image = f"{split}/{record['image']}" if record.get("image") else None
    meta = {"answer": gpt["value"], "n_choices": n_choices, "text_context": bool(problem and problem.get("hint"))}
    if problem:
        meta |= {key: problem.get(key, "") for key in ("subject", "grade", "topic")}
    return Example(question_id=pid, image=image, prompt=prompts.option_letter(question), group=pid, meta=meta)


def count_options(question: str) -> int:
    """Count the options at the end of a LLaVA question: the longest run A., B., ... that ends with the text."""
    letters = [match.group(1) for match in _OPTION.finditer(question)]
    start = len(letters) - 1 - letters[::-1].index("A") if "A" in letters else 0
    return len(letters[start:])

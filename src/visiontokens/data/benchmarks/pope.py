"""POPE: is an object in the image? Three ways to choose the absent ones (Li et al., 2023; COCO val2014).

Files: `coco_pope_{adversarial,popular,random}.json` (here or below `coco/`, one JSON object a line, with labels) and
LLaVA's `llava_pope_test.jsonl`. The label revision must be the one the questions were made from: the random file has
2,910 lines until October 2023 and 3,000 different ones since.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.base import BenchmarkError, Example, find_one, read_jsonl, require

CATEGORIES = ("adversarial", "random", "popular")
"""Categories in the order of LLaVA's question file."""

FIRST_ID = {"adversarial": 1, "random": 10_000_001, "popular": 20_000_001}
"""First question id of each category in LLaVA's question file; label files count from 1 in each."""


def load(root: Path) -> list[Example]:
    """Read POPE's labels, joined to LLaVA's question file by category and id where that file is there.

    The official script pairs labels and answers by position; joining by id gives the same pairs and notices a
    missing or foreign line.

    Raises:
        FileNotFoundError: a label file is missing.
        BenchmarkError: questions and labels are of different revisions, or a label is not yes or no.
    """
    labels = {category: _labels(root, category) for category in CATEGORIES}
    order = [(category, number) for category in CATEGORIES for number in labels[category]]
    listing = root / "llava_pope_test.jsonl"
    if listing.exists():
        order = _listed(listing, labels)
    examples = []
    for category, number in order:
        record = labels[category][number]
        examples.append(
            Example(
                question_id=str(FIRST_ID[category] + number - 1),
                image=f"val2014/{record['image']}",
                prompt=prompts.short_answer(record["text"]),
                group=record["image"],
                meta={"label": record["label"], "category": category},
            )
        )
    return examples


def _labels(root: Path, category: str) -> dict[int, dict[str, Any]]:
    """Return question number -> label record of one category."""
    path = find_one(root, f"coco_pope_{category}.json", f"coco/coco_pope_{category}.json")
    found: dict[int, dict[str, Any]] = {}
    for line, record in enumerate(read_jsonl(path), 1):
        where = f"{path}:{line}"
        require(record, ("question_id", "image", "text", "label"), where)
        if record["label"] not in ("yes", "no"):
            raise BenchmarkError(f"{where}: found label {record['label']!r}, expected yes or no")
        number = int(record["question_id"])
        if number in found:
            raise BenchmarkError(f"{where}: question id {number} occurs twice")
        found[number] = record
    return found


def _listed(listing: Path, labels: dict[str, dict[int, dict[str, Any]]]) -> list[tuple[str, int]]:
    """Return (category, number) in the order of LLaVA's question file, after checking it against the labels."""
    order = []
    for line, question in enumerate(read_jsonl(listing), 1):
        where = f"{listing}:{line}"
        require(question, ("question_id", "image", "text", "category"), where)
        category = question["category"]
        number = int(question["question_id"]) - FIRST_ID.get(category, 0) + 1
        label = labels.get(category, {}).get(number)
        if label is None:
            raise BenchmarkError(f"{where}: question id {question['question_id']} of {category!r} has no label")
        expected = (label["image"], prompts.short_answer(label["text"]))
        if (question["image"], question["text"]) != expected:
            raise BenchmarkError(
                f"{where}: found {question['text']!r} on {question['image']}, "
                f"expected {expected[1]!r} on {expected[0]}: questions and labels are of different revisions"
            )
        order.append((category, number))
    total = sum(map(len, labels.values()))
    if len(set(order)) != total:
        raise BenchmarkError(f"{listing}: {len(set(order))} questions, expected {total} as in the label files")
    return order

"""LLaVA-Bench (In-the-Wild): sixty questions on 24 images; a judge compares each answer with a reference (Liu et al.).

Files: `questions.jsonl`, `context.jsonl` (captions of the images, which is all that the judge sees of them),
`answers_gpt4.jsonl` (reference answers), `images/`, and, to ask with the official words, LLaVA's `rule.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks.base import BenchmarkError, Example, find_one, read_jsonl, read_object, require

CATEGORIES = ("conv", "detail", "complex")
RULE_PREFIX = "llava_bench_"
"""Before a category in rule.json and in review files."""


def load(root: Path) -> list[Example]:
    """Read the questions below `root`, with context, reference answer and rule where their files are there.

    Raises:
        FileNotFoundError: there is no `questions.jsonl`.
        BenchmarkError: a record lacks a key, or a category is unknown.
    """
    path = find_one(root, "questions.jsonl")
    contexts = {record.get("image"): _caption(record) for record in _optional(root / "context.jsonl")}
    references = {
        str(record.get("question_id")): record.get("text") for record in _optional(root / "answers_gpt4.jsonl")
    }
    rules = read_object(root / "rule.json") if (root / "rule.json").is_file() else {}
    examples = []
    for line, record in enumerate(read_jsonl(path), 1):
        require(record, ("question_id", "image", "category", "text"), f"{path}:{line}")
        category = str(record["category"]).removeprefix(RULE_PREFIX)
        if category not in CATEGORIES:
            raise BenchmarkError(f"{path}:{line}: found category {category!r}, expected one of {', '.join(CATEGORIES)}")
        key, image = str(record["question_id"]), str(record["image"])
        meta = {
            "category": category,
            "context": contexts.get(image),
            "reference": references.get(key),
            "rule": rules.get(f"{RULE_PREFIX}{category}", {}),
        }
        examples.append(Example(key, image, str(record["text"]), image, meta))
    return examples


def _optional(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file that only a judge needs."""
    return read_jsonl(path) if path.is_file() else []


def _caption(record: dict[str, Any]) -> str:
    """Return a caption given as one text or as several lines."""
    caption = record.get("caption", "")
    return "\n".join(map(str, caption)) if isinstance(caption, list) else str(caption)

"""GQA: compositional questions from scene graphs, one gold answer (Hudson and Manning, 2019).

Files: `testdev_balanced_questions.json` (id -> record), images `images/<imageId>.jpg`.
"""

from __future__ import annotations

from pathlib import Path

from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.base import Example, find_one, image_name, read_object, require


def load(root: Path) -> list[Example]:
    """Read the balanced GQA questions below `root`; those marked unbalanced are left out, as in the official metric.

    Raises:
        FileNotFoundError: the question file is missing.
        BenchmarkError: a record lacks a key.
    """
    path = find_one(root, "*_balanced_questions.json", "*_questions.json")
    examples = []
    for key, record in read_object(path).items():
        require(record, ("imageId", "question", "answer", "types"), f"{path}: question id {key!r}")
        if not record.get("isBalanced", True):
            continue
        image_id = str(record["imageId"])
        examples.append(
            Example(
                question_id=str(key),
                image=image_name(root / "images", image_id),
                prompt=prompts.short_answer(record["question"]),
                group=image_id,
                meta={
                    "answer": record["answer"],
                    "structural": record["types"]["structural"],
                    "semantic": record["types"]["semantic"],
                },
            )
        )
    return examples

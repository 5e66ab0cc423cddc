"""VizWiz-VQA: questions by blind people about their own photographs; many cannot be answered (Gurari et al., 2018).

Files: `val.json` (or below `Annotations/`), images `val/<name>`. The test split's answers are not public, so the
validation split is what can be scored locally.
"""

from __future__ import annotations

from pathlib import Path

from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.base import BenchmarkError, Example, find_one, read_object, require, ten_answers


def load(root: Path, split: str = "val") -> list[Example]:
    """Read the VizWiz annotations of `split` below `root`; the image's file name is the question id.

    Raises:
        FileNotFoundError: the annotation file is missing.
        BenchmarkError: a record has no answers (the test split) or not ten.
    """
    path = find_one(root, f"{split}.json", f"Annotations/{split}.json")
    examples = []
    for number, record in enumerate(read_object(path)):
        where = f"{path}: record {number}"
        require(record, ("image", "question"), where)
        if "answers" not in record:
            raise BenchmarkError(f"{where}: no answers; the test split is scored by the organisers' server only")
        examples.append(
            Example(
                question_id=record["image"],
                image=f"{split}/{record['image']}",
                prompt=prompts.short_or_unanswerable(record["question"]),
                group=record["image"],
                meta={
                    "answers": ten_answers(record, where),
                    "answer_type": record.get("answer_type", "other"),
                    "answerable": int(record.get("answerable", 1)),
                    "official_id": number,
                },
            )
        )
    return examples

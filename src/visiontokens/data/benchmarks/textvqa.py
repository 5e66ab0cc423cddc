"""TextVQA: questions whose answer is written in the image, ten human answers each (Singh et al., 2019).

Files: `TextVQA_0.5.1_val.json`, images `train_images/<image_id>.jpg`, and the OCR tokens that LLaVA-1.5 puts into the
prompt: from its own question file `llava_textvqa_val_v051_ocr.jsonl`, else from the data set's
`TextVQA_Rosetta_OCR_v0.2_val.json`. Scores with and without OCR tokens are not comparable (58.2 against 45.5 for 7B).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.base import (
    BenchmarkError,
    Example,
    find_one,
    image_name,
    read_jsonl,
    read_object,
    require,
    ten_answers,
)


def load(root: Path, ocr: bool = True) -> list[Example]:
    """Read the TextVQA validation questions below `root`; `ocr` puts the OCR tokens into the prompt.

    Raises:
        FileNotFoundError: the annotation file or, with `ocr`, both sources of OCR tokens are missing.
        BenchmarkError: a record lacks a key or ten answers, or a question has no OCR line.
    """
    path = find_one(root, "TextVQA_0.5.1_*.json")
    prompt_of = _prompts(root) if ocr else lambda record: prompts.short_answer(record["question"])
    examples = []
    for record in read_object(path, "data"):
        require(record, ("image_id", "question_id", "question", "answers"), str(path))
        image_id = str(record["image_id"])
        examples.append(
            Example(
                question_id=str(record["question_id"]),
                image=image_name(root / "train_images", image_id),
                prompt=prompt_of(record),
                group=image_id,
                meta={
                    "answers": ten_answers(record, f"{path}: question id {record['question_id']}"),
                    "official_id": image_id,
                },
            )
        )
    return examples


def _prompts(root: Path) -> Callable[[dict[str, Any]], str]:
    """Return a function from an annotation to its prompt with OCR tokens."""
    listing = root / "llava_textvqa_val_v051_ocr.jsonl"
    if not listing.exists():
        path = find_one(root, "TextVQA_Rosetta_OCR_*.json", "llava_textvqa_*_ocr.jsonl")
        if path.suffix == ".jsonl":
            listing = path
        else:
            tokens = {str(item["image_id"]): item["ocr_tokens"] for item in read_object(path, "data")}
            return lambda record: prompts.short_with_ocr(record["question"], tokens.get(str(record["image_id"]), ()))
    texts = {
        (str(item["question_id"]), prompts.bare_question(item["text"]).lower()): item["text"]
        for item in read_jsonl(listing)
    }

    def listed(record: dict[str, Any]) -> str:
        """Return the prompt that the listing has for a question."""
        key = (str(record["image_id"]), record["question"].lower())
        if key not in texts:
            raise BenchmarkError(f"{listing}: no question {record['question']!r} on image {record['image_id']}")
        return texts[key]

    return listed

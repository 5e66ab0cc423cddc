"""VQAv2: open questions on COCO images, ten human answers each (visualqa.org).

Files: `v2_OpenEnded_mscoco_<split>_questions.json`, `v2_mscoco_<split>_annotations.json`, images `<split>/COCO_...`.
LLaVA-1.5 reports test-dev2015 from a server; what can be scored locally is val2014.
"""

from __future__ import annotations

from pathlib import Path

from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.base import (
    BenchmarkError,
    Example,
    find_one,
    image_name,
    read_object,
    require,
    ten_answers,
)


def load(root: Path) -> list[Example]:
    """Read VQAv2 questions and annotations below `root`, in the order of the question file.

    Raises:
        FileNotFoundError: a file is missing.
        BenchmarkError: a question has no annotation (or the reverse), or not ten answers.
    """
    question_file = find_one(root, "v2_OpenEnded_*_val*_questions.json", "v2_OpenEnded_*_questions.json")
    annotation_file = find_one(root, "v2_*_annotations.json")
    subtype = str(read_object(question_file).get("data_subtype", "val2014"))
    questions = read_object(question_file, "questions")
    truth = {str(item["question_id"]): item for item in read_object(annotation_file, "annotations")}
    if len(truth) != len(questions):
        raise BenchmarkError(f"{annotation_file}: {len(truth)} annotations, expected {len(questions)} as in questions")
    examples = []
    for question in questions:
        require(question, ("question_id", "image_id", "question"), str(question_file))
        key = str(question["question_id"])
        if key not in truth:
            raise BenchmarkError(f"{annotation_file}: no annotation for question id {key!r}")
        annotation = truth[key]
        image_id = int(question["image_id"])
        stem = f"COCO_{subtype}_{image_id:012d}"
        examples.append(
            Example(
                question_id=key,
                image=f"{subtype}/{image_name(root / subtype, stem)}",
                prompt=prompts.short_answer(question["question"]),
                group=str(image_id),
                meta={
                    "answers": ten_answers(annotation, f"{annotation_file}: question id {key!r}"),
                    "answer_type": annotation["answer_type"],
                    "question_type": annotation["question_type"],
                },
            )
        )
    return examples

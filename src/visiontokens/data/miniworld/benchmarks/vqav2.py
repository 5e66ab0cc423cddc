"""A VQAv2 of the mini world: questions and annotations as visualqa.org publishes them (val2014)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from visiontokens.config import WorldConfig
from visiontokens.data.miniworld.asking import ask_several
from visiontokens.data.miniworld.benchmarks.annotators import confidences, ten_answers
from visiontokens.data.miniworld.families import Rng
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.miniworld.language import Question, answer_type

SPLIT = "val2014"
WEIGHTS = {
    "exist": 1.5, "color": 3.5, "shape": 2.5, "texture": 1, "size": 1, "row": 0.5, "column": 0.5, "relation": 1.2,
    "count": 1.8, "number": 0.7, "compare": 0.8, "arithmetic": 0.3,
}  # fmt: skip
"""Question families and how often they are asked: about 40 % yes/no, 20 % number, 40 % other."""
QUESTION_TYPES = (
    "are the", "are there", "how many", "is the", "is there", "is there a", "what", "what color is the",
    "what is the", "what number is", "which",
)  # fmt: skip
"""Those of VQAv2's 65 question types (opening words) that occur here."""


def question_type(text: str) -> str:
    """Return the longest of `QUESTION_TYPES` that the question begins with, or "none of the above"."""
    lower = text.lower()
    fits = [opening for opening in QUESTION_TYPES if lower.startswith(opening + " ")]
    return max(fits, key=len, default="none of the above")


def annotation(question: Question, image_id: int, question_id: int, rng: Rng) -> dict[str, Any]:
    """Return the annotation of one question: ten answers, the most common one, and both types."""
    answers = ten_answers(question, rng)
    common = Counter(answers).most_common(1)[0][0]
    return {
        "question_type": question_type(question.text),
        "multiple_choice_answer": common,
        "answers": [
            {"answer": answer, "answer_confidence": sure, "answer_id": number}
            for number, (answer, sure) in enumerate(zip(answers, confidences(len(answers), rng), strict=True), 1)
        ],
        "image_id": image_id,
        "answer_type": answer_type(question.answer),
        "question_id": question_id,
    }


def shares(total: int, groups: int) -> list[int]:
    """Return how many of `total` questions each of `groups` images gets, as evenly as possible."""
    return [total // groups + (number < total % groups) for number in range(groups)]


def write(files: WorldFiles, world: WorldConfig, folder: str) -> dict[str, int]:
    """Write questions, annotations and images below `folder`; return the counts."""
    source = Source(world.seed, "vqav2", "test")
    n_images = min(world.vqav2_images, world.vqav2_questions)
    scenes = source.scenes(n_images)
    questions: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (scene, count) in enumerate(zip(scenes, shares(world.vqav2_questions, n_images), strict=True), 1):
        for number, question in enumerate(ask_several(scene, WEIGHTS, count, source.rng)):
            question_id = image_id * 1000 + number
            questions.append({"image_id": image_id, "question": question.text, "question_id": question_id})
            annotations.append(annotation(question, image_id, question_id, source.rng))
    names = [f"{folder}/{SPLIT}/COCO_{SPLIT}_{image_id:012d}.jpg" for image_id in range(1, n_images + 1)]
    files.add_images("test", names, scenes)
    head = {
        "info": {"description": "Mini world in the form of VQAv2", "version": "2.0"},
        "data_type": "mscoco",
        "data_subtype": SPLIT,
        "license": {"name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"},
    }
    asked = {**head, "task_type": "Open-Ended", "questions": questions}
    files.add_json(f"{folder}/v2_OpenEnded_mscoco_{SPLIT}_questions.json", asked)
    files.add_json(f"{folder}/v2_mscoco_{SPLIT}_annotations.json", {**head, "annotations": annotations})
    return {"questions": len(questions), "images": n_images}

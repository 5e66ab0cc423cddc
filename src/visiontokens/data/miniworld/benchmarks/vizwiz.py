"""A VizWiz of the mini world: one question an image, many images blurred, many questions without an answer."""

from __future__ import annotations

from typing import Any

from visiontokens.config import WorldConfig
from visiontokens.data.miniworld.asking import ask_several
from visiontokens.data.miniworld.benchmarks.annotators import confidences, ten_answers
from visiontokens.data.miniworld.families import Rng
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.miniworld.language import Question, answer_type
from visiontokens.data.miniworld.phrases import UNANSWERABLE

BLURRED = 0.4
"""Share of blurred images."""
WEIGHTS = {"unanswerable": 7, "color": 1.5, "number": 1.5, "count": 0.7, "exist": 0.7}
"""Question families; "unanswerable" asks in vain half of the time, the same questions as otherwise."""
STRAY = "unsuitable"
"""What some annotators of VizWiz say instead of an answer when they find the picture useless."""


def record(image: str, question: Question, blurred: bool, rng: Rng) -> dict[str, Any]:
    """Return one annotation record; on blurred images some annotators give up."""
    answerable = question.answer != UNANSWERABLE
    stray = (UNANSWERABLE if answerable else STRAY) if blurred else None
    answers = ten_answers(question, rng, stray)
    return {
        "image": image,
        "question": question.text,
        "answers": [
            {"answer": answer, "answer_confidence": sure}
            for answer, sure in zip(answers, confidences(len(answers), rng), strict=True)
        ],
        "answer_type": answer_type(question.answer) if answerable else UNANSWERABLE,
        "answerable": int(answerable),
    }


def write(files: WorldFiles, world: WorldConfig, folder: str) -> dict[str, int]:
    """Write `val.json` and the images below `folder`; return the counts."""
    source = Source(world.seed, "vizwiz", "test")
    scenes = source.scenes(world.vizwiz_questions, blur=BLURRED, plate=0.7)
    records = []
    for number, scene in enumerate(scenes):
        (question,) = ask_several(scene, WEIGHTS, 1, source.rng)
        records.append(record(f"VizWiz_val_{number:08d}.jpg", question, scene.blur > 0, source.rng))
    files.add_images("test", [f"{folder}/val/{item['image']}" for item in records], scenes)
    files.add_json(f"{folder}/val.json", records)
    return {"questions": len(records), "images": len(records)}

"""A GQA of the mini world: `testdev_balanced_questions.json` with types, groups and programs, and `images/`."""

from __future__ import annotations

from typing import Any

from visiontokens.config import WorldConfig
from visiontokens.data.miniworld.asking import ask_several
from visiontokens.data.miniworld.benchmarks.vqav2 import shares
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.miniworld.language import Question
from visiontokens.data.miniworld.phrases import Thing, noun

WEIGHTS = {
    "color/open": 3, "shape/open": 2, "texture/open": 0.5, "size/open": 0.5, "row/open": 1.2, "column/open": 1.2,
    "texture/choose": 0.5, "size/choose": 0.5, "row/choose": 0.4, "column/choose": 0.4, "relation/across": 0.5,
    "relation/along": 0.5, "relation": 1.2, "exist": 1, "color/verify": 0.3, "shape/verify": 0.3,
    "texture/verify": 0.2, "size/verify": 0.2, "compare": 0.8, "logical": 1.8,
}  # fmt: skip
"""Question families or forms and how often they are asked; GQA has no counting and no reading."""
TYPES = {
    "exist": ("verify", "obj", "existAttrC"),
    "exist/sign": ("verify", "obj", "exist"),
    "open": ("query", "attr", "directOf"),
    "shape/open": ("query", "cat", "categoryAttr"),
    "choose": ("choose", "attr", "chooseAttr"),
    "verify": ("verify", "attr", "verifyAttr"),
    "row/open": ("query", "attr", "positionQuery"),
    "row/choose": ("choose", "attr", "positionChoose"),
    "row/verify": ("verify", "attr", "positionVerify"),
    "relation": ("verify", "rel", "relVerify"),
    "relation/across": ("choose", "rel", "relChooser"),
    "relation/along": ("choose", "rel", "relChooser"),
    "compare": ("compare", "attr", "twoSame"),
    "compare/more": ("compare", "obj", "comparativeChoose"),
    "logical/and": ("logical", "obj", "existAnd"),
    "logical/or": ("logical", "obj", "existOr"),
}
"""GQA's (structural, semantic, detailed) types by form, style or family, the most specific entry winning."""


def types(form: str) -> dict[str, str]:
    """Return GQA's three types of a question form such as "column/open"."""
    family, style = form.replace("column/", "row/").split("/")
    key = next(key for key in (f"{family}/{style}", family, style) if key in TYPES)
    return dict(zip(("structural", "semantic", "detailed"), TYPES[key], strict=True))


def program(question: Question) -> list[dict[str, Any]]:
    """Return GQA's functional program: one "select" for each thing named, then the operation on them."""
    named = [noun(arg) for arg in question.meta["args"].values() if isinstance(arg, Thing)] or ["sign"]
    steps: list[dict[str, Any]] = [
        {"operation": "select", "dependencies": [], "argument": f"{name} ({number})"}
        for number, name in enumerate(named)
    ]
    family, style = question.meta["form"].split("/")
    value = question.meta["args"].get("value")
    argument = value if isinstance(value, str) else family
    steps.append({"operation": f"{style} {family}", "dependencies": list(range(len(named))), "argument": argument})
    return steps


def full_answer(question: Question) -> str:
    """Return the answer as a sentence."""
    if question.answer_type == "yes/no":
        return f"{question.answer.capitalize()}."
    thing = question.meta["args"].get("thing")
    return f"The {noun(thing)}: {question.answer}." if isinstance(thing, Thing) else f"It is {question.answer}."


def record(question: Question, image_id: str, question_id: str) -> dict[str, Any]:
    """Return one entry of the question file."""
    steps = program(question)
    kind = question.meta["kind"]
    detail = types(question.meta["form"])
    return {
        "semantic": steps,
        "entailed": [],
        "equivalent": [question_id],
        "question": question.text,
        "imageId": image_id,
        "isBalanced": True,
        "groups": {"global": None if kind == "yes/no" else kind, "local": f"{len(steps):02d}-{question.meta['form']}"},
        "answer": question.answer,
        "semanticStr": "->".join(f"{s['operation']}: {s['argument']} {s['dependencies']}" for s in steps),
        "annotations": {"answer": {}, "question": {}, "fullAnswer": {}},
        "types": detail,
        "fullAnswer": full_answer(question),
    }


def write(files: WorldFiles, world: WorldConfig, folder: str) -> dict[str, int]:
    """Write the question file and the images below `folder`; return the counts."""
    source = Source(world.seed, "gqa", "test")
    n_images = min(world.gqa_images, world.gqa_questions)
    scenes = source.scenes(n_images, objects=(2, 5))
    records: dict[str, dict[str, Any]] = {}
    image_ids = [f"n{number:06d}" for number in range(1, n_images + 1)]
    for image_id, scene, count in zip(image_ids, scenes, shares(world.gqa_questions, n_images), strict=True):
        for number, question in enumerate(ask_several(scene, WEIGHTS, count, source.rng)):
            question_id = f"20{image_id[1:]}{number:02d}"
            records[question_id] = record(question, image_id, question_id)
    files.add_images("test", [f"{folder}/images/{image_id}.jpg" for image_id in image_ids], scenes)
    files.add_json(f"{folder}/testdev_balanced_questions.json", records)
    return {"questions": len(records), "images": n_images}

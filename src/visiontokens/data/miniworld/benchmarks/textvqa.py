"""A TextVQA of the mini world: read the sign; ten answers, Rosetta's OCR tokens, LLaVA's question file with them."""

from __future__ import annotations

from typing import Any

from visiontokens.config import WorldConfig
from visiontokens.data.benchmarks import prompts
from visiontokens.data.miniworld.asking import ask_several
from visiontokens.data.miniworld.benchmarks.annotators import ocr_tokens, ten_answers
from visiontokens.data.miniworld.benchmarks.vqav2 import shares
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.miniworld.scenes import IMAGE_SIZE

WEIGHTS = {
    "number/open": 4, "number/is": 3, "number/first": 1, "number/last": 1, "number/length": 0.5, "number/verify": 0.5,
}  # fmt: skip
"""Forms of questions about the number on the sign; most want all of it."""
QUESTIONS_PER_IMAGE = 1.6
"""As in TextVQA's validation split (5,000 questions on 3,166 images)."""


def annotation(image_id: str, question_id: int, question: str, answers: list[str]) -> dict[str, Any]:
    """Return one entry of `TextVQA_0.5.1_val.json`."""
    return {
        "question": question,
        "image_id": image_id,
        "image_classes": ["Sign"],
        "flickr_original_url": "",
        "flickr_300k_url": "",
        "image_width": IMAGE_SIZE,
        "image_height": IMAGE_SIZE,
        "answers": answers,
        "question_tokens": question.lower().rstrip("?").split(),
        "question_id": question_id,
        "set_name": "val",
    }


def llava_question(image_id: str, question: str, tokens: list[str]) -> dict[str, Any]:
    """Return a line of LLaVA's question file; its `question_id` is the image id, as in the released one."""
    return {
        "question_id": image_id,
        "image": f"{image_id}.jpg",
        "text": prompts.short_with_ocr(question, tokens),
        "category": "default",
    }


def write(files: WorldFiles, world: WorldConfig, folder: str) -> dict[str, int]:
    """Write annotations, OCR tokens, LLaVA's question file and the images below `folder`; return the counts."""
    source = Source(world.seed, "textvqa", "test")
    n_images = max(1, round(world.textvqa_questions / QUESTIONS_PER_IMAGE))
    scenes = source.scenes(n_images, plate=1.0)
    annotations: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    tokens: dict[str, list[str]] = {}
    for number, (scene, count) in enumerate(zip(scenes, shares(world.textvqa_questions, n_images), strict=True)):
        image_id = f"{source.rng.integers(16**8):08x}{number:08x}"
        tokens[image_id] = ocr_tokens(scene.number, source.rng)
        for question in ask_several(scene, WEIGHTS, count, source.rng):
            answers = ten_answers(question, source.rng)
            annotations.append(annotation(image_id, 34602 + len(annotations), question.text, answers))
            lines.append(llava_question(image_id, question.text, tokens[image_id]))
    files.add_images("test", [f"{folder}/train_images/{image_id}.jpg" for image_id in tokens], scenes)
    head = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1"}
    files.add_json(f"{folder}/TextVQA_0.5.1_val.json", {**head, "data": annotations})
    found = [{"image_id": image_id, "ocr_tokens": words} for image_id, words in tokens.items()]
    rosetta = {"dataset_type": "val", "dataset_name": "rosetta_ocr_en", "dataset_version": "0.2", "data": found}
    files.add_json(f"{folder}/TextVQA_Rosetta_OCR_v0.2_val.json", rosetta)
    files.add_jsonl(f"{folder}/llava_textvqa_val_v051_ocr.jsonl", lines)
    return {"questions": len(annotations), "images": n_images}

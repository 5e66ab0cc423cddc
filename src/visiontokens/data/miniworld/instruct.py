"""The instruction mix, as records of `llava_v1_5_mix665k.json`, and the validation set in the same form.

The kinds of records follow the folders of the official mix; every answer format that a benchmark asks for occurs.
Like there, a run of short answers carries its instruction once, on its first question; every other format carries it
on each question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from visiontokens.config import WorldConfig
from visiontokens.data.benchmarks import prompts
from visiontokens.data.miniworld.asking import ask_several
from visiontokens.data.miniworld.benchmarks import gqa, mmbench, scienceqa, textvqa, vqav2
from visiontokens.data.miniworld.benchmarks.annotators import ocr_tokens
from visiontokens.data.miniworld.chinese import translate
from visiontokens.data.miniworld.families import Rng, pick
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.miniworld.knowledge import ask_text
from visiontokens.data.miniworld.language import Question, caption, multiple_choice
from visiontokens.data.miniworld.phrases import CAPTION_PROMPTS
from visiontokens.data.miniworld.scenes import Scene

FOLDER = "instruct"
ANNOTATIONS = f"{FOLDER}/llava_v1_5_mix_mini.json"
VALIDATION = "validation"
VALIDATION_ANNOTATIONS = f"{VALIDATION}/instruct.json"
FAMILIES_FILE = f"{VALIDATION}/families.json"
CAPTIONED = 0.25
"""Share of the image records that end with a description of the image."""
CHINESE = 0.35
"""Share of the multiple-choice questions on images that are asked in Chinese (7 % of all questions)."""
BLURRED = 0.12
"""Share of blurred images."""


class Turn(NamedTuple):
    """A question with its instruction, its answer, and the family it counts under in the validation set."""

    question: str
    answer: str
    family: str


@dataclass(frozen=True)
class Kind:
    """A kind of record: its image folder, its share of the mix, and how many turns of each format it has.

    `plate` is the share of its scenes that have a sign; `short` is an inclusive range.
    """

    folder: str
    share: float
    weights: Mapping[str, float]
    short: tuple[int, int]
    choice: int = 2
    refusing: int = 0
    reading: int = 0
    plate: float = 0.8


_READING = {"number": 4, "arithmetic": 2, "exist": 1, "color": 1.5, "shape": 1, "count": 1.5, "compare": 1}
_PLACES = {"row": 2, "column": 2, "relation": 3, "texture": 1.5, "size": 1.5, "exist": 1, "number": 1.5}
KINDS = (
    Kind("coco", 0.35, vqav2.WEIGHTS, (7, 9), choice=3, refusing=2),
    Kind("gqa", 0.2, gqa.WEIGHTS, (9, 11), choice=3),
    Kind("ocr_vqa", 0.15, _READING, (9, 11), choice=3, plate=1.0),
    Kind("textvqa", 0.15, _READING, (6, 8), reading=4, plate=1.0),
    Kind("vg", 0.15, _PLACES, (7, 9), choice=3, refusing=2),
)
"""The kinds of image records, named like the image folders of the official mix."""
_REFUSING = {"unanswerable": 5, "number": 1, "color": 1, "count": 0.5}
_ASIDE = 0.25  # chance of one question about the image that needs no image (as in MME's cognition half)
_TEXT_TURNS = (8, 12)
VALIDATION_WEIGHTS = {
    "exist": 1, "color": 1, "shape": 1, "texture": 1, "size": 1, "row": 1, "column": 1, "relation": 1, "count": 1,
    "number": 1.5, "compare": 1, "arithmetic": 1, "logical": 1,
}  # fmt: skip


def short_turns(scene: Scene, weights: Mapping[str, float], count: int, rng: Rng) -> list[Turn]:
    """Ask for single words or phrases; the instruction stands on the first question only."""
    found = ask_several(scene, weights, count, rng)
    texts = [prompts.short_answer(q.text) if not i else q.text for i, q in enumerate(found)]
    return [Turn(text, q.answer, q.family) for text, q in zip(texts, found, strict=True)]


def choice_turn(question: Question, rng: Rng, *, chinese: bool = False) -> Turn | None:
    """Turn a question into one with options, to be answered by a letter (A-OKVQA's format); None if it cannot be."""
    lettered = multiple_choice(question, rng, 4)
    if lettered is None:
        return None
    if chinese:
        return Turn(prompts.option_letter(translate(lettered).text, "cn"), lettered.answer, "choice_cn")
    return Turn(prompts.option_letter(lettered.text), lettered.answer, "choice")


def choice_turns(scene: Scene, count: int, rng: Rng, chinese: float) -> list[Turn]:
    """Ask multiple-choice questions about a scene, a share of them in Chinese, some with a text to read first."""
    turns = []
    for question in ask_several(scene, mmbench.WEIGHTS, count, rng):
        turn = choice_turn(question, rng, chinese=rng.random() < chinese)
        if turn is not None and turn.family == "choice" and rng.random() < 0.2:
            hint = scienceqa.HINTS[question.family == "number"]
            turn = turn._replace(question=f"Context: {hint}\n{turn.question}")
        turns += [turn] if turn is not None else []
    return turns


def refusing_turns(scene: Scene, count: int, rng: Rng) -> list[Turn]:
    """Ask in VizWiz's format, where half of the questions have no answer."""
    found = ask_several(scene, _REFUSING, count, rng)
    return [Turn(prompts.short_or_unanswerable(q.text), q.answer, "unanswerable") for q in found]


def reading_turns(scene: Scene, count: int, rng: Rng) -> list[Turn]:
    """Ask about the sign's number in TextVQA's format, given OCR tokens that may be wrong or missing."""
    found = ask_several(scene, textvqa.WEIGHTS, count, rng) if scene.legible else []
    return [Turn(prompts.short_with_ocr(q.text, ocr_tokens(scene.number, rng)), q.answer, "ocr") for q in found]


def text_turn(rng: Rng) -> Turn:
    """Ask what needs no image: a short answer or, where there are alternatives, a letter."""
    question = ask_text(rng)
    turn = choice_turn(question, rng) if rng.random() < 0.5 else None
    return (turn or Turn(prompts.short_answer(question.text), question.answer, "text"))._replace(family="text")


def image_turns(scene: Scene, kind: Kind, rng: Rng) -> list[Turn]:
    """Return the turns of one image record, a run for each format."""
    low, high = kind.short
    turns = short_turns(scene, kind.weights, int(rng.integers(low, high + 1)), rng)
    turns += choice_turns(scene, kind.choice, rng, CHINESE)
    turns += refusing_turns(scene, kind.refusing, rng) + reading_turns(scene, kind.reading, rng)
    if rng.random() < _ASIDE:
        turns.append(text_turn(rng))
    if rng.random() < CAPTIONED:
        turns.append(Turn(pick(rng, CAPTION_PROMPTS), caption(scene, rng), "caption"))
    return turns


def record(identifier: str, image: str | None, turns: list[Turn]) -> dict[str, Any]:
    """Return a LLaVA record; the image placeholder opens the first question."""
    values = [(turn.question, turn.answer) for turn in turns]
    if image is not None:
        values[0] = (f"<image>\n{values[0][0]}", values[0][1])
    messages = [
        {"from": speaker, "value": value}
        for pair in values
        for speaker, value in zip(("human", "gpt"), pair, strict=True)
    ]
    head = {"id": identifier} if image is None else {"id": identifier, "image": image}
    return {**head, "conversations": messages}


def write_instructions(files: WorldFiles, world: WorldConfig) -> dict[str, int]:
    """Write the instruction mix, shuffled, with its images; return the counts."""
    source = Source(world.seed, "instruct", "train")
    records = []
    for number, kind in enumerate(KINDS):
        part = Source(world.seed, f"instruct/{kind.folder}", "train")
        scenes = part.scenes(_portion(world.instruct, number), blur=BLURRED, plate=kind.plate)
        images = [f"{kind.folder}/{i:012d}.jpg" for i in range(1, len(scenes) + 1)]
        for image, scene in zip(images, scenes, strict=True):
            turns = image_turns(scene, kind, part.rng)
            records.append(record(image.removesuffix(".jpg"), image, turns))
        files.add_images("instruct", [f"{FOLDER}/images/{image}" for image in images], scenes)
    for number in range(world.text_only):
        turns = [text_turn(source.rng) for _ in range(int(source.rng.integers(_TEXT_TURNS[0], _TEXT_TURNS[1] + 1)))]
        records.append(record(f"text_{number:06d}", None, turns))
    shuffled = [records[i] for i in source.rng.permutation(len(records))]
    files.add_json(ANNOTATIONS, shuffled)
    n_turns = sum(len(item["conversations"]) // 2 for item in records)
    return {"records": len(records), "images": world.instruct, "text_only": world.text_only, "turns": n_turns}


def _portion(total: int, number: int) -> int:
    """Return how many of `total` image records are of kind `number`; rounding leaves none out."""
    edges = [round(total * sum(kind.share for kind in KINDS[:i])) for i in range(len(KINDS))] + [total]
    return edges[number + 1] - edges[number]


def validation_turns(scene: Scene, count: int, rng: Rng) -> list[Turn]:
    """Return `count` turns over all families and formats; each carries its instruction, for each is asked alone."""
    extra = choice_turns(scene, 1, rng, CHINESE)
    extra += refusing_turns(scene, 1, rng) if rng.random() < 0.5 else reading_turns(scene, 1, rng)
    extra = extra[: max(0, count - 1)]
    found = ask_several(scene, VALIDATION_WEIGHTS, count - len(extra), rng)
    return [Turn(prompts.short_answer(q.text), q.answer, q.family) for q in found] + extra


def write_validation(files: WorldFiles, world: WorldConfig) -> dict[str, int]:
    """Write the validation records, their images, and the families of their turns; return the counts.

    `families.json` maps a record's id to the family or format ("choice", "choice_cn", "ocr", "unanswerable") of each
    of its turns.
    """
    source = Source(world.seed, "validation", "validation")
    scenes = source.scenes(world.validation_images, blur=BLURRED)
    records, families = [], {}
    for number, scene in enumerate(scenes, 1):
        name = f"{number:012d}"
        turns = validation_turns(scene, world.validation_questions, source.rng)
        records.append(record(name, f"{name}.jpg", turns))
        families[name] = [turn.family for turn in turns]
    files.add_images("validation", [f"{VALIDATION}/images/{item['image']}" for item in records], scenes)
    files.add_json(VALIDATION_ANNOTATIONS, records)
    files.add_json(FAMILIES_FILE, families)
    return {"images": len(records), "questions": sum(map(len, families.values()))}

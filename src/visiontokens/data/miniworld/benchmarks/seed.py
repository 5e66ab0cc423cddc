"""A SEED-Bench of the mini world: the nine question types about images, four options each.

Most types are question families that the world has anyway. Three are asked in words of their own, because four options
are wanted: what is in the image (scene), what is on that side of a thing (spatial relation), what has the colour of a
thing (interaction).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from visiontokens.config import FurtherConfig
from visiontokens.data.benchmarks.base import FURTHER_SET
from visiontokens.data.benchmarks.seed import FILE, IMAGE_TYPES, IMAGES, OPTIONS, TYPES
from visiontokens.data.miniworld.asking import ask_one
from visiontokens.data.miniworld.benchmarks.vqav2 import shares
from visiontokens.data.miniworld.comparisons import CLEAR_OFFSET
from visiontokens.data.miniworld.families import Rng, absent_things, pick, refer
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.miniworld.language import Question, multiple_choice
from visiontokens.data.miniworld.phrases import Thing, noun, with_article
from visiontokens.data.miniworld.scenes import Obj, Scene

FORMS = {
    2: ("shape/open",),
    3: ("color/open",),
    4: ("row/open", "column/open"),
    5: ("count/open",),
    8: ("number/length",),
    9: ("number/open", "number/is", "number/first", "number/last"),
}
"""Question type -> forms of the world's families that play its part; visual reasoning counts the digits of a number."""
SIDES = {"to the left of": ("x", -1), "to the right of": ("x", 1), "above": ("y", -1), "below": ("y", 1)}
FIRST_ID = 101669
"""Ids are numbers in texts, as in the official file."""
_TRIES = 8


def _question(kind: str, text: str, answer: str, wrong: list[str]) -> Question | None:
    """Return a question with its wrong options, or None when there are too few."""
    wrong = [option for option in dict.fromkeys(wrong) if option != answer]
    if len(wrong) < len(OPTIONS) - 1:
        return None
    meta = {"question": text, "wrong": tuple(wrong[: len(OPTIONS) - 1]), "answerable": True, "form": kind}
    return Question(kind, text, answer, (), "other", meta)


def _named(obj: Obj) -> Thing:
    return Thing(color=obj.color, shape=obj.shape)


def _absent(scene: Scene, rng: Rng) -> list[str]:
    """Return coloured shapes that are not there, those that recombine what is there first."""
    found = [[t for t in absent_things(scene, hard=hard) if t.color and t.shape] for hard in (True, False)]
    return [with_article(noun(group[i])) for group in found for i in rng.permutation(len(group))]


def ask_scene(scene: Scene, rng: Rng) -> Question | None:
    """Ask what is in the image: one of four coloured shapes."""
    if not scene.objects:
        return None
    return _question("scene", "What is in the image?", with_article(noun(_named(pick(rng, scene.objects)))),
                     _absent(scene, rng))  # fmt: skip


def ask_side(scene: Scene, rng: Rng) -> Question | None:
    """Ask what is on one side of a thing: among the options is at least one thing of the other side."""
    side = pick(rng, tuple(SIDES))
    axis, sign = SIDES[side]
    for i in rng.permutation(len(scene.objects)):
        middle = scene.objects[i]
        thing = refer(scene, middle, rng)
        offsets = {obj: sign * (getattr(obj, axis) - getattr(middle, axis)) for obj in scene.objects if obj != middle}
        there = [obj for obj, offset in offsets.items() if offset >= CLEAR_OFFSET]
        beyond = {_named(obj) for obj, offset in offsets.items() if offset > -CLEAR_OFFSET}
        opposite = [_named(obj) for obj in offsets if _named(obj) not in beyond]
        if thing and there and opposite:
            wrong = [with_article(noun(other)) for other in opposite] + _absent(scene, rng)
            answer = with_article(noun(_named(pick(rng, there))))
            return _question("side", f"What is {side} the {noun(thing)}?", answer, wrong)
    return None


def ask_alike(scene: Scene, rng: Rng) -> Question | None:
    """Ask what has the same colour as a thing; things are named by shapes of which there is one each."""
    shapes = Counter(obj.shape for obj in scene.objects)
    lone = [obj for obj in scene.objects if shapes[obj.shape] == 1]
    pairs = [(one, two) for one in lone for two in lone if one != two and one.color == two.color]
    if not pairs:
        return None
    one, two = pick(rng, pairs)
    others = [obj.shape for obj in lone if obj.color != one.color]
    if not others:
        return None
    spare = [thing.shape for thing in absent_things(scene, hard=False) if thing.shape and not thing.color]
    wrong = [with_article(shape) for shape in [*others, *dict.fromkeys(spare)]]
    return _question("alike", f"What is the same color as the {two.shape}?", with_article(one.shape), wrong)


OWN = {1: ask_scene, 6: ask_side, 7: ask_alike}
"""Question types with words of their own."""


def ask_type(scene: Scene, kind: int, rng: Rng) -> Question | None:
    """Ask a question of a SEED-Bench type with four lettered options; None when the scene does not allow it."""
    for _ in range(_TRIES):
        question = OWN[kind](scene, rng) if kind in OWN else ask_one(scene, pick(rng, FORMS[kind]), rng)
        chosen = multiple_choice(question, rng) if question else None
        if chosen is not None and len(chosen.choices) == len(OPTIONS):
            return chosen
    return None


def ask_balanced(scene: Scene, count: int, asked: Counter[int], rng: Rng) -> list[tuple[int, Question]]:
    """Ask up to `count` different questions about a scene, rarer types first; `asked` counts them over all scenes."""
    found: dict[str, tuple[int, Question]] = {}
    for _ in range(count):
        order = sorted(rng.permutation(list(IMAGE_TYPES)), key=lambda kind: asked[int(kind)])
        for kind in map(int, order):
            question = ask_type(scene, kind, rng)
            if question is not None and question.meta["question"] not in found:
                found[question.meta["question"]] = kind, question
                asked[kind] += 1
                break
    return list(found.values())


def record(question: Question, kind: int, data_id: str, question_id: int) -> dict[str, Any]:
    """Return one entry of `SEED-Bench.json`."""
    choices = {f"choice_{letter.lower()}": text for letter, text in zip(OPTIONS, question.choices, strict=True)}
    return {
        "answer": question.answer,
        **choices,
        "data_id": data_id,
        "data_type": "image",
        "question": question.meta["question"],
        "question_id": str(question_id),
        "question_type_id": kind,
    }


def write(files: WorldFiles, sizes: FurtherConfig, folder: str) -> dict[str, int]:
    """Write `SEED-Bench.json` and the images, whose names have no suffix, below `folder`; return the counts."""
    source = Source(sizes.seed, "seed", "test")
    n_images = min(sizes.seed_images, sizes.seed_questions)
    scenes = source.scenes(n_images, objects=(3, 5))
    names = [f"{1454426 + number}_{source.rng.integers(10**9, 10**10)}" for number in range(n_images)]
    asked: Counter[int] = Counter()
    records: list[dict[str, Any]] = []
    for name, scene, count in zip(names, scenes, shares(sizes.seed_questions, n_images), strict=True):
        for kind, question in ask_balanced(scene, count, asked, source.rng):
            records.append(record(question, kind, name, FIRST_ID + len(records)))
    files.add_images(FURTHER_SET, [f"{folder}/{IMAGES}/{name}" for name in names], scenes)
    records.sort(key=lambda entry: entry["question_type_id"])
    types = {name: kind for kind, name in TYPES.items()}
    files.add_json(f"{folder}/{FILE}", {"questions": records, "question_type": types})
    return {"questions": len(records), "images": n_images}

"""A POPE of the mini world: six questions an image, three objects that are there and three that are not.

The absent ones are drawn in POPE's three ways. *random*: any coloured shape that is not in the image. *popular*: those
that occur in most images of the set. *adversarial*: those that go best with what is there; POPE counts how often
objects occur together, here a colour and a shape that are both in the image, but not on one object, go together best.
"""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

from visiontokens.config import WorldConfig
from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.pope import CATEGORIES, FIRST_ID
from visiontokens.data.miniworld.benchmarks.vqav2 import SPLIT
from visiontokens.data.miniworld.families import Rng
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.miniworld.phrases import Thing, english
from visiontokens.data.miniworld.scenes import COLORS, SHAPES, Scene, Scenes

PAIRS = 3
"""Present and absent objects asked about per image."""
KINDS = tuple(product(COLORS, SHAPES))
Kind = tuple[str, str]


def kinds_in(scene: Scene) -> list[Kind]:
    """Return the coloured shapes of a scene, each once."""
    return list(dict.fromkeys((obj.color, obj.shape) for obj in scene.objects))


def absent_kinds(scene: Scene, category: str, popularity: Counter[Kind], rng: Rng) -> list[Kind]:
    """Return the three coloured shapes that `category` asks about in vain.

    Raises:
        ValueError: unknown category.
    """
    present = kinds_in(scene)
    absent = [KINDS[i] for i in rng.permutation(len(KINDS)) if KINDS[i] not in present]
    if category == "random":
        return absent[:PAIRS]
    if category == "popular":
        return sorted(absent, key=lambda kind: -popularity[kind])[:PAIRS]
    if category == "adversarial":
        colors, shapes = {color for color, _ in present}, {shape for _, shape in present}
        return sorted(absent, key=lambda k: (-(k[0] in colors) - (k[1] in shapes), -popularity[k]))[:PAIRS]
    raise ValueError(f"category: found {category!r}, expected one of {', '.join(CATEGORIES)}")


def label_lines(scenes: Scenes, images: list[str], rng: Rng) -> dict[str, list[dict[str, Any]]]:
    """Return the lines of the three label files; the present objects are the same in each, yes and no alternate."""
    popularity: Counter[Kind] = Counter(kind for scene in scenes for kind in kinds_in(scene))
    lines: dict[str, list[dict[str, Any]]] = {category: [] for category in CATEGORIES}
    for image, scene in zip(images, scenes, strict=True):
        present = kinds_in(scene)
        there = [present[i] for i in rng.permutation(len(present))[:PAIRS]]
        for category, rows in lines.items():
            absent = absent_kinds(scene, category, popularity, rng)
            for pair in zip(there, absent, strict=True):
                for kind, label in zip(pair, ("yes", "no"), strict=True):
                    text = english("exist/thing", {"thing": Thing(*kind)})
                    rows.append({"question_id": len(rows) + 1, "image": image, "text": text, "label": label})
    return lines


def scenes_with(source: Source, n_images: int) -> Scenes:
    """Draw scenes with at least three different coloured shapes, as POPE takes images with enough objects.

    Raises:
        ValueError: too few of the drawn scenes qualify.
    """
    drawn = source.scenes(4 * n_images + 32, objects=(3, 5))
    rich = [number for number, scene in enumerate(drawn) if len(kinds_in(scene)) >= PAIRS][:n_images]
    if len(rich) < n_images:
        raise ValueError(f"pope: found {len(rich)} scenes with {PAIRS} kinds of objects, expected {n_images}")
    return drawn.select(rich)


def write(files: WorldFiles, world: WorldConfig, folder: str) -> dict[str, int]:
    """Write the three label files, LLaVA's question file and the images below `folder`; return the counts.

    The number of rows is rounded up to whole images (six rows each).
    """
    source = Source(world.seed, "pope", "test")
    scenes = scenes_with(source, -(-world.pope_questions // (2 * PAIRS)))
    images = [f"COCO_{SPLIT}_{number:012d}.jpg" for number in range(1, len(scenes) + 1)]
    lines = label_lines(scenes, images, source.rng)
    questions = []
    for category in CATEGORIES:
        files.add_jsonl(f"{folder}/coco_pope_{category}.json", lines[category])
        for row in lines[category]:
            question_id = FIRST_ID[category] + row["question_id"] - 1
            text = prompts.short_answer(row["text"])
            questions.append({"question_id": question_id, "image": row["image"], "text": text, "category": category})
    files.add_jsonl(f"{folder}/llava_pope_test.jsonl", questions)
    files.add_images("test", [f"{folder}/{SPLIT}/{image}" for image in images], scenes)
    return {"questions": len(questions), "images": len(images)}

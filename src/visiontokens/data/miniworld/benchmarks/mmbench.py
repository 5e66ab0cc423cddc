"""MMBench and MMBench-CN of the mini world: one TSV each, images inside, CircularEval's rotations as further rows."""

from __future__ import annotations

import base64
import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any, NamedTuple

from visiontokens.config import WorldConfig
from visiontokens.data.benchmarks.mmbench import OPTIONS, ROTATION
from visiontokens.data.miniworld.asking import ask_several
from visiontokens.data.miniworld.chinese import translate
from visiontokens.data.miniworld.families import Rng
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.miniworld.language import Question, multiple_choice
from visiontokens.data.miniworld.scenes import Scene

COLUMNS = (
    "index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category",
    "comment", "split",
)  # fmt: skip
SINGLE, CROSS = "finegrained_perception (instance-level)", "finegrained_perception (cross-instance)"
CATEGORIES = {
    "color": ("attribute_recognition", SINGLE),
    "shape": ("attribute_recognition", SINGLE),
    "texture": ("attribute_recognition", SINGLE),
    "size": ("attribute_recognition", SINGLE),
    "row": ("object_localization", SINGLE),
    "column": ("object_localization", SINGLE),
    "number": ("ocr", SINGLE),
    "relation": ("spatial_relationship", CROSS),
    "compare": ("attribute_comparison", CROSS),
    "exist": ("image_scene", "coarse_perception"),
    "count": ("image_topic", "coarse_perception"),
    "arithmetic": ("structuralized_imagetext_understanding", "logic_reasoning"),
}
"""Question family -> MMBench's category and l2-category whose part it plays."""
WEIGHTS = {
    "color/open": 2.2, "shape/open": 2.2, "row/open": 1.2, "column/open": 1.2, "count/open": 2, "number/open": 1.2,
    "number/is": 0.8, "number/first": 0.3, "number/last": 0.3, "number/length": 0.3, "texture": 0.4, "size": 0.4,
    "relation": 0.6, "compare": 0.4, "exist": 0.5, "arithmetic": 0.3,
}  # fmt: skip
"""Question forms and families, so that four in five questions have four options (as in MMBench's dev split)."""
HINTS = {"en": "Look at the sign.", "cn": "请看牌子。"}
"""Text above a third of the questions about the sign's number."""
FILES = {"en": "mmbench_dev_mini.tsv", "cn": "mmbench_dev_cn_mini.tsv"}


class Item(NamedTuple):
    """A base question: the lettered question, whether it has a hint, and its image as base64."""

    question: Question
    hinted: bool
    image: str


def base_question(scene: Scene, rng: Rng) -> Question:
    """Ask one multiple-choice question about a scene, with as many options (up to four) as its answer allows."""
    chosen = None
    while chosen is None:
        (question,) = ask_several(scene, WEIGHTS, 1, rng)
        chosen = multiple_choice(question, rng)
    return chosen


def rotations(choices: Sequence[str], answer: str) -> list[tuple[tuple[str, ...], str]]:
    """Return every circular shift of the options with the letter that is right then; the first is as given."""
    right = OPTIONS.index(answer)
    n = len(choices)
    return [(tuple(choices[(i + turn) % n] for i in range(n)), OPTIONS[(right - turn) % n]) for turn in range(n)]


def rows(index: int, item: Item, lang: str) -> list[dict[str, Any]]:
    """Return the table rows of a base question; a rotation refers to the base row's image by its index."""
    question = translate(item.question) if lang == "cn" else item.question
    category, broader = CATEGORIES[question.family]
    table = []
    for turn, (choices, answer) in enumerate(rotations(question.choices, question.answer)):
        row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
        row |= dict(zip(OPTIONS, choices, strict=False))
        row |= {
            "index": index + turn * ROTATION,
            "question": question.meta["question"],
            "hint": HINTS[lang] if item.hinted else "",
            "answer": answer,
            "category": category,
            "l2-category": broader,
            "image": index if turn else item.image,
            "source": "miniworld",
            "split": "dev",
        }
        table.append(row)
    return table


def tsv(table: list[dict[str, Any]]) -> str:
    """Return the rows as tab-separated text with a header."""
    out = StringIO()
    writer = csv.DictWriter(out, COLUMNS, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def write(files: WorldFiles, world: WorldConfig, folder: str, folder_cn: str) -> dict[str, dict[str, int]]:
    """Write both tables, and the images once more as files below `folder`; return each benchmark's counts.

    The image files are those inside the tables, where the loader looks for them.
    """
    source = Source(world.seed, "mmbench", "test")
    scenes = source.scenes(world.mmbench_questions)
    questions = [base_question(scene, source.rng) for scene in scenes]
    images = [f"{folder}/images/{index}.jpg" for index in range(len(questions))]
    files.add_images("test", images, scenes)
    items = []
    for question, image in zip(questions, images, strict=True):
        hinted = question.family == "number" and source.rng.random() < 1 / 3
        items.append(Item(question, hinted, base64.b64encode((files.root / image).read_bytes()).decode()))
    counts = {}
    for lang, target in (("en", folder), ("cn", folder_cn)):
        table = [row for index, item in enumerate(items) for row in rows(index, item, lang)]
        table.sort(key=lambda row: row["index"])
        files.add_text(f"{target}/{FILES[lang]}", tsv(table))
        counts[target] = {"questions": len(items), "rows": len(table), "images": len(items)}
    return counts

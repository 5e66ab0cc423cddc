"""An MMMU of the mini world: thirteen subjects of all six domains, multiple choice and open, some with two images.

Records have the columns of the official parquet files, one JSON object a line, and images lie beside them as files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from visiontokens.config import FurtherConfig
from visiontokens.data.benchmarks.base import FURTHER_SET
from visiontokens.data.benchmarks.mmmu import CHOICE, DOMAIN_OF, N_IMAGES, OPEN, SUBJECTS, image_name
from visiontokens.data.miniworld.asking import ask_several
from visiontokens.data.miniworld.benchmarks.vqav2 import shares
from visiontokens.data.miniworld.families import Rng
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.miniworld.language import Question, multiple_choice
from visiontokens.data.miniworld.phrases import Thing, noun, with_article
from visiontokens.data.miniworld.scenes import COLORS, SHAPES, Scene, Scenes

FORMS: dict[str, tuple[str, ...]] = {
    "Accounting": ("number/open", "number/is"),
    "Art": ("color/open",),
    "Computer_Science": ("number/length",),
    "Design": ("shape/open",),
    "Diagnostics_and_Laboratory_Medicine": ("texture/open", "size/open"),
    "Electronics": ("arithmetic",),
    "Finance": ("number/first", "number/last"),
    "Geography": ("row/open", "column/open"),
    "Literature": ("number/verify", "exist/sign"),
    "Math": ("count/open",),
    "Physics": ("relation/across", "relation/along"),
    "Psychology": ("compare",),
}
"""Subject -> the skills of the mini world that play its part."""
TWO_IMAGES = "Art_Theory"
"""Subject whose questions have two images, which are the options."""
MINI_SUBJECTS = tuple(subject for subject in SUBJECTS if subject in FORMS or subject == TWO_IMAGES)
OPEN_SHARE = 0.2
"""Share of the questions that have no options (MMMU: 6 %)."""
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIFFICULTIES = ("Easy", "Medium", "Hard")
SPLIT = "validation"


class Item(NamedTuple):
    """A question as its record needs it: options are empty for an open one, `answers` are its gold texts or letter."""

    question: str
    options: tuple[str, ...]
    answers: tuple[str, ...]


def ask_item(scene: Scene, subject: str, rng: Rng) -> Item | None:
    """Ask one question of a subject's skills about a scene; None when the scene does not allow it."""
    (question,) = ask_several(scene, dict.fromkeys(FORMS[subject], 1.0), 1, rng) or (None,)
    if question is None or question.family not in {form.split("/")[0] for form in FORMS[subject]}:
        return None  # the fallback of scenes that allow little
    if rng.random() < OPEN_SHARE:
        return Item(f"<image 1> {question.text}", (), _spellings(question))
    chosen = multiple_choice(question, rng)
    return Item(f"<image 1> {question.text}", chosen.choices, (chosen.answer,)) if chosen else None


def _spellings(question: Question) -> tuple[str, ...]:
    """Return the texts that count as right: a digit also as a word."""
    answer = question.answer
    return (answer, NUMBER_WORDS[int(answer)]) if answer.isdigit() and len(answer) == 1 else (answer,)


def ask_which(first: Scene, second: Scene, rng: Rng) -> Item | None:
    """Ask which of two images has a thing that only one of them has."""
    held = [{(obj.color, obj.shape) for obj in scene.objects} for scene in (first, second)]
    side = int(rng.integers(2))
    only = sorted(held[side] - held[1 - side], key=lambda kind: (COLORS.index(kind[0]), SHAPES.index(kind[1])))
    if not only:
        return None
    thing = Thing(*only[int(rng.integers(len(only)))])
    text = f"Which image has {with_article(noun(thing))} in it?"
    return Item(text, ("<image 1>", "<image 2>"), ("AB"[side],))


def record(item: Item, key: str, n_images: int, rng: Rng) -> dict[str, Any]:
    """Return one record with the columns of the official files; an image is named by its file."""
    answers = list(item.answers)
    return {
        "id": key,
        "question": item.question,
        "options": str(list(item.options)),
        "explanation": "",
        **{f"image_{n}": image_name(key, n) if n <= n_images else None for n in range(1, N_IMAGES + 1)},
        "img_type": "['Diagrams']",
        "answer": answers[0] if len(answers) == 1 else str(answers),
        "topic_difficulty": DIFFICULTIES[int(rng.integers(len(DIFFICULTIES)))],
        "question_type": CHOICE if item.options else OPEN,
        "subfield": DOMAIN_OF[key.split("_", 1)[1].rpartition("_")[0]],
    }


def _items(scenes: Scenes, subject: str, rng: Rng) -> Iterator[tuple[Item, list[int]]]:
    """Yield questions of a subject with the numbers of their scenes."""
    if subject == TWO_IMAGES:
        for number in range(0, len(scenes) - 1, 2):
            item = ask_which(scenes[number], scenes[number + 1], rng)
            if item is not None:
                yield item, [number, number + 1]
        return
    for number, scene in enumerate(scenes):
        found = ask_item(scene, subject, rng)
        if found is not None:
            yield found, [number]


def write(files: WorldFiles, sizes: FurtherConfig, folder: str) -> dict[str, int]:
    """Write `<subject>/validation.jsonl` and `images/` below `folder`; return the counts.

    Raises:
        ValueError: too few scenes allow a subject's questions.
    """
    total = images = 0
    for subject, wanted in zip(MINI_SUBJECTS, shares(sizes.mmmu_questions, len(MINI_SUBJECTS)), strict=True):
        source = Source(sizes.seed, f"mmmu/{subject}", "test")
        scenes = source.scenes(4 * wanted + 32, plate=1.0 if "number" in str(FORMS.get(subject)) else 0.8)
        chosen = [pair for _, pair in zip(range(wanted), _items(scenes, subject, source.rng), strict=False)]
        if len(chosen) < wanted:
            raise ValueError(f"mmmu {subject}: found {len(chosen)} scenes with a question, expected {wanted}")
        keys = [f"{SPLIT}_{subject}_{number}" for number in range(1, wanted + 1)]
        records = [record(item, key, len(used), source.rng) for key, (item, used) in zip(keys, chosen, strict=True)]
        places = [
            (f"{folder}/images/{image_name(key, n)}", scene)
            for key, (_, used) in zip(keys, chosen, strict=True)
            for n, scene in enumerate(used, 1)
        ]
        files.add_jsonl(f"{folder}/{subject}/{SPLIT}.jsonl", records)
        files.add_images(FURTHER_SET, [path for path, _ in places], scenes.select([scene for _, scene in places]))
        total, images = total + len(records), images + len(places)
    return {"questions": total, "images": images, "subjects": len(MINI_SUBJECTS)}

"""An MME of the mini world: fourteen subtasks, two questions an image, one answered yes and one no.

The mini world has no posters and no celebrities. Every subtask is therefore given the mini skill that plays its part
(`SUBTASKS`); subtasks 3 and 4 of cognition do not need their image, the question carries everything.
"""

from __future__ import annotations

from typing import NamedTuple

from visiontokens.config import WorldConfig
from visiontokens.data.benchmarks.mme import COGNITION, PERCEPTION, RELEASE
from visiontokens.data.benchmarks.prompts import MME_SUFFIX
from visiontokens.data.miniworld.asking import ask_verdict
from visiontokens.data.miniworld.families import Rng
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.miniworld.knowledge import ask_text
from visiontokens.data.miniworld.scenes import Scene


class Subtask(NamedTuple):
    """What stands for an MME subtask: a question family with its forms, or a topic that needs no image ("text")."""

    family: str
    forms: tuple[str, ...]
    analogy: str


SUBTASKS = {
    "existence": Subtask("exist", ("thing",), "is a thing there"),
    "count": Subtask("count", ("verify",), "is there a total of N things"),
    "position": Subtask("relation", ("left", "right", "above", "below"), "where two things are to each other"),
    "color": Subtask("color", ("verify",), "is a thing of that colour"),
    "posters": Subtask("texture", ("verify",), "what is printed on it: plain or striped"),
    "celebrity": Subtask("shape", ("verify",), "who is it: the shape of a thing known by its colour"),
    "scene": Subtask("compare", ("more", "same"), "the image as a whole: more or as many of one as of another"),
    "landmark": Subtask("row", ("verify",), "which place is it: the row a thing is in"),
    "artwork": Subtask("compare", ("color", "shape", "size"), "are two works of one kind: colour, shape or size"),
    "OCR": Subtask("number", ("verify",), "is that the number on the sign"),
    "commonsense_reasoning": Subtask("arithmetic", ("even", "larger"), "a known property of the number on the sign"),
    "numerical_calculation": Subtask("arithmetic", ("sum",), "the sum of the digits on the sign"),
    "text_translation": Subtask("text", ("translation",), "is a Chinese word translated rightly"),
    "code_reasoning": Subtask("text", ("code",), "what a line of code prints"),
}
"""MME subtask -> its analogue in the mini world."""
NESTED = frozenset({"posters", "celebrity", "scene", "landmark", "artwork"})
"""Subtasks that keep images and questions in two subfolders."""
_SPARE = 6  # scenes drawn per image wanted; those without both a yes and a no are passed over
_TEXT_TRIES = 200


def pair(scene: Scene, subtask: Subtask, rng: Rng) -> tuple[str, str] | None:
    """Return a question answered yes and one answered no, or None when the scene does not give both."""
    if subtask.family == "text":
        return text_pair(subtask.forms[0], rng)
    yes = ask_verdict(scene, subtask.family, subtask.forms, "yes", rng)
    no = ask_verdict(scene, subtask.family, subtask.forms, "no", rng)
    return (yes.text, no.text) if yes and no else None


def text_pair(topic: str, rng: Rng) -> tuple[str, str]:
    """Return a question of a text topic answered yes and one answered no.

    Raises:
        ValueError: the topic does not give both answers.
    """
    found: dict[str, str] = {}
    for _ in range(_TEXT_TRIES):
        question = ask_text(rng, topic)
        found.setdefault(question.answer, question.text)
        if found.keys() >= {"yes", "no"}:
            return found["yes"], found["no"]
    raise ValueError(f"topic {topic!r}: found only the answers {', '.join(sorted(found))}, expected yes and no")


def paths(category: str, number: int) -> tuple[str, str]:
    """Return where image and text of a subtask's item lie below the release folder."""
    stem = f"{number:04d}"
    suffix = "png" if category in COGNITION else "jpg"
    if category in NESTED:
        return f"{category}/images/{stem}.{suffix}", f"{category}/questions_answers_YN/{stem}.txt"
    return f"{category}/{stem}.{suffix}", f"{category}/{stem}.txt"


def lines(questions: tuple[str, str], rng: Rng) -> str:
    """Return the two lines of a text file, in random order: question, tab, Yes or No."""
    rows = [f"{text} {MME_SUFFIX}\t{label}\n" for text, label in zip(questions, ("Yes", "No"), strict=True)]
    return "".join(rows[i] for i in rng.permutation(2))


def write(files: WorldFiles, world: WorldConfig, folder: str) -> dict[str, int]:
    """Write the tree of fourteen subtasks below `folder`; return the counts.

    Raises:
        ValueError: too few scenes give a subtask's two questions.
    """
    n_images = 0
    for category in PERCEPTION + COGNITION:
        source = Source(world.seed, f"mme/{category}", "test")
        wanted = max(1, world.mme_lines // 2)
        drawn = source.scenes(_SPARE * wanted + 32, objects=(2, 5))
        chosen: dict[int, tuple[str, str]] = {}
        for number, scene in enumerate(drawn):
            found = pair(scene, SUBTASKS[category], source.rng)
            if found is not None:
                chosen[number] = found
            if len(chosen) == wanted:
                break
        if len(chosen) < wanted:
            raise ValueError(f"mme {category}: found {len(chosen)} scenes with both answers, expected {wanted}")
        places = [paths(category, number) for number in range(1, wanted + 1)]
        files.add_images("test", [f"{folder}/{RELEASE}/{image}" for image, _ in places], drawn.select(list(chosen)))
        for (_, text), questions in zip(places, chosen.values(), strict=True):
            files.add_text(f"{folder}/{RELEASE}/{text}", lines(questions, source.rng))
        n_images += wanted
    return {"questions": 2 * n_images, "images": n_images}

"""A ScienceQA of the mini world: `problems.json`, `pid_splits.json`, LLaVA's question file, `images/test/<pid>/`."""

from __future__ import annotations

from typing import Any

from visiontokens.config import WorldConfig
from visiontokens.data.benchmarks.scienceqa import conversation
from visiontokens.data.miniworld.asking import ask_several
from visiontokens.data.miniworld.families import Rng, pick
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.miniworld.knowledge import ask_text
from visiontokens.data.miniworld.language import Question, multiple_choice
from visiontokens.data.miniworld.scenes import Scene

WEIGHTS = {
    "color/open": 2.5, "shape/open": 2.5, "row/open": 1.2, "column/open": 1.2, "count/open": 2, "number/open": 1.5,
    "number/is": 1, "number/first": 0.4, "number/last": 0.4, "texture": 0.6, "size": 0.6, "relation": 0.7,
    "compare": 0.4,
}  # fmt: skip
"""Question forms and families of the image problems; nearly all of the first kind allow four options."""
TEXT_TOPICS = ("larger", "smaller", "next", "sum", "even", "corners", "category", "reading")
OPTION_COUNTS = {2: 0.15, 3: 0.2, 4: 0.65}
"""Most options a problem may have -> share of the problems with that limit."""
SPLITS = ("train", "val", "test", "trainval", "minival", "minitest")
SUBJECTS = {"number": "language science", "row": "social science", "column": "social science"}
"""Reading counts as language science, finding places as social science (maps), all else as natural science."""
HINTS = ("Look at the image.", "The image shows a sign.")
"""Text above an image problem in general, and above one about the sign's number."""
_HINT = 0.5  # share of the image problems with a text to read first


def n_options(rng: Rng) -> int:
    """Draw how many options a problem may have."""
    return int(rng.choice(list(OPTION_COUNTS), p=list(OPTION_COUNTS.values())))


def image_hint(question: Question, rng: Rng) -> str:
    """Return the text above an image problem: it says what to look at and never gives the answer away."""
    if rng.random() >= _HINT:
        return ""
    return HINTS[question.family == "number"]


def problem(question: Question, hint: str, *, image: bool, rng: Rng) -> dict[str, Any]:
    """Return an entry of `problems.json` for a multiple-choice question."""
    topic = question.meta.get("topic", question.family)
    return {
        "question": question.meta["question"],
        "choices": list(question.choices),
        "answer": "ABCD".index(question.answer),
        "hint": hint,
        "image": "image.png" if image else None,
        "task": "closed choice",
        "grade": f"grade{int(rng.integers(1, 13))}",
        "subject": SUBJECTS.get(topic, "natural science"),
        "topic": topic,
        "category": question.family,
        "skill": question.meta.get("form", topic),
        "lecture": "",
        "solution": "",
        "split": "test",
    }


def image_problem(scene: Scene, rng: Rng) -> dict[str, Any]:
    """Ask one multiple-choice question about a scene."""
    chosen = None
    while chosen is None:
        (question,) = ask_several(scene, WEIGHTS, 1, rng)
        chosen = multiple_choice(question, rng, n_options(rng))
    return problem(chosen, image_hint(chosen, rng), image=True, rng=rng)


def text_problem(rng: Rng) -> dict[str, Any]:
    """Ask one multiple-choice question that needs no image; some come with a sentence to read."""
    chosen = None
    while chosen is None:
        chosen = multiple_choice(ask_text(rng, pick(rng, TEXT_TOPICS)), rng, n_options(rng))
    return problem(chosen, chosen.meta["hint"], image=False, rng=rng)


def write(files: WorldFiles, world: WorldConfig, folder: str) -> dict[str, int]:
    """Write problems, splits, LLaVA's question file and the images below `folder`; return the counts."""
    source = Source(world.seed, "scienceqa", "test")
    scenes = source.scenes(world.scienceqa_image, plate=0.7)
    items = [image_problem(scene, source.rng) for scene in scenes]
    items += [text_problem(source.rng) for _ in range(world.scienceqa_text)]
    pids = [str(pid) for pid in source.rng.permutation(len(items)) + 1]
    with_image = [f"{folder}/images/test/{pid}/image.png" for pid in pids[: len(scenes)]]
    files.add_images("test", with_image, scenes)
    problems = dict(sorted(zip(pids, items, strict=True), key=lambda entry: int(entry[0])))
    everything = list(problems)
    parts = {name: everything if name in {"test", "minitest"} else [] for name in SPLITS}
    files.add_json(f"{folder}/problems.json", problems)
    files.add_json(f"{folder}/pid_splits.json", parts)
    files.add_json(f"{folder}/llava_test_CQM-A.json", [conversation(pid, item) for pid, item in problems.items()])
    return {"questions": len(problems), "images": len(scenes), "text": world.scienceqa_text}

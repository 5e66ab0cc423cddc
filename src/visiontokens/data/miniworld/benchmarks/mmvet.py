"""An MM-Vet of the mini world: `mm-vet.json` with capabilities, answers with <AND> and <OR>, and `images/`.

A judge is to grade the answers. What is asked is what other sets ask, one or two things at a time: two at once need the
capabilities of both, and half of the answer is worth half of the points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visiontokens.config import FurtherConfig
from visiontokens.data.benchmarks.base import FURTHER_SET
from visiontokens.data.miniworld.asking import ask_one
from visiontokens.data.miniworld.benchmarks.annotators import SPELLED_OUT
from visiontokens.data.miniworld.families import Rng, pick
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.miniworld.language import Question, caption
from visiontokens.data.miniworld.phrases import CAPTION_PROMPTS
from visiontokens.data.miniworld.scenes import Scene

CAPABILITIES: dict[str, tuple[str, ...]] = {
    "color/open": ("rec",), "shape/open": ("rec",), "texture/open": ("rec",), "count/open": ("rec",),
    "row/open": ("rec", "spat"), "column/open": ("rec", "spat"), "relation": ("rec", "spat"), "number/open": ("ocr",),
    "number/first": ("ocr", "spat"), "number/last": ("ocr", "spat"), "arithmetic/sum": ("ocr", "math"),
    "arithmetic/even": ("ocr", "math"), "compare/more": ("math", "rec"),
}  # fmt: skip
"""Forms of questions and what they need: recognition, reading, space, arithmetic."""
DESCRIPTION = ("gen", "rec", "spat")
"""What a description of the whole image needs, beside reading where there is a sign to read."""
SHARES = {"single": 0.45, "double": 0.4, "description": 0.15}
_TRIES = 40


def spelled(question: Question) -> str:
    """Return the ground truth of one question; a digit is right as a word, too."""
    answer = question.answer
    return f"{answer}<OR>{SPELLED_OUT[int(answer)]}" if answer.isdigit() and len(answer) == 1 else answer


def _ask(scene: Scene, rng: Rng, but: Sequence[str] = ()) -> tuple[Question, tuple[str, ...]] | None:
    """Return a question that the scene allows and is not in `but`, and what it needs."""
    for _ in range(_TRIES):
        form = pick(rng, list(CAPABILITIES))
        found = ask_one(scene, form, rng)
        if found is not None and found.text not in but:
            return found, CAPABILITIES[form]
    return None


def ask_vet(scene: Scene, kind: str, rng: Rng) -> dict[str, Any] | None:
    """Return question, answer and capabilities of one record, None when the scene does not allow the kind.

    Args:
        scene: what is asked about.
        kind: a key of `SHARES`.
        rng: source of choices.
    """
    if kind == "description":
        parts = [part.strip() for part in caption(scene, rng).rstrip(".").split(";")]
        needs = (*DESCRIPTION, *["ocr"] * scene.legible)
        return _record(pick(rng, CAPTION_PROMPTS), "<AND>".join(parts), needs)
    first = _ask(scene, rng)
    if first is None or kind == "single":
        return first and _record(first[0].text, spelled(first[0]), first[1])
    second = _ask(scene, rng, but=[first[0].text])
    if second is None:
        return None
    text = f"{first[0].text} {second[0].text}"
    return _record(text, f"{first[0].answer}<AND>{second[0].answer}", first[1] + second[1])


def _record(question: str, answer: str, needs: Sequence[str]) -> dict[str, Any]:
    return {"question": question, "answer": answer, "capability": sorted(set(needs)), "imagesource": "mini world"}


def write(files: WorldFiles, sizes: FurtherConfig, folder: str) -> dict[str, int]:
    """Write `mm-vet.json` and the images below `folder`; return the counts.

    Raises:
        ValueError: too few scenes allow a question.
    """
    source = Source(sizes.seed, "mmvet", "test")
    scenes = source.scenes(2 * sizes.mmvet_questions + 16, objects=(2, 5), plate=0.8)
    records: dict[str, dict[str, Any]] = {}
    used = []
    for number, scene in enumerate(scenes):
        if len(records) == sizes.mmvet_questions:
            break
        kind = str(source.rng.choice(list(SHARES), p=list(SHARES.values())))
        found = ask_vet(scene, kind, source.rng)
        if found is not None:
            key = f"v1_{len(records)}"
            records[key] = {"imagename": f"{key}.png", **found}
            used.append(number)
    if len(records) < sizes.mmvet_questions:
        raise ValueError(f"mmvet: found {len(records)} scenes with a question, expected {sizes.mmvet_questions}")
    files.add_images(FURTHER_SET, [f"{folder}/images/{key}.png" for key in records], scenes.select(used))
    files.add_json(f"{folder}/mm-vet.json", records)
    return {"questions": len(records), "images": len(records)}

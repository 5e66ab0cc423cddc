"""What can be asked and said about a scene, with answers in the style of the official sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .comparisons import build_alike, build_amounts, build_arithmetic, build_direction, build_relation
from .families import (
    VALUES,
    Builder,
    Draft,
    Rng,
    absent_things,
    build_attribute,
    build_count,
    build_exist,
    build_number,
    build_place,
    build_sign,
    change_digit,
    pick,
    visible,
)
from .phrases import UNANSWERABLE, Thing, english, noun, with_article
from .scenes import IMAGE_SIZE, Obj, Scene

BUILDERS: dict[str, dict[str, tuple[Builder, float]]] = {
    "exist": {"thing": (build_exist, 0.9), "sign": (build_sign, 0.1)},
    "color": {"open": (build_attribute("color", "open"), 0.75), "verify": (build_attribute("color", "verify"), 0.25)},
    "shape": {"open": (build_attribute("shape", "open"), 0.75), "verify": (build_attribute("shape", "verify"), 0.25)},
    **{
        name: {
            "open": (build_attribute(name, "open"), 0.25),
            "choose": (build_attribute(name, "choose"), 0.5),
            "verify": (build_attribute(name, "verify"), 0.25),
        }
        for name in ("texture", "size")
    },
    **{
        axis: {
            "open": (build_place(axis, "open"), 0.5),
            "choose": (build_place(axis, "choose"), 0.3),
            "verify": (build_place(axis, "verify"), 0.2),
        }
        for axis in ("row", "column")
    },
    "relation": {
        **{side: (build_relation(side), 0.15) for side in ("left", "right", "above", "below")},
        **{kind: (build_direction(kind), 0.2) for kind in ("across", "along")},
    },
    "count": {"open": (build_count("open"), 0.8), "verify": (build_count("verify"), 0.2)},
    "number": {
        part: (build_number(part), weight)
        for part, weight in {"open": 0.4, "is": 0.2, "first": 0.1, "last": 0.1, "length": 0.1, "verify": 0.1}.items()
    },
    "compare": {
        **{style: (build_amounts(style), 0.2) for style in ("more", "same")},
        **{name: (build_alike(name), 0.2) for name in ("color", "shape", "size")},
    },
    "arithmetic": {style: (build_arithmetic(style), 1 / 3) for style in ("even", "sum", "larger")},
}
FAMILIES = (*BUILDERS, "unanswerable")


class Question(NamedTuple):
    """A question with its answer. `choices` is filled for multiple choice, where `answer` is a letter.

    `answer_type` is VQAv2's ("yes/no", "number", "other"). `meta` holds `form` and `args` (from which the text was
    rendered), `kind` (key of `VALUES`, or "number"), `question` (the text without options) and `answerable`.
    """

    family: str
    text: str
    answer: str
    choices: tuple[str, ...] = ()
    answer_type: str = "other"
    meta: dict[str, Any] = {}  # noqa: RUF012 - never mutated; always given by the functions below


def answer_type(answer: str) -> str:
    """Return VQAv2's type of an answer."""
    if answer in {"yes", "no"}:
        return "yes/no"
    return "number" if answer.isdigit() else "other"


def forms(family: str) -> tuple[str, ...]:
    """Return the forms in which a family can be asked ("open", "verify", ...).

    Raises:
        ValueError: no such family.
    """
    if family == "unanswerable":
        return ("absent", "present")
    if family not in BUILDERS:
        raise ValueError(f"family: found {family!r}, expected one of {', '.join(FAMILIES)}")
    return tuple(BUILDERS[family])


def ask(scene: Scene, family: str, rng: Rng, form: str | None = None) -> Question | None:
    """Ask about `scene`; None when the scene does not allow the family (or the wanted `form` of it).

    Raises:
        ValueError: no such family, or the family has no such form.
    """
    known = forms(family)
    if form is not None and form not in known:
        raise ValueError(f"form of {family}: found {form!r}, expected one of {', '.join(known)}")
    if family == "unanswerable":
        absent = rng.random() < 0.5 if form is None else form == "absent"
        first, second = (_ask_in_vain, _ask_any_open) if absent else (_ask_any_open, _ask_in_vain)
        return first(scene, rng) or (second(scene, rng) if form is None else None)
    for name in (form,) if form else _shuffled(family, rng):
        draft = BUILDERS[family][name][0](scene, rng)
        if draft is not None:
            return _worded(family, f"{family}/{name}", draft)
    return None


def _shuffled(family: str, rng: Rng) -> list[str]:
    """Return the family's forms in random order, the heavier ones tending to the front."""
    keys = {name: rng.random() ** (1 / weight) for name, (_, weight) in BUILDERS[family].items()}
    return sorted(keys, key=keys.__getitem__, reverse=True)


def _worded(family: str, form: str, draft: Draft) -> Question:
    text = english(form, draft.args)
    answerable = draft.answer != UNANSWERABLE
    meta = {"form": form, "args": draft.args, "kind": draft.kind, "question": text, "answerable": answerable}
    return Question(family, text, draft.answer, (), answer_type(draft.answer), meta)


def _ask_any_open(scene: Scene, rng: Rng) -> Question | None:
    """Ask an answerable question of the kinds that `_ask_in_vain` asks."""
    for family in rng.permutation(["number", "color", "shape", "texture", "size"]):
        found = ask(scene, str(family), rng, "open")
        if found is not None:
            return found._replace(family="unanswerable")
    return None


def _ask_in_vain(scene: Scene, rng: Rng) -> Question | None:
    """Ask what the image cannot answer: an attribute of something absent, or a number that is not to be read."""
    if not scene.legible and rng.random() < 0.5:
        return _worded("unanswerable", "number/open", Draft({}, UNANSWERABLE, "number"))
    attribute = pick(rng, ("color", "shape", "texture", "size"))
    things = absent_things(scene, hard=False)
    if attribute in {"color", "shape"}:
        things = [t for t in things if not getattr(t, attribute) and any(t)]
    else:
        things = [t for t in things if t.color and t.shape]
    if not things:
        return None
    return _worded("unanswerable", f"{attribute}/open", Draft({"thing": pick(rng, things)}, UNANSWERABLE, attribute))


def multiple_choice(question: Question, rng: Rng, n: int = 4) -> Question | None:
    """Turn a question into one with at most `n` lettered options; None when its answer has no alternatives.

    The text becomes the question and one line "A. red" per option, the answer a letter.
    """
    if question.choices or question.answer == UNANSWERABLE:
        return None
    if "wrong" in question.meta:
        others = list(question.meta["wrong"])
    elif question.meta["kind"] == "number":
        others = _near_numbers(question.answer, rng, n)
    else:
        others = [value for value in VALUES[question.meta["kind"]] if value != question.answer]
    options = [others[i] for i in rng.permutation(len(others))[: n - 1]]
    place = int(rng.integers(len(options) + 1))
    options.insert(place, question.answer)
    text = lettered(question.text, options)
    meta = {**question.meta, "answer_text": question.answer}
    return Question(question.family, text, "ABCD"[place], tuple(options), "other", meta)


def _near_numbers(answer: str, rng: Rng, n: int) -> list[str]:
    """Return wrong options that differ from each other in one or two digits.

    All options are one digit away from a centre, which is the answer in one of n cases only: if it always were, the
    options alone would give it away.
    """
    centre = answer if rng.random() < 1 / n else change_digit(answer, rng)
    near = sorted({change_digit(centre, rng) for _ in range(3 * n)} - {answer, centre})
    if centre == answer:
        return near
    return [centre, *(near[i] for i in rng.permutation(len(near))[: n - 2])]


def lettered(text: str, options: Sequence[str]) -> str:
    """Return the question followed by its options, one line each ("A. red")."""
    return "\n".join([text, *(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))])


def caption(scene: Scene, rng: Rng) -> str:
    """Describe everything in reading order (row by row), the place before or after each thing.

    A number that cannot be read is left out of the sign's description.
    """
    parts = [(obj.row, obj.col, obj.x, _described(scene, obj)) for obj in scene.objects]
    if scene.plate_xy is not None:
        x, y = scene.plate_xy
        middle = y + scene.digit_px // 2
        sign = f"a sign with the number {scene.number}" if scene.legible else "a sign"
        parts.append((middle * 4 // IMAGE_SIZE, x * 4 // IMAGE_SIZE, x, sign))
    place_first = rng.random() < 0.7
    said = [
        f"row {row + 1}, column {col + 1}: {what}" if place_first else f"{what} in row {row + 1}, column {col + 1}"
        for row, col, _, what in sorted(parts)
    ]
    return "; ".join(said) + "." if said else "nothing."


def _described(scene: Scene, obj: Obj) -> str:
    seen = {name: getattr(obj, name) for name in Thing._fields if visible(scene, name)}
    return with_article(noun(Thing(**seen)))

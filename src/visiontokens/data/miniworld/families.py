"""The question families: each builder draws what to ask about a scene, and the answer, before it is put into words.

Every family balances its answers by construction: yes/no questions draw the answer first, counts draw the number
first. A question that is not clear-cut (two candidates, an object on the border between two rows, a blurred
texture) is not asked: the builder returns None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np

from .phrases import Args, Thing
from .scenes import COLORS, IMAGE_SIZE, SHAPES, SIZES, TEXTURES, Obj, Scene

Rng: TypeAlias = np.random.Generator
T = TypeVar("T")

VALUES: dict[str, tuple[str, ...]] = {
    "color": COLORS,
    "shape": SHAPES,
    "size": SIZES,
    "texture": TEXTURES,
    "row": ("1", "2", "3", "4"),
    "column": ("1", "2", "3", "4"),
    "row half": ("top", "bottom"),
    "column half": ("left", "right"),
    "across": ("left", "right"),
    "along": ("above", "below"),
    "count": ("0", "1", "2", "3", "4", "5"),
    "length": ("1", "2", "3", "4"),
    "digit": tuple("0123456789"),
    "yes/no": ("yes", "no"),
}
CLEAR_OF_EDGE = 3  # px from the border between two rows or columns, for a row or column to be asked
SHARP = {"texture": 1.0, "shape": 3.0, "size": 3.0}  # largest blur (sigma, px) at which the attribute can be seen
_REFERENTS = (
    ("color", "shape"),
    ("shape",),
    ("color",),
    ("size", "shape"),
    ("texture", "shape"),
    ("size", "color"),
    ("texture", "color"),
)
_PLAIN_REFERENTS = 3  # the first ones are preferred


class Draft(NamedTuple):
    """A question before it is put into words."""

    args: Args
    answer: str
    kind: str


Builder: TypeAlias = "Callable[[Scene, Rng], Draft | None]"


def pick(rng: Rng, items: Sequence[T]) -> T:
    """Return one of `items` at random."""
    return items[int(rng.integers(len(items)))]


def visible(scene: Scene, *names: str) -> bool:
    """Whether the scene's blur leaves the named attributes to be seen."""
    return all(scene.blur < SHARP.get(name, np.inf) for name in names)


def _only(scene: Scene, thing: Thing) -> bool:
    return sum(thing.matches(obj) for obj in scene.objects) == 1


def refer(scene: Scene, obj: Obj, rng: Rng, hidden: str = "") -> Thing | None:
    """Describe `obj` so that nothing else fits, without naming the attribute `hidden`."""
    found: list[Thing] = []
    for rank, names in enumerate(_REFERENTS):
        if found and rank >= _PLAIN_REFERENTS:
            break
        thing = Thing(**{name: getattr(obj, name) for name in names})
        if hidden not in names and visible(scene, *names) and _only(scene, thing):
            found.append(thing)
    return pick(rng, found) if found else None


def _some_referent(scene: Scene, rng: Rng, hidden: str = "") -> tuple[Obj, Thing] | None:
    """Return a random object that can be described, with its description."""
    for i in rng.permutation(len(scene.objects)):
        thing = refer(scene, scene.objects[i], rng, hidden)
        if thing is not None:
            return scene.objects[i], thing
    return None


def verdict(truth: bool) -> str:
    """Return "yes" or "no"."""
    return "yes" if truth else "no"


def _other_value(kind: str, value: str, rng: Rng) -> str:
    return pick(rng, [v for v in VALUES[kind] if v != value])


def build_exist(scene: Scene, rng: Rng) -> Draft | None:
    """Ask for a thing; half of the absent ones recombine what is there (as POPE's adversarial split does)."""
    if rng.random() < 0.5:
        if not scene.objects:
            return None
        obj = pick(rng, scene.objects)
        named = pick(rng, (("color", "shape"), ("color", "shape"), ("shape",), ("color",), ("texture", "shape")))
        if not visible(scene, *named):
            named = ("color",)
        return Draft({"thing": Thing(**{name: getattr(obj, name) for name in named})}, "yes", "yes/no")
    absent = absent_things(scene, hard=bool(rng.random() < 0.5)) or absent_things(scene, hard=False)
    return Draft({"thing": pick(rng, absent)}, "no", "yes/no")


def absent_things(scene: Scene, hard: bool) -> list[Thing]:
    """Return descriptions of what is not there.

    `hard`: a colour and a shape that are both there, but not together, or a texture that the shape does not have;
    otherwise any colour with any shape, and any shape or colour alone.
    """
    colors = {obj.color for obj in scene.objects} if hard else set(COLORS)
    shapes = {obj.shape for obj in scene.objects} if hard else set(SHAPES)
    things = [Thing(color=c, shape=s) for c in COLORS if c in colors for s in SHAPES if s in shapes]
    if hard:
        if visible(scene, "texture"):
            things += [Thing(shape=s, texture=t) for s in SHAPES if s in shapes for t in TEXTURES]
    else:
        things += 3 * [Thing(shape=s) for s in SHAPES] + 3 * [Thing(color=c) for c in COLORS]
    return [thing for thing in things if not any(thing.matches(obj) for obj in scene.objects)]


def build_sign(scene: Scene, rng: Rng) -> Draft | None:
    """Ask for the sign, keeping yes and no about even although most scenes have one."""
    if scene.number is not None and rng.random() < 0.7:
        return None
    return Draft({}, verdict(scene.number is not None), "yes/no")


def build_attribute(name: str, style: str) -> Builder:
    """Return the builder for an attribute: open or choose (same answer), or verify."""

    def build(scene: Scene, rng: Rng) -> Draft | None:
        """Ask for an attribute of one object."""
        found = _some_referent(scene, rng, hidden=name) if visible(scene, name) else None
        if found is None:
            return None
        obj, thing = found
        value = getattr(obj, name)
        if style != "verify":
            return Draft({"thing": thing}, value, name)
        truth = bool(rng.random() < 0.5)
        asked = value if truth else _other_value(name, value, rng)
        return Draft({"thing": thing, "value": asked}, verdict(truth), "yes/no")

    return build


def build_place(axis: str, style: str) -> Builder:
    """Return the builder for rows ("row") or columns ("column"): open, verify, or choose between the halves."""

    def build(scene: Scene, rng: Rng) -> Draft | None:
        """Ask for the place of one object."""
        found = _some_referent(scene, rng)
        if found is None:
            return None
        obj, thing = found
        position = obj.y if axis == "row" else obj.x
        step = IMAGE_SIZE // (2 if style == "choose" else 4)
        if position >= step - CLEAR_OF_EDGE and min(position % step, -position % step) < CLEAR_OF_EDGE:
            return None
        if style == "choose":
            kind = f"{axis} half"
            return Draft({"thing": thing}, VALUES[kind][position // step], kind)
        value = VALUES[axis][position // step]
        if style == "open":
            return Draft({"thing": thing}, value, axis)
        truth = bool(rng.random() < 0.5)
        asked = value if truth else _other_value(axis, value, rng)
        return Draft({"thing": thing, "value": asked}, verdict(truth), "yes/no")

    return build


_CLASSES = (
    [Thing()]
    + [Thing(color=c) for c in COLORS]
    + [Thing(shape=s) for s in SHAPES]
    + [Thing(size=z) for z in SIZES]
    + [Thing(texture=t) for t in TEXTURES]
)


def tally(scene: Scene) -> dict[Thing, int]:
    """Return how many objects of each class that can be counted there are (classes that blur hides left out)."""
    classes = [thing for thing in _CLASSES if visible(scene, *(n for n in Thing._fields if getattr(thing, n)))]
    return {thing: sum(map(thing.matches, scene.objects)) for thing in classes}


def build_count(style: str) -> Builder:
    """Return the builder of counting questions: the answer is drawn first, then a class that has it."""

    def build(scene: Scene, rng: Rng) -> Draft | None:
        """Ask how many of a thing there are."""
        counts = tally(scene)
        truth = bool(rng.random() < 0.5)
        numbers = {n for n in counts.values() if n or style == "open" or not truth}
        if not numbers:
            return None
        number = pick(rng, sorted(numbers))
        thing = pick(rng, [t for t, n in counts.items() if n == number])
        if style == "open":
            return Draft({"thing": thing}, str(number), "count")
        asked = number if truth else pick(rng, [n for n in (number - 1, number + 1, number + 2) if n > 0])
        return Draft({"thing": thing, "value": str(asked)}, verdict(truth), "yes/no")

    return build


def build_number(part: str) -> Builder:
    """Return the builder of questions on the sign's number: all of it, one digit, or how many digits."""

    def build(scene: Scene, rng: Rng) -> Draft | None:
        """Ask about the number on the sign."""
        number = scene.number
        if number is None or not scene.legible:
            return None
        if part == "verify":
            truth = bool(rng.random() < 0.5)
            asked = number if truth else change_digit(number, rng)
            return Draft({"value": asked}, verdict(truth), "yes/no")
        answers = {"first": number[0], "last": number[-1], "length": str(len(number))}
        kinds = {"first": "digit", "last": "digit", "length": "length"}
        return Draft({}, answers.get(part, number), kinds.get(part, "number"))

    return build


def change_digit(number: str, rng: Rng) -> str:
    """Return the number with one digit replaced (never by a leading zero)."""
    place = int(rng.integers(len(number)))
    digits = [d for d in VALUES["digit"] if d != number[place] and (place or len(number) == 1 or d != "0")]
    return number[:place] + pick(rng, digits) + number[place + 1 :]

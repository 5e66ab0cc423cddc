"""What can be asked about a clip, in the words of the mini language model: motion, order, counts, what stays.

The vocabulary has no verbs of motion and calls a frame a picture; the types are those of ActivityNet-QA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from visiontokens.data.miniworld.clips import DIRECTIONS, Clip
from visiontokens.data.miniworld.families import CLEAR_OF_EDGE, Rng, pick, refer
from visiontokens.data.miniworld.language import ask
from visiontokens.data.miniworld.phrases import Thing, noun, plural
from visiontokens.data.miniworld.scenes import COLORS, IMAGE_SIZE, SHAPES

TYPES = ("motion", "spatial", "temporal", "yes/no", "color", "object", "location", "number", "other")
"""ActivityNet-QA's question types by their number in `test_a.json`."""
_APART = 12  # px between two objects' centres for one to be called left of or above the other
_TRIES = 16


class ClipQuestion(NamedTuple):
    """A question about a clip; `kind` is one of `TYPES`."""

    text: str
    answer: str
    kind: str


Asker = Callable[[Clip, Rng], "ClipQuestion | None"]


def ask_direction(clip: Clip, rng: Rng) -> ClipQuestion | None:
    """Ask where the moving object went."""
    thing = refer(clip.scene, clip.mover, rng)
    if thing is None:
        return None
    text = f"Is the {noun(thing)} in the last picture left, right, above or below where it was?"
    return ClipQuestion(text, clip.direction, "motion")


def ask_mover(clip: Clip, rng: Rng) -> ClipQuestion:
    """Ask which object moves, by its colour or shape."""
    name = pick(rng, ("color", "shape"))
    return ClipQuestion(f"What {name} is the object that is not where it was?", getattr(clip.mover, name), "motion")


def ask_relation(clip: Clip, rng: Rng) -> ClipQuestion | None:
    """Ask how the moved object stands to another one in the last frame, on the axis of the motion."""
    other = pick(rng, [obj for obj in clip.scene.objects if obj != clip.mover])
    things = [refer(clip.scene, obj, rng) for obj in (clip.mover, other)]
    across = clip.direction in DIRECTIONS[:2]
    gap = clip.moved.x - other.x if across else clip.moved.y - other.y
    if None in things or abs(gap) < _APART:
        return None
    first, second = (noun(thing) for thing in things if thing is not None)
    way = "to the left or to the right of" if across else "above or below"
    answer = (DIRECTIONS[:2] if across else DIRECTIONS[2:])[gap > 0]
    return ClipQuestion(f"Is the {first} {way} the {second} in the last picture?", answer, "spatial")


def ask_order(clip: Clip, rng: Rng) -> ClipQuestion | None:
    """Ask which of the two appearing objects comes first or last."""
    if rng.random() < 0.5:
        name, place = pick(rng, ("color", "shape")), pick(rng, ("first", "last"))
        obj = clip.early if place == "first" else clip.late
        return ClipQuestion(f"What {name} is the object that appears {place}?", getattr(obj, name), "temporal")
    pair = [clip.early, clip.late] if rng.random() < 0.5 else [clip.late, clip.early]
    things = [refer(clip.scene, obj, rng) for obj in pair]
    if None in things:
        return None
    named = dict(zip(pair, (noun(thing) for thing in things if thing is not None), strict=True))
    first, second = named.values()
    return ClipQuestion(f"Which appears first, the {first} or the {second}?", named[clip.early], "temporal")


def ask_presence(clip: Clip, rng: Rng) -> ClipQuestion | None:
    """Ask whether an object was there from the beginning; yes as often as no."""
    truth = bool(rng.random() < 0.5)
    obj = pick(rng, clip.at_first if truth else [clip.early, clip.late])
    thing = refer(clip.scene, obj, rng)
    if thing is None:
        return None
    return ClipQuestion(f"Is the {noun(thing)} shown in the first picture?", "yes" if truth else "no", "yes/no")


def ask_count(clip: Clip, rng: Rng) -> ClipQuestion:
    """Ask how many objects, or objects of a colour or shape, the first or the last frame has."""
    place = pick(rng, ("first", "last"))
    objects = clip.at_first if place == "first" else clip.at_last
    shown = clip.scene.objects
    things = [Thing(), Thing(), *(Thing(color=c) for c in COLORS), *(Thing(shape=s) for s in SHAPES)]
    thing = pick(rng, [t for t in things if any(map(t.matches, shown))])
    number = sum(map(thing.matches, objects))
    return ClipQuestion(f"How many {plural(thing)} are there in the {place} picture?", str(number), "number")


def ask_place(clip: Clip, rng: Rng) -> ClipQuestion | None:
    """Ask for the half of the last frame in which the moved object is."""
    thing, across = refer(clip.scene, clip.mover, rng), clip.direction in DIRECTIONS[:2]
    place = clip.moved.x if across else clip.moved.y
    if thing is None or abs(place - IMAGE_SIZE // 2) < CLEAR_OF_EDGE:
        return None
    halves = ("left", "right") if across else ("top", "bottom")
    text = f"Is the {noun(thing)} in the {halves[0]} half or in the {halves[1]} half of the last picture?"
    return ClipQuestion(text, halves[place > IMAGE_SIZE // 2], "location")


def ask_still(family: str, kind: str) -> Asker:
    """Return what asks for something that every frame shows, as about an image."""

    def asker(clip: Clip, rng: Rng) -> ClipQuestion | None:
        """Ask about what a clip shows throughout."""
        found = ask(clip.scene, family, rng, "open")
        return None if found is None else ClipQuestion(found.text, found.answer, kind)

    return asker


ASKERS: dict[str, Asker] = {
    "direction": ask_direction,
    "mover": ask_mover,
    "relation": ask_relation,
    "order": ask_order,
    "presence": ask_presence,
    "count": ask_count,
    "place": ask_place,
    "color": ask_still("color", "color"),
    "shape": ask_still("shape", "object"),
    "texture": ask_still("texture", "other"),
    "size": ask_still("size", "other"),
    "number": ask_still("number", "other"),
}
"""What can be asked, by family."""
ALL = dict.fromkeys(ASKERS, 1.0) | {"direction": 2.0, "order": 2.0, "mover": 2.0}
"""Weights of the training questions and of ActivityNet-QA's."""
MSVD = {"mover": 2.0, "order": 1.0, "count": 2.0, "color": 1.0, "shape": 1.0, "texture": 0.5, "size": 0.5}
"""Weights of MSVD-QA's questions, which begin with what, who, how, when or where."""


def ask_clip(clip: Clip, weights: Mapping[str, float], count: int, rng: Rng) -> list[ClipQuestion]:
    """Ask up to `count` different questions about a clip, families drawn by weight."""
    names, total = list(weights), sum(weights.values())
    shares = [weight / total for weight in weights.values()]
    found: dict[str, ClipQuestion] = {}
    for _ in range(_TRIES * count):
        question = ASKERS[names[int(rng.choice(len(names), p=shares))]](clip, rng)
        if question is not None:
            found.setdefault(question.text, question)
        if len(found) == count:
            break
    return list(found.values())

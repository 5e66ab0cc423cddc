"""Question families that compare: two objects, two counts, or the sign's number with another."""

from __future__ import annotations

from itertools import permutations

from .families import VALUES, Builder, Draft, Rng, pick, refer, tally, verdict, visible
from .phrases import Thing
from .scenes import Scene

CLEAR_OFFSET = 20  # px between two centres, for a relation to be asked


def _pair(scene: Scene, rng: Rng, axis: str) -> tuple[Thing, Thing, int] | None:
    """Return two described objects that are clearly apart along `axis` ("x" or "y") and their offset in px."""
    pairs = list(permutations(scene.objects, 2))
    for i in rng.permutation(len(pairs))[:6]:
        one, two = pairs[i]
        offset = getattr(one, axis) - getattr(two, axis)
        if abs(offset) < CLEAR_OFFSET:
            continue
        thing, other = refer(scene, one, rng), refer(scene, two, rng)
        if thing and other:
            return thing, other, offset
    return None


def build_relation(side: str) -> Builder:
    """Return the builder of "is X to the left of Y" (or right, above, below), yes as often as no."""

    def build(scene: Scene, rng: Rng) -> Draft | None:
        """Ask whether one object lies on that side of another."""
        found = _pair(scene, rng, "x" if side in {"left", "right"} else "y")
        if found is None:
            return None
        thing, other, offset = found
        if rng.random() < 0.5:
            thing, other, offset = other, thing, -offset
        truth = (offset < 0) == (side in {"left", "above"})
        return Draft({"thing": thing, "other": other}, verdict(truth), "yes/no")

    return build


def build_direction(kind: str) -> Builder:
    """Return the builder of "left or right" ("across") or "above or below" ("along")."""

    def build(scene: Scene, rng: Rng) -> Draft | None:
        """Ask on which side of another object one lies."""
        found = _pair(scene, rng, "x" if kind == "across" else "y")
        if found is None:
            return None
        thing, other, offset = found
        return Draft({"thing": thing, "other": other}, VALUES[kind][int(offset > 0)], kind)

    return build


def build_amounts(style: str) -> Builder:
    """Return the builder that compares two counts (more X than Y, or as many), where yes and no were both possible."""

    def build(scene: Scene, rng: Rng) -> Draft | None:
        """Ask whether there are more of one thing than of another, or as many."""
        counts = tally(scene)
        kind = pick(rng, ("color", "shape"))
        things = [thing for thing in counts if getattr(thing, kind)]
        ask_yes: list[tuple[Thing, Thing]] = []
        ask_no: list[tuple[Thing, Thing]] = []
        for one, two in permutations(things, 2):
            fact = counts[one] > counts[two] if style == "more" else counts[one] == counts[two]
            if counts[one] or counts[two]:
                (ask_yes if fact else ask_no).append((one, two))
        if not ask_yes or not ask_no:
            return None
        truth = bool(rng.random() < 0.5)
        pairs = ask_yes if truth else ask_no
        thing, other = pick(rng, pairs)
        return Draft({"thing": thing, "other": other}, verdict(truth), "yes/no")

    return build


def build_alike(name: str) -> Builder:
    """Return the builder that compares an attribute of two objects, where yes and no were both possible."""

    def build(scene: Scene, rng: Rng) -> Draft | None:
        """Ask whether two objects have an attribute in common."""
        alike = [getattr(one, name) == getattr(two, name) for one, two in permutations(scene.objects, 2)]
        if all(alike) or not any(alike) or not visible(scene, name):
            return None
        truth = bool(rng.random() < 0.5)
        pairs = [pair for pair, same in zip(permutations(scene.objects, 2), alike, strict=True) if same == truth]
        one, two = pick(rng, pairs)
        thing, other = refer(scene, one, rng, hidden=name), refer(scene, two, rng, hidden=name)
        if thing is None or other is None:
            return None
        return Draft({"thing": thing, "other": other}, verdict(truth), "yes/no")

    return build


def build_arithmetic(style: str) -> Builder:
    """Return the builder of yes/no arithmetic on the sign's number."""

    def build(scene: Scene, rng: Rng) -> Draft | None:
        """Ask for arithmetic on the number of the sign."""
        number = scene.number
        if number is None or not scene.legible:
            return None
        if style == "even":
            return Draft({}, verdict(int(number) % 2 == 0), "yes/no")
        truth = bool(rng.random() < 0.5)
        if style == "sum":
            total = sum(map(int, number))
            asked = total if truth else pick(rng, [n for n in range(max(0, total - 3), total + 4) if n != total])
        else:
            low, high = (0, int(number)) if truth else (int(number), 10 ** len(number))
            if low == high:
                return None
            asked = int(rng.integers(low, high))
        return Draft({"value": str(asked)}, verdict(truth), "yes/no")

    return build

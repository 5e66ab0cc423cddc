"""Questions that need no image: numbers, shapes, colours, short texts, translation and one-line programs.

They fill the text-only part of the instruction mix, ScienceQA's text-only items and MME's cognition subtasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .chinese import word
from .families import Rng, pick
from .language import Question, answer_type
from .phrases import CONTEXT, Thing, noun, with_article
from .scenes import COLORS, SHAPES, SIZES, TEXTURES

CORNERS = {"circle": 0, "square": 4, "triangle": 3, "ring": 0, "diamond": 4}
TOPICS = ("larger", "smaller", "next", "sum", "even", "corners", "category", "reading", "translation", "code")


class _Fact(NamedTuple):
    """Question, answer, the answers that would be wrong, and the text to read first (or "")."""

    text: str
    answer: str
    wrong: tuple[str, ...]
    hint: str = ""


def _extreme(word: str) -> Callable[[Rng], _Fact]:
    def build(rng: Rng) -> _Fact:
        """Ask for the larger or smaller of two numbers."""
        one, two = (str(n) for n in rng.permutation(10)[:2])
        low, high = sorted((one, two), key=int)
        answer, wrong = (high, low) if word == "larger" else (low, high)
        return _Fact(f"Which number is {word}, {one} or {two}?", answer, (wrong,))

    return build


def _next(rng: Rng) -> _Fact:
    start, step = int(rng.integers(0, 7)), pick(rng, (1, 1, 2))
    terms = [start + step * i for i in range(4)]
    answer = terms.pop()
    wrong = tuple(str(n) for n in (answer - step, answer + 1, answer + 2))
    return _Fact(f"Which number comes next: {', '.join(map(str, terms))}?", str(answer), wrong)


def _sum(rng: Rng) -> _Fact:
    one, two = int(rng.integers(0, 10)), int(rng.integers(0, 10))
    answer = one + two
    wrong = tuple(str(n) for n in (answer + 1, answer + 2, answer + 10))
    return _Fact(f"What is {one} plus {two}?", str(answer), wrong)


def _even(rng: Rng) -> _Fact:
    number, word = int(rng.integers(1, 20)), pick(rng, ("even", "odd"))
    truth = (number % 2 == 0) == (word == "even")
    return _verdict(f"Is {number} an {word} number?", truth)


def _corners(rng: Rng) -> _Fact:
    shape = pick(rng, tuple(CORNERS))
    if rng.random() < 0.5:
        wrong = tuple(str(n) for n in (0, 3, 4, 5) if n != CORNERS[shape])
        return _Fact(f"How many corners does {with_article(shape)} have?", str(CORNERS[shape]), wrong)
    without = bool(rng.random() < 0.5)
    fits = pick(rng, [s for s in CORNERS if (CORNERS[s] == 0) == without])
    fails = pick(rng, [s for s in CORNERS if (CORNERS[s] == 0) != without])
    one, two = (fits, fails) if rng.random() < 0.5 else (fails, fits)
    return _Fact(f"Which shape has {'no ' if without else ''}corners, {one} or {two}?", fits, (fails,))


def _category(rng: Rng) -> _Fact:
    groups = {"a color": COLORS, "a shape": SHAPES, "a size": SIZES, "a number": tuple("0123456789")}
    truth = bool(rng.random() < 0.5)
    name = pick(rng, tuple(groups))
    word = pick(rng, groups[name if truth else pick(rng, [g for g in groups if g != name])])
    return _verdict(f"Is {word} {name}?", truth)


def _reading(rng: Rng) -> _Fact:
    """Ask about a sentence that is given: who reads it needs no image."""
    colors = [COLORS[i] for i in rng.permutation(len(COLORS))[:2]]
    shapes = [SHAPES[i] for i in rng.permutation(len(SHAPES))[:2]]
    textures = [pick(rng, TEXTURES) for _ in range(2)]
    things = [Thing(color=c, shape=s, texture=t) for c, s, t in zip(colors, shapes, textures, strict=True)]
    hint = f"There is {with_article(noun(things[0]))} and {with_article(noun(things[1]))}."
    if rng.random() < 0.5:
        return _Fact(f"What color is the {shapes[0]}?", colors[0], (colors[1],), hint)
    return _Fact(f"What shape is the {colors[1]} object?", shapes[1], (shapes[0],), hint)


def _translation(rng: Rng) -> _Fact:
    chinese, claimed = pick(rng, COLORS), pick(rng, COLORS)
    claimed = chinese if rng.random() < 0.45 else claimed
    return _verdict(f"Is it right to translate {word(chinese)} as {claimed}?", chinese == claimed)


def _code(rng: Rng) -> _Fact:
    one, two = int(rng.integers(0, 10)), int(rng.integers(0, 10))
    shown = one + two if rng.random() < 0.5 else one + two + pick(rng, (1, 2, 10))
    return _verdict(f"Is the output of print({one} + {two}) equal to {shown}?", shown == one + two)


def _verdict(text: str, truth: bool) -> _Fact:
    return _Fact(text, "yes" if truth else "no", ("no" if truth else "yes",))


_BUILDERS: dict[str, Callable[[Rng], _Fact]] = {
    "larger": _extreme("larger"),
    "smaller": _extreme("smaller"),
    "next": _next,
    "sum": _sum,
    "even": _even,
    "corners": _corners,
    "category": _category,
    "reading": _reading,
    "translation": _translation,
    "code": _code,
}


def ask_text(rng: Rng, topic: str | None = None) -> Question:
    """Ask something that needs no image; `topic` is one of `TOPICS` (random when None).

    `meta` has `topic`, `question` (without the text to read), `hint` (that text, or ""), and `wrong` answers.

    Raises:
        ValueError: no such topic.
    """
    if topic is None:
        topic = pick(rng, TOPICS)
    if topic not in _BUILDERS:
        raise ValueError(f"topic: found {topic!r}, expected one of {', '.join(TOPICS)}")
    fact = _BUILDERS[topic](rng)
    text = f"{CONTEXT} {fact.hint}\n{fact.text}" if fact.hint else fact.text
    meta = {"topic": topic, "question": fact.text, "hint": fact.hint, "wrong": fact.wrong, "answerable": True}
    return Question("text", text, fact.answer, (), answer_type(fact.answer), meta)

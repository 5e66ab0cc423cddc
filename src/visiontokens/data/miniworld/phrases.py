"""The English of the mini world: noun phrases, question templates and the fixed phrases of LLaVA-1.5's prompts.

A question is a *form* ("color/open") and its arguments; the text is rendered from both. The Chinese texts of
`chinese.py` come from the same forms, so both languages ask the same thing.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from .scenes import Obj

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
)
SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER_ANSWER = "Answer with the option's letter from the given choices directly."
LETTER_ANSWER_CN = "请直接回答选项字母。"
MAY_REFUSE = "When the provided information is insufficient, respond with 'Unanswerable'."
YES_OR_NO = "Please answer yes or no."
OCR_TOKENS = "Reference OCR token:"
CONTEXT = "Context:"
UNANSWERABLE = "unanswerable"
CAPTION_PROMPTS = (
    "Describe the image concisely.",
    "Provide a brief description of the given image.",
    "What is in the photo?",
    "Write a terse but informative summary of the picture.",
)


class Thing(NamedTuple):
    """A description of an object: the attributes that are named, "" for those that are not."""

    color: str = ""
    shape: str = ""
    size: str = ""
    texture: str = ""

    def matches(self, obj: Obj) -> bool:
        """Whether `obj` fits the description."""
        pairs = zip(self, (obj.color, obj.shape, obj.size, obj.texture), strict=True)
        return all(not named or named == found for named, found in pairs)


Args: TypeAlias = dict[str, Thing | str]


def noun(thing: Thing) -> str:
    """Return "small striped red circle", or "red object" when no shape is named."""
    return " ".join(word for word in (thing.size, thing.texture, thing.color, thing.shape or "object") if word)


def plural(thing: Thing) -> str:
    """Return the plural of `noun`."""
    phrase = noun(thing)
    return phrase + ("es" if phrase.endswith("ss") else "s")


def with_article(phrase: str) -> str:
    """Return the phrase after "a" or "an"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def counted(number: str, thing: Thing) -> str:
    """Return "1 red circle", "3 red circles"."""
    return f"{number} {noun(thing) if number == '1' else plural(thing)}"


ENGLISH = {
    "exist/thing": "Is there {a_thing} in the image?",
    "exist/sign": "Is there a sign in the image?",
    "color/open": "What color is the {thing}?",
    "color/verify": "Is the {thing} {value}?",
    "shape/open": "What shape is the {thing}?",
    "shape/verify": "Is the {thing} {a_value}?",
    "texture/open": "What texture does the {thing} have?",
    "texture/choose": "Is the {thing} plain or striped?",
    "texture/verify": "Is the {thing} {value}?",
    "size/open": "What size is the {thing}?",
    "size/choose": "Is the {thing} small or large?",
    "size/verify": "Is the {thing} {value}?",
    "row/open": "Which row is the {thing} in?",
    "row/verify": "Is the {thing} in row {value}?",
    "row/choose": "Is the {thing} in the top half or in the bottom half of the image?",
    "column/open": "Which column is the {thing} in?",
    "column/verify": "Is the {thing} in column {value}?",
    "column/choose": "Is the {thing} in the left half or in the right half of the image?",
    "relation/left": "Is the {thing} to the left of the {other}?",
    "relation/right": "Is the {thing} to the right of the {other}?",
    "relation/above": "Is the {thing} above the {other}?",
    "relation/below": "Is the {thing} below the {other}?",
    "relation/across": "Is the {thing} to the left or to the right of the {other}?",
    "relation/along": "Is the {thing} above or below the {other}?",
    "count/open": "How many {things} are there in the image?",
    "count/verify": "Is there a total of {counted} in the image?",
    "number/open": "What number is written on the sign?",
    "number/is": "What is the number on the sign?",
    "number/first": "What is the first digit of the number on the sign?",
    "number/last": "What is the last digit of the number on the sign?",
    "number/length": "How many digits does the number on the sign have?",
    "number/verify": "Is the number on the sign {value}?",
    "compare/more": "Are there more {things} than {others} in the image?",
    "compare/same": "Is there the same number of {things} and {others} in the image?",
    "compare/color": "Are the {thing} and the {other} the same color?",
    "compare/shape": "Are the {thing} and the {other} the same shape?",
    "compare/size": "Are the {thing} and the {other} the same size?",
    "arithmetic/even": "Is the number on the sign even?",
    "arithmetic/sum": "Is the sum of the digits of the number on the sign {value}?",
    "arithmetic/larger": "Is the number on the sign larger than {value}?",
}


def english(form: str, args: Args) -> str:
    """Return the English question of a form.

    Raises:
        ValueError: no such form.
    """
    if form not in ENGLISH:
        raise ValueError(f"form: found {form!r}, expected one of {', '.join(ENGLISH)}")
    slots: dict[str, str] = {}
    for key, arg in args.items():
        if isinstance(arg, Thing):
            slots |= {key: noun(arg), f"a_{key}": with_article(noun(arg)), f"{key}s": plural(arg)}
        else:
            slots |= {key: arg, f"a_{key}": with_article(arg)}
    thing, value = args.get("thing"), args.get("value")
    if isinstance(thing, Thing) and isinstance(value, str):
        slots["counted"] = counted(value, thing)
    return ENGLISH[form].format(**slots)

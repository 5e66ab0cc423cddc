"""MMMU: letters and short answers found in free text as by the official scripts, and micro accuracy.

Where the scripts find no letter they draw one with the module's generator (seed 42), so that a score depends on the
order of the questions. `unparsed="random"` repeats that; by default such an answer is wrong.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from visiontokens.data.benchmarks import Example
from visiontokens.data.benchmarks.mmmu import CHOICE, DOMAIN_OF, SUBJECTS
from visiontokens.evaluate.predictions import Answer, PredictionError, match_answers, read_predictions
from visiontokens.evaluate.score.base import MEAN_CORRECT, Record, Score, means_by, record_of, text_for
from visiontokens.provenance import read_json

SEED = 42
"""Seed of the official scripts' random letters."""
UNPARSED = ("wrong", "random")
_TRIMMED = (",", ".", "!", "?", ";", ":", "'")
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),  # 1,234,567
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),  # 6.0e23
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
_WORDS_FOR_TEXT = 5  # an option's text is looked for in answers longer than this many words


def score_mmmu(examples: Sequence[Example], predictions: Mapping[str, str], *, unparsed: str = "wrong") -> Score:
    """Score MMMU: accuracy over all questions; `parts` has subjects, the six domains, and both kinds of questions.

    Args:
        examples: the questions, subjects in the official order.
        predictions: question id -> answer.
        unparsed: what becomes of a multiple-choice answer without a letter: "wrong", or "random" as in the official
            scripts.

    Raises:
        ValueError: `unparsed` is neither.
    """
    if unparsed not in UNPARSED:
        raise ValueError(f"mmmu: unparsed: found {unparsed!r}, expected one of {', '.join(UNPARSED)}")
    rng = random.Random(SEED)
    records = []
    for example in examples:
        text, kind, subject = text_for(example, predictions), example.meta["question_type"], example.meta["subject"]
        letter = parse_choice(text, example.meta["options"]) if kind == CHOICE else ""
        missed = kind == CHOICE and not letter
        if missed and unparsed == "random":
            letter = rng.choice(ascii_uppercase[: len(example.meta["options"])] or ascii_uppercase[:4])
        right = letter in example.meta["answers"] if kind == CHOICE else open_match(text, example.meta["answers"])
        extra = {"answer": " | ".join(example.meta["answers"]), "parsed": letter, "unparsed": float(missed)}
        several = "several" if example.meta["n_images"] > 1 else "one"
        types = {"subject": subject, "domain": DOMAIN_OF[subject], "kind": kind, "images": several}
        records.append(record_of(example, text, right, **extra, **types))
    policy = {"unparsed": unparsed}
    return Score("mmmu", "accuracy", MEAN_CORRECT(records), _parts(records), records, MEAN_CORRECT, policy)


def _parts(records: Sequence[Record]) -> dict[str, float]:
    parts = {name: value for key in ("domain", "subject", "kind", "images") for name, value in
             means_by(records, key, key).items()}  # fmt: skip
    return parts | {"unparsed": float(sum(record["unparsed"] for record in records))}


def parse_choice(text: str, options: Sequence[str]) -> str:
    """Return the letter that an answer gives, or "" where the official parser would draw one.

    Looked for in this order: "(B)"; "B" between spaces; in answers of more than five words the text of an option, case
    ignored. Of several finds the one that occurs last counts. Without options every letter is one.
    """
    for mark in _TRIMMED:
        text = text.strip(mark)
    padded = f" {text} "
    letters = ascii_uppercase[: len(options)] or ascii_uppercase
    for shape in ("({})", " {} "):
        places = {letter: padded.rfind(shape.format(letter)) for letter in letters}
        if max(places.values()) >= 0:
            return max(places, key=places.__getitem__)
    if len(padded.split()) <= _WORDS_FOR_TEXT:
        return ""
    lowered = padded.lower()
    places = {letter: lowered.rfind(option.lower()) for letter, option in zip(letters, options, strict=False)}
    last = max(places, key=places.__getitem__, default="")
    return last if last and places[last] >= 0 else ""


def open_match(text: str, answers: Sequence[str]) -> bool:
    """Return whether an answer to an open question is right: it contains a gold text, or has its number."""
    gold = [value for answer in answers for value in normalise(answer)]
    texts = [value for value in gold if isinstance(value, str)]
    for found in parse_open(text):
        if any(value in found for value in texts) if isinstance(found, str) else found in gold:
            return True
    return False


def parse_open(text: str) -> set[str | float]:
    """Return what an answer to an open question may mean: its key phrases and the numbers in them, normalised."""
    phrases = key_phrases(text)
    numbers = [number for phrase in phrases for pattern in _NUMBERS for number in pattern.findall(phrase)]
    return {value for found in (*phrases, *numbers) for value in normalise(found)}


def key_phrases(text: str) -> list[str]:
    """Return of each line what stands behind its last indicator word ("is", "so", ...), or else the whole text.

    Of several indicators the one that leaves least counts; in the last line the sign "=" is one, too. The official
    parser means to split sentences as well, but looks for capitals in a text without any.
    """
    whole = text.strip().strip(".").lower()
    lines = whole.split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        indicators = (*_INDICATORS, "=") if number == len(lines) else _INDICATORS
        tails = [line.split(indicator)[-1].strip() for indicator in indicators if indicator in line]
        shortest = ""
        for tail in tails:
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in _TRIMMED:
            found.append(shortest)
    return found or [whole]


def normalise(text: str) -> list[str | float]:
    """Return a number rounded to two places, or the text in lower case; one letter gets a space before or behind it."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def read_mmmu(path: Path, examples: Sequence[Example]) -> dict[str, str]:
    """Read answers in any form they are released in, into question id -> answer in the order of `examples`.

    The forms: JSON lines as by LLaVA; one JSON object id -> answer; a JSON list of objects with `id` and `response`; a
    folder with such a list as `<subject>/output.json`.

    Raises:
        FileNotFoundError: there is no such file, or no list in the folder.
        PredictionError: an answer is no text, or an id is foreign, missing, or given twice.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        return read_predictions(path, examples)
    files = [file for subject in SUBJECTS if (file := path / subject / "output.json").is_file()]
    if path.is_dir() and not files:
        raise FileNotFoundError(f"{path}: no <subject>/output.json is there")
    pairs = [pair for file in (files or [path]) for pair in _pairs(file)]
    for key, text in pairs:
        if not isinstance(text, str):
            raise PredictionError(f"{path}: question id {key!r}: found {text!r}, expected a text")
    return match_answers(path, (Answer(str(path), key, text) for key, text in pairs), examples)


def _pairs(path: Path) -> list[tuple[str, Any]]:
    """Return (question id, answer) of one JSON file."""
    content = read_json(path)
    if isinstance(content, dict):
        return list(content.items())
    if not isinstance(content, list) or not all(isinstance(row, dict) and "id" in row for row in content):
        raise PredictionError(f"{path}: expected an object id -> answer, or a list of objects with id and response")
    return [(str(row["id"]), row.get("response")) for row in content]

"""LLaVA-format records, strictly checked, and what their questions ask for.

Anything a record gets wrong is an error that names file, record, what was expected and what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visiontokens.data.conversation import IMAGE_TOKEN, VIDEO_TOKEN, Turn, to_turns
from visiontokens.provenance import read_json

FORMAT_PROMPTS = (
    "When the provided information is insufficient, respond with 'Unanswerable'.",
    "Answer the question using a single word or phrase.",
    "Answer with the option's letter from the given choices directly.",
    "请直接回答选项字母。",
)
"""The sentences by which LLaVA-1.5 asks for a short answer; they end the first question of a conversation."""
CAPTION_REQUESTS = frozenset(
    {
        "Create a compact narrative representing the image presented.",
        "Describe the image concisely.",
        "Give a short and clear explanation of the subsequent image.",
        "Offer a succinct explanation of the picture presented.",
        "Present a compact description of the photo's key features.",
        "Provide a brief description of the given image.",
        "Relay a brief, clear account of the picture shown.",
        "Render a clear and concise summary of the photo.",
        "Share a concise interpretation of the image provided.",
        "Summarize the visual content of the image.",
        "What is in the photo?",
        "Write a terse but informative summary of the picture.",
    }
)
"""How LLaVA's alignment data ask for a caption; such a turn is never asked to be a single word."""
IMAGE_WORDS = 128
"""Words an image counts for when samples are grouped by length (LLaVA-1.5)."""
VIDEO_WORDS = 8 * IMAGE_WORDS
"""Words a video counts for: eight images (our choice; Video-LLaVA counts the text only), so that batches hold alike."""


class RecordError(ValueError):
    """An annotation file or a record in it cannot be used."""


@dataclass(frozen=True)
class Record:
    """One conversation; `image` is relative to the set's image folder, None for text-only records.

    `video` is relative to the folder of videos; a record has an image, a video, or neither.
    """

    id: str
    image: str | None
    turns: tuple[Turn, ...]
    video: str | None = None

    @property
    def length(self) -> int:
        """Length in words for batch grouping, as in LLaVA-1.5: positive with an image or video, negative without."""
        words = sum(len(f"{turn.question} {turn.answer}".split()) for turn in self.turns)
        if self.video is not None:
            return words + VIDEO_WORDS
        return words + IMAGE_WORDS if self.image is not None else -words


def load_records(path: str | Path) -> list[Record]:
    """Read a LLaVA-format annotation file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON (with line and column).
        RecordError: not a list of records, or a record is malformed (with its id and number).
    """
    raw = read_json(path)
    if not isinstance(raw, list) or not raw:
        raise RecordError(f"{path}: expected a non-empty list of records, found {_kind(raw)}")
    return [_record(item, path, number) for number, item in enumerate(raw)]


def _kind(value: object) -> str:
    return "an empty list" if value == [] else type(value).__name__


def _record(item: Any, path: str | Path, number: int) -> Record:
    """Check one record."""
    if not isinstance(item, dict):
        raise RecordError(f"{path}: record {number}: expected an object, found {_kind(item)}")
    where = f"{path}: record {number} (id {item.get('id')!r})"
    messages = item.get("conversations")
    if not isinstance(messages, list) or not messages:
        found = "none" if "conversations" not in item else _kind(messages)
        raise RecordError(f"{where}: expected a list 'conversations', found {found}")
    for place, row in enumerate(messages):
        texts = isinstance(row, dict) and all(isinstance(row.get(key), str) for key in ("from", "value"))
        if not texts:
            raise RecordError(f"{where}: message {place}: expected strings 'from' and 'value', found {row!r}")
    image, video = (_path(item, key, where) for key in ("image", "video"))
    if image is not None and video is not None:
        raise RecordError(f"{where}: expected 'image' or 'video', found both")
    for kind, file, token in (("image", image, IMAGE_TOKEN), ("video", video, VIDEO_TOKEN)):
        placeholders = sum(row["value"].count(token) for row in messages)
        if placeholders != (file is not None):
            expected = f"one {token} for {kind} {file!r}" if file is not None else f"no {token} (no {kind!r})"
            raise RecordError(f"{where}: expected {expected}, found {placeholders}")
    if video is not None:  # a video is one run of frames, and has the place of one image
        messages = [{**row, "value": row["value"].replace(VIDEO_TOKEN, IMAGE_TOKEN)} for row in messages]
    try:
        turns = tuple(to_turns(messages))
    except ValueError as err:
        raise RecordError(f"{where}: {err}") from err
    return Record(str(item.get("id", number)), image, turns, video)


def _path(item: dict[str, Any], key: str, where: str) -> str | None:
    """Return the path of a record's picture, None if it has none."""
    value = item.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise RecordError(f"{where}: expected {key!r} to be a path, found {value!r}")
    return value


def format_prompt(question: str) -> str:
    """Return the format sentences that end a question, with the newline before them ('' if there are none)."""
    lines = question.split("\n")
    first = len(lines)
    while first > 1 and lines[first - 1] in FORMAT_PROMPTS:
        first -= 1
    return "".join("\n" + line for line in lines[first:])


def is_caption(turn: Turn) -> bool:
    """Tell whether a turn asks for a caption of the image."""
    return turn.question.removeprefix(f"{IMAGE_TOKEN}\n") in CAPTION_REQUESTS


def independent(turns: Sequence[Turn]) -> list[Turn]:
    """Make every turn stand alone: questions without a format prompt get the conversation's first one."""
    suffix = next((found for turn in turns if (found := format_prompt(turn.question))), "")
    return [
        turn if format_prompt(turn.question) or is_caption(turn) else Turn(turn.question + suffix, turn.answer)
        for turn in turns
    ]

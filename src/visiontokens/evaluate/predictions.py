"""Files of answers: JSON lines in LLaVA's answer format, checked against the questions, never half-written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from visiontokens.data.benchmarks import Example
from visiontokens.data.benchmarks.prompts import bare_question
from visiontokens.provenance import atomic_write, read_text, sha256_json

VISION_TOKENS = "vision_tokens"
"""In an answer's metadata: vision tokens that entered the language model, where that depends on the image."""


class PredictionError(ValueError):
    """A prediction file does not hold one well-formed answer to each question."""


def answer_record(
    example: Example, text: str, model_id: str, metadata: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return one answer in LLaVA's format.

    `answer_id` is a digest of model, question and answer where LLaVA draws a random one, so that files repeat.
    """
    return {
        "question_id": example.question_id,
        "prompt": example.prompt,
        "text": text,
        "answer_id": sha256_json([model_id, example.question_id, text])[:22],
        "model_id": model_id,
        "metadata": dict(metadata or {}),
    }


def write_predictions(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write answers as JSON lines, atomically."""
    with atomic_write(path) as handle:
        for record in records:
            handle.write(_line(record))


class Answer(NamedTuple):
    """One answer as a file gives it.

    Attributes:
        where: file and line or record, for messages.
        key: the file's id of the question.
        text: the answer.
        prompt: the question or prompt, where the file repeats it; it tells apart questions that share an id.
    """

    where: str
    key: str
    text: str
    prompt: str = ""


def read_predictions(path: Path, examples: Sequence[Example] | None = None) -> dict[str, str]:
    """Read a prediction file into question id -> answer, in the order of `examples` if they are given.

    Ids may be integers, as in LLaVA's files. Where LLaVA's id is not unique (MME, TextVQA) the prompt's question line
    tells the questions apart.

    Raises:
        FileNotFoundError: there is no such file.
        PredictionError: a line is malformed; with `examples`, also an id that is foreign, missing or given twice.
            The message names file, line, id and what was expected.
    """
    found = (
        Answer(f"{path}:{number}", str(record["question_id"]), record["text"], str(record.get("prompt", "")))
        for number, record in _records(path)
    )
    return match_answers(path, found, examples)


def match_answers(path: Path, found: Iterable[Answer], examples: Sequence[Example] | None) -> dict[str, str]:
    """Return question id -> answer in the order of `examples`, every question answered once (errors: see above).

    Without `examples` only repeated ids are noticed.
    """
    aliases = _official_keys(examples or ())
    known = {example.question_id for example in examples or ()}
    answers: dict[str, str] = {}
    first: dict[str, str] = {}
    for where, given, text, prompt in found:
        key = given if given in known else _ours(aliases, given, prompt)
        if key in answers:
            raise PredictionError(
                f"{where}: question id {key!r} is answered again (first on {_place(first[key], path)}), expected once"
            )
        if examples is not None and key not in known:
            raise PredictionError(
                f"{where}: question id {key!r} is foreign, expected one of the {len(known)} questions "
                f"such as {examples[0].question_id!r}"
            )
        answers[key], first[key] = text, where
    if examples is None:
        return answers
    missing = [example.question_id for example in examples if example.question_id not in answers]
    if missing:
        raise PredictionError(
            f"{path}: {len(missing)} of {len(known)} questions have no answer, "
            f"the first is question id {missing[0]!r}; expected {len(known)} answers, found {len(answers)}"
        )
    return {example.question_id: answers[example.question_id] for example in examples}


def _ours(aliases: Mapping[tuple[str, str], list[str]], given: str, prompt: str) -> str:
    """Return our id of a question; of several that share id and words the next one."""
    ids = aliases.get((given, bare_question(prompt).lower()), [given])
    return ids.pop(0) if len(ids) > 1 else ids[0]


def _place(where: str, path: Path) -> str:
    """Return where in the file something stands, without the file's name."""
    rest = where.removeprefix(f"{path}:").strip()
    return f"line {rest}" if rest.isdigit() else rest


def mean_vision_tokens(path: Path) -> float | None:
    """Return the mean number of vision tokens per answer of a prediction file; `None` where no answer says it.

    Raises:
        FileNotFoundError, PredictionError: see `read_predictions`.
    """
    counts = [record["metadata"][VISION_TOKENS] for _, record in _records(path) if VISION_TOKENS in _metadata(record)]
    return sum(counts) / len(counts) if counts else None


def _metadata(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a record's metadata; answers of other programs may have none."""
    found = record.get("metadata")
    return found if isinstance(found, dict) else {}


def _official_keys(examples: Sequence[Example]) -> dict[tuple[str, str], list[str]]:
    """Return (id in released files, question in lower case) -> our ids, where released files have another id."""
    found: dict[tuple[str, str], list[str]] = {}
    for example in examples:
        if "official_id" in example.meta:
            key = str(example.meta["official_id"]), bare_question(example.prompt).lower()
            found.setdefault(key, []).append(example.question_id)
    return found


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, checked record) of a prediction file."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, _parse(line, f"{path}:{number}")


def _parse(line: str, where: str) -> dict[str, Any]:
    """Parse one line and check the two fields that scoring needs."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as err:
        raise PredictionError(f"{where}: not valid JSON ({err.msg}), expected one answer object per line") from err
    if not isinstance(record, dict):
        raise PredictionError(f"{where}: found {type(record).__name__}, expected an answer object")
    key = record.get("question_id")
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise PredictionError(f"{where}: found question_id {key!r}, expected a string or an integer")
    if not isinstance(record.get("text"), str):
        raise PredictionError(f"{where}: question id {key!r}: found text {record.get('text')!r}, expected a string")
    return record


def _line(record: Mapping[str, Any]) -> str:
    """Return a record as one JSON line."""
    return json.dumps(record, ensure_ascii=False) + "\n"

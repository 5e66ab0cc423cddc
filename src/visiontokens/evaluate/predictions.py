"""Files of answers: JSON lines in LLaVA's answer format, checked against the questions, never half-written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from visiontokens.data.benchmarks import Example
from visiontokens.data.benchmarks.prompts import bare_question
from visiontokens.provenance import atomic_write, read_text, sha256_json

PARTIAL_SUFFIX = ".partial"
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


def read_predictions(path: Path, examples: Sequence[Example] | None = None) -> dict[str, str]:
    """Read a prediction file into question id -> answer, in the order of `examples` if they are given.

    Ids may be integers, as in LLaVA's files. Where LLaVA's id is not unique (MME, TextVQA) the prompt's question line
    tells the questions apart.

    Raises:
        FileNotFoundError: there is no such file.
        PredictionError: a line is malformed; with `examples`, also an id that is foreign, missing or given twice.
            The message names file, line, id and what was expected.
    """
    by_official = _official_keys(examples or ())
    known = {example.question_id for example in examples or ()}
    answers: dict[str, str] = {}
    first_line: dict[str, int] = {}
    for number, record in _records(path):
        key = str(record["question_id"])
        if key not in known:
            key = by_official.get((key, bare_question(str(record.get("prompt", ""))).lower()), key)
        if key in answers:
            raise PredictionError(
                f"{path}:{number}: question id {key!r} is answered again "
                f"(first on line {first_line[key]}), expected once"
            )
        if examples is not None and key not in known:
            raise PredictionError(
                f"{path}:{number}: question id {key!r} is foreign, expected one of the {len(known)} questions "
                f"such as {examples[0].question_id!r}"
            )
        answers[key], first_line[key] = record["text"], number
    if examples is None:
        return answers
    missing = [example.question_id for example in examples if example.question_id not in answers]
    if missing:
        raise PredictionError(
            f"{path}: {len(missing)} of {len(known)} questions have no answer, "
            f"the first is question id {missing[0]!r}; expected {len(known)} answers, found {len(answers)}"
        )
    return {example.question_id: answers[example.question_id] for example in examples}


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


def _official_keys(examples: Sequence[Example]) -> dict[tuple[str, str], str]:
    """Return (LLaVA's id, question in lower case) -> our id for benchmarks where LLaVA's id is another."""
    return {
        (str(example.meta["official_id"]), bare_question(example.prompt).lower()): example.question_id
        for example in examples
        if "official_id" in example.meta
    }


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


class PredictionWriter:
    """Appends answers to `<path>.partial` as they come and renames it to `path` when all are there.

    Opening again after a crash keeps the answers that were written whole (`done`) and drops a torn last line. The
    caller makes sure that model and settings are the same; `fingerprint` refuses to continue a file of another run.
    """

    def __init__(self, path: Path, fingerprint: str = "") -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + PARTIAL_SUFFIX)
        self.fingerprint = fingerprint
        self.done: dict[str, dict[str, Any]] = {}
        self._handle: IO[bytes] | None = None

    def __enter__(self) -> PredictionWriter:
        """Open the partial file, keeping what is whole in it.

        Raises:
            PredictionError: the partial file belongs to a run with another fingerprint.
        """
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        keep = self._recover()
        self._handle = self.partial.open("r+b" if keep else "wb")
        self._handle.seek(keep)
        self._handle.truncate()
        if not keep:
            self._append({"fingerprint": self.fingerprint})
        return self

    def _recover(self) -> int:
        """Fill `done` from the partial file and return the length of its whole part in bytes."""
        if not self.partial.exists():
            return 0
        length = 0
        for number, raw in enumerate(self.partial.read_bytes().splitlines(keepends=True), 1):
            try:
                record = json.loads(raw)
            except ValueError:
                break
            if not raw.endswith(b"\n"):
                break
            if number == 1:
                self._check_header(record)
            else:
                self.done[str(record["question_id"])] = record
            length += len(raw)
        return length

    def _check_header(self, record: Mapping[str, Any]) -> None:
        """Raise PredictionError unless the first line carries this run's fingerprint."""
        if record.get("fingerprint") != self.fingerprint:
            raise PredictionError(
                f"{self.partial}:1: found fingerprint {record.get('fingerprint')!r}, expected {self.fingerprint!r}: "
                "it belongs to another run; remove it to start over"
            )

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append answers and bring them to disk; an id already done is ignored."""
        for record in records:
            if str(record["question_id"]) not in self.done:
                self.done[str(record["question_id"])] = dict(record)
                self._append(record)
        if self._handle is not None:
            self._handle.flush()
            os.fsync(self._handle.fileno())

    def _append(self, record: Mapping[str, Any]) -> None:
        """Write one line."""
        if self._handle is None:
            raise RuntimeError(f"{self.partial}: the writer is not open")
        self._handle.write(_line(record).encode())

    def finish(self, examples: Sequence[Example]) -> None:
        """Write the whole file in the order of `examples` and remove the partial one.

        Raises:
            PredictionError: a question has no answer yet.
        """
        missing = [example.question_id for example in examples if example.question_id not in self.done]
        if missing:
            raise PredictionError(
                f"{self.partial}: {len(missing)} of {len(examples)} questions have no answer, "
                f"the first is question id {missing[0]!r}"
            )
        write_predictions(self.path, (self.done[example.question_id] for example in examples))
        self.close()
        self.partial.unlink()

    def close(self) -> None:
        """Close the partial file; it stays for a later run."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the partial file."""
        self.close()

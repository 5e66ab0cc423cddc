"""Answer files as others release them: LLaVA's lines, upload files, sheets; told apart by content, checked by id.

Every file becomes a list of records (JSON lines, a JSON list, a sheet's rows) or stays one JSON object; what a record's
fields are called depends on the benchmark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from visiontokens.data.benchmarks import Example
from visiontokens.data.benchmarks.mmbench import read_rows
from visiontokens.data.benchmarks.scienceqa import LETTERS
from visiontokens.evaluate.predictions import Answer, PredictionError, match_answers

Reader = Callable[[Path, Sequence[Example]], dict[str, str]]
"""From a file and the questions to question id -> answer."""

LLAVA = ("question_id", "text")
"""LLaVA's answer lines: the fields of the question's id and of the answer."""
VQA_UPLOAD = ("question_id", "answer")
GQA_UPLOAD = ("questionId", "prediction")
VIZWIZ_UPLOAD = ("image", "answer")
VIDEO_LLAVA = ("id", "pred")
VIDEO_CHATGPT = ("video_name", "pred")
_QUESTION = ("prompt", "question", "Q")
"""Fields in which files repeat the question."""


def answers_in(*shapes: tuple[str, str]) -> Reader:
    """Return a reader of records with LLaVA's fields or those of one of `shapes` (id, answer)."""
    known = (LLAVA, *shapes)

    def read(path: Path, examples: Sequence[Example]) -> dict[str, str]:
        content = read_content(path)
        if isinstance(content, dict):
            raise PredictionError(f"{path}: found one JSON object, expected {_described(known)}")
        return match_answers(path, (_answer(where, record, known) for where, record in content), examples)

    return read


def _answer(where: str, record: Mapping[str, Any], shapes: Sequence[tuple[str, str]]) -> Answer:
    """Return a record's answer by the first shape whose fields it has."""
    for key, text in shapes:
        if key in record and text in record:
            answer = record[text]
            if isinstance(record[key], bool) or not isinstance(record[key], str | int):
                raise PredictionError(f"{where}: found {key} {record[key]!r}, expected a string or an integer")
            if not isinstance(answer, str):
                raise PredictionError(
                    f"{where}: question id {record[key]!r}: found {text} {answer!r}, expected a string"
                )
            question = next((str(record[name]) for name in _QUESTION if name in record), "")
            return Answer(where, str(record[key]), answer, question)
    raise PredictionError(f"{where}: found the keys {', '.join(map(str, record))}, expected {_described(shapes)}")


def _described(shapes: Sequence[tuple[str, str]]) -> str:
    """Name the accepted records."""
    return "records with " + " or ".join(f"{key!r} and {text!r}" for key, text in shapes)


def read_content(path: Path) -> list[tuple[str, dict[str, Any]]] | dict[str, Any]:
    """Read a JSON file, JSON lines or an .xlsx sheet: records with their place, or the one object of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        PredictionError: it is none of these, or a record is not an object; the message names the line.
    """
    path = Path(path)
    if path.is_dir():
        raise PredictionError(f"{path}: found a folder, expected a file of answers")
    if path.suffix == ".xlsx":
        try:
            return [(f"{path}:{number}", row) for number, row in enumerate(read_rows(path), 2)]
        except (BadZipFile, KeyError, TypeError, OSError) as err:
            raise PredictionError(f"{path}: not a whole .xlsx sheet ({err})") from err
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise PredictionError(f"{path}: byte {err.start} is not UTF-8, expected JSON or JSON lines") from err
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return list(_lines(path, text))
    if isinstance(whole, list):
        return [(f"{path}: record {n}", _object(item, f"{path}: record {n}")) for n, item in enumerate(whole)]
    content = _object(whole, str(path))
    if {"question_id", "id", "video_name"} & set(content):  # JSON lines of one line
        return [(f"{path}:1", content)]
    return content


def _lines(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the records of JSON lines."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as err:
                reason = getattr(err, "msg", err)
                raise PredictionError(f"{where}: not valid JSON ({reason}), expected an answer object a line") from err
            yield where, _object(record, where)


def _object(item: object, where: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise PredictionError(f"{where}: found {type(item).__name__}, expected an answer object")
    return item


def keyed(path: Path, content: Mapping[str, Any], examples: Sequence[Example]) -> dict[str, str]:
    """Return the answers of an object from question id to text.

    Raises:
        PredictionError: an answer is no text, or ids are missing or foreign.
    """
    answers = []
    for key, text in content.items():
        if not isinstance(text, str):
            raise PredictionError(f"{path}: question id {key!r}: found {text!r}, expected a string")
        answers.append(Answer(f"{path}: key {key!r}", key, text))
    return match_answers(path, answers, examples)


def read_scienceqa(path: Path, examples: Sequence[Example]) -> dict[str, str]:
    """Read LLaVA's lines, the two files its script writes (`*_result.json`, `*_output.jsonl`), or official indices.

    Raises:
        FileNotFoundError, PredictionError: see `read_content` and `keyed`.
    """
    content = read_content(path)
    if not isinstance(content, dict):
        return answers_in()(path, examples)
    if isinstance(content.get("outputs"), dict):
        return keyed(path, content["outputs"], examples)
    if isinstance(content.get("correct"), list) and isinstance(content.get("incorrect"), list):
        records = enumerate([*content["correct"], *content["incorrect"]])
        shape = [("question_id", "pred")]
        found = (_answer(f"{path}: record {n}", _object(record, str(path)), shape) for n, record in records)
        return match_answers(path, found, examples)
    if isinstance(content.get("results"), dict):
        return keyed(path, {key: _letter(path, key, index) for key, index in content["results"].items()}, examples)
    raise PredictionError(
        f"{path}: found the keys {', '.join(content)}, expected 'outputs', 'results', or 'correct' and 'incorrect'"
    )


def _letter(path: Path, key: str, index: object) -> str:
    """Return the letter of an option's index; -1 stands for an answer without one."""
    if isinstance(index, bool) or not isinstance(index, int) or not -1 <= index < len(LETTERS):
        raise PredictionError(f"{path}: question id {key!r}: found {index!r}, expected an option's index or -1")
    return LETTERS[index] if index >= 0 else ""


def read_mmbench(path: Path, examples: Sequence[Example]) -> dict[str, str]:
    """Read LLaVA's lines or an upload sheet (.xlsx with `index` and `prediction`); an empty cell is an empty answer.

    Raises:
        FileNotFoundError, PredictionError: see `read_content` and `match_answers`.
    """
    content = read_content(path)
    if isinstance(content, dict) or path.suffix != ".xlsx":
        return answers_in()(path, examples)
    if content and "prediction" not in content[0][1]:
        raise PredictionError(f"{path}: found the columns {', '.join(content[0][1])}, expected also 'prediction'")
    cells = (Answer(where, str(row["index"]), str(row["prediction"] or "")) for where, row in content)
    return match_answers(path, cells, examples)

"""MME answers: LLaVA's lines, or the evaluation tool's folder with one text file a subtask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from visiontokens.data.benchmarks import Example
from visiontokens.data.benchmarks.mme import result_lines, strip_suffix, text_files, tool_examples
from visiontokens.data.benchmarks.prompts import bare_question
from visiontokens.evaluate.predictions import Answer, PredictionError, match_answers
from visiontokens.evaluate.released import answers_in, read_content

_Key = tuple[str, str, str]


def read_mme(path: Path, examples: Sequence[Example]) -> dict[str, str]:
    """Read answers to MME; a question is found by its subtask, its image's stem and its words.

    So the answers do not depend on how a release names images (`0001.png`, `images/0001.jpg`, `0001.txt`).

    Raises:
        FileNotFoundError: there is no such file or folder.
        PredictionError: a line is malformed, or ids are missing, foreign or given twice.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder of answers")
    files = text_files(path)
    if not files and (path.is_dir() or path.suffix == ".txt"):
        raise PredictionError(f"{path}: found none of MME's subtasks, expected files such as existence.txt")
    if not files and _ours(path, examples):
        return answers_in()(path, examples)
    keys: dict[_Key, list[str]] = {}
    for example in examples:
        stem = PurePosixPath(example.group).name.split(".")[0]
        keys.setdefault(_key(example.meta["category"], stem, example.prompt), []).append(example.question_id)
    found = _from_texts(files, keys) if files else _from_lines(path, keys)
    return match_answers(path, found, examples)


def told_by_results(path: Path) -> list[Example]:
    """Return the questions that the tool's text files ask, which hold the labels as well; none of another file."""
    return tool_examples(text_files(path)) if path.exists() else []


def _key(category: str, stem: str, prompt: str) -> _Key:
    return category, stem, strip_suffix(bare_question(prompt)).lower()


def _take(keys: dict[_Key, list[str]], key: _Key) -> str:
    """Return the question that a key names; of several the next one, or the key itself where it names none."""
    ids = keys.get(key, ["/".join(key)])
    return ids.pop(0) if len(ids) > 1 else ids[0]


def _from_texts(files: dict[str, Path], keys: dict[_Key, list[str]]) -> Iterator[Answer]:
    """Yield the answers of the tool's text files: image, question, label, answer, parted by tabs."""
    for category, file in files.items():
        for where, cells in result_lines(file):
            if len(cells) < 4:
                raise PredictionError(f"{where}: found {len(cells)} columns, expected image, question, label, answer")
            stem = PurePosixPath(cells[0]).name.split(".")[0]
            yield Answer(where, _take(keys, _key(category, stem, cells[1])), cells[3])


def _from_lines(path: Path, keys: dict[_Key, list[str]]) -> Iterator[Answer]:
    """Yield the answers of LLaVA's lines, whose id is the image's path below the release."""
    content = read_content(path)
    if isinstance(content, dict):
        raise PredictionError(f"{path}: found one JSON object, expected one answer a line")
    for where, record in content:
        name, text = record.get("question_id"), record.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            raise PredictionError(f"{where}: found {name!r} and {text!r}, expected texts 'question_id' and 'text'")
        parts = PurePosixPath(name).parts or ("",)
        key = _key(parts[0], parts[-1].split(".")[0], str(record.get("prompt", "")))
        yield Answer(where, _take(keys, key) if key in keys else name, text)


def _ours(path: Path, examples: Sequence[Example]) -> bool:
    """Return whether the first record carries one of our own ids, which name the line of the text."""
    content = read_content(path)
    known = {example.question_id for example in examples}
    return not isinstance(content, dict) and bool(content) and content[0][1].get("question_id") in known

"""What every benchmark loader returns, and how it reads the official files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visiontokens.data.videos import TEST_SET as TEST_VIDEOS
from visiontokens.provenance import read_json, read_text

FURTHER_SET = "further"
"""Set of the images of benchmarks that only some scales ask for."""


class BenchmarkError(ValueError):
    """An official benchmark file does not hold what its format promises."""


@dataclass(frozen=True)
class Example:
    """One question of a benchmark.

    Attributes:
        question_id: unique within the benchmark, as text.
        image: path below the benchmark's image root; None for a question without an image.
        prompt: the user's turn as the model reads it, without the image token, with the answer-format suffix.
        group: the cluster that a bootstrap resamples as a whole (the image, or the base question of MMBench).
        meta: ground truth and whatever else the scorer needs. `official_id` is the id used in LLaVA's released
            files where that id is not unique (MME, TextVQA).
    """

    question_id: str
    image: str | None
    prompt: str
    group: str
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark lies and how it is read.

    Attributes:
        name: key in the registry.
        folder: folder below the benchmarks directory that holds the official files.
        image_root: folder below the benchmarks directory that `Example.image` is relative to.
        load: reads `folder` (as an absolute path) and keyword options into examples.
        lang: language of questions and answers, "en" or "cn".
        max_new_tokens: decoding limit that LLaVA-1.5 uses for this benchmark.
        video: `Example.image` names a video file.
        further: beyond both papers' main tables (and their videos): no average has it, and a generated world holds
            it only where a scale asks for it.
        splits: values of the loader's option `split`, the default first; a score tries them in this order.
    """

    name: str
    folder: str
    image_root: str
    load: Callable[..., list[Example]]
    lang: str = "en"
    max_new_tokens: int = 128
    video: bool = False
    further: bool = False
    splits: tuple[str, ...] = ()

    @property
    def test_set(self) -> str:
        """Set of images or videos that a generated world keeps this benchmark's in."""
        return TEST_VIDEOS if self.video else FURTHER_SET if self.further else "test"

    def read(self, benchmarks_dir: Path, **options: object) -> list[Example]:
        """Load the examples from `benchmarks_dir/folder`.

        Raises:
            FileNotFoundError: an official file is missing.
            BenchmarkError: a file breaks its format, or question ids repeat.
        """
        folder = Path(benchmarks_dir) / self.folder
        try:
            return check_examples(self.name, self.load(folder, **options))
        except (KeyError, IndexError, TypeError, AttributeError) as err:
            kind = type(err).__name__
            raise BenchmarkError(f"{folder}: a record is not as its format promises ({kind}: {err})") from err
        except ValueError as err:
            if isinstance(err, BenchmarkError) or str(folder) in str(err):
                raise
            raise BenchmarkError(f"{folder}: a record is not as its format promises ({err})") from err

    def image_path(self, benchmarks_dir: Path, example: Example) -> Path | None:
        """Return where an example's image lies, or None for a text-only question."""
        if example.image is None:
            return None
        return Path(benchmarks_dir) / self.image_root / example.image


def check_examples(name: str, examples: list[Example]) -> list[Example]:
    """Return `examples` if there are any and their ids are unique, else raise BenchmarkError."""
    if not examples:
        raise BenchmarkError(f"{name}: no questions found, expected at least one")
    seen: set[str] = set()
    for example in examples:
        if example.question_id in seen:
            raise BenchmarkError(f"{name}: question id {example.question_id!r} occurs twice, expected unique ids")
        seen.add(example.question_id)
    return examples


def subset(examples: list[Example], limit: int) -> list[Example]:
    """Return about `limit` examples: whole groups, evenly spaced over the benchmark; 0 keeps all.

    A plain head would hold one category of POPE or MME only, and split the rows that MMBench scores together.
    """
    groups = list(dict.fromkeys(example.group for example in examples))
    if limit <= 0 or limit >= len(examples):
        return examples
    keep = max(1, round(len(groups) * limit / len(examples)))
    chosen = {groups[i * len(groups) // keep] for i in range(keep)}
    return [example for example in examples if example.group in chosen]


def find_one(folder: Path, *patterns: str) -> Path:
    """Return the single file that matches the first pattern with any match.

    Raises:
        FileNotFoundError: no pattern matches.
        BenchmarkError: a pattern matches several files, so that the choice would be a guess.
    """
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise BenchmarkError(f"{folder}: {len(found)} files match {pattern!r} ({names}), expected one")
        if found:
            return found[0]
    raise FileNotFoundError(f"{folder}: no file matches {' or '.join(patterns)}")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object per line; blank lines are skipped.

    Raises:
        BenchmarkError: a line is not a JSON object; the message names file and line.
    """
    records = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as err:
            raise BenchmarkError(f"{path}:{number}: not valid JSON: {err.msg}") from err
        if not isinstance(record, dict):
            raise BenchmarkError(f"{path}:{number}: found {type(record).__name__}, expected an object")
        records.append(record)
    return records


def read_object(path: Path, key: str | None = None) -> Any:
    """Read a JSON file; with `key`, return that entry of its top-level object.

    Raises:
        BenchmarkError: the top level has no such key.
    """
    content = read_json(path)
    if key is None:
        return content
    if not isinstance(content, dict) or key not in content:
        raise BenchmarkError(f"{path}: expected a top-level object with the key {key!r}")
    return content[key]


def require(record: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """Raise BenchmarkError naming `where` and the first of `keys` that `record` lacks."""
    for key in keys:
        if key not in record:
            raise BenchmarkError(f"{where}: key {key!r} is missing; found {', '.join(map(str, record))}")


def image_name(folder: Path, stem: str) -> str:
    """Return `stem` with the suffix of the file in `folder`: .png when only that exists, else the official .jpg."""
    if not (folder / f"{stem}.jpg").exists() and (folder / f"{stem}.png").exists():
        return f"{stem}.png"
    return f"{stem}.jpg"


def ten_answers(record: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the ten human answers of a VQA-style record, given as strings or as objects with the key "answer".

    Raises:
        BenchmarkError: there are not exactly ten; every metric of the family averages over ten leave-one-out sets.
    """
    answers = [item["answer"] if isinstance(item, Mapping) else item for item in record["answers"]]
    if len(answers) != 10:
        raise BenchmarkError(f"{where}: found {len(answers)} answers, expected 10")
    return tuple(str(answer) for answer in answers)

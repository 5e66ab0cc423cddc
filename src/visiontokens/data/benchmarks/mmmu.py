"""MMMU: college-level questions of thirty subjects, multiple choice and open (Yue et al., 2024).

Files: `<subject>/validation-*.parquet` as on the hub (read with pyarrow, extra `mmmu`), or the same columns as
`<subject>/validation.jsonl`; images `images/<id>_<n>.png`, which `extract_images` writes out of the parquet files. For
scoring alone `answer_dict_val.json` is enough: there are then no prompts and no options.

A question may have up to seven images. LLaVA-1.5 reads the first one and leaves the markers (`<image 2>`) in the text.
The official script means to guess where several images are options; as it looks for them among the characters of the
options' text it never finds one, so that all questions are asked on their first image.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.base import BenchmarkError, Example, read_jsonl, read_object, require
from visiontokens.provenance import atomic_write

DOMAINS = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power",
        "Materials", "Mechanical_Engineering",
    ),
}  # fmt: skip
"""The six domains and their subjects."""
SUBJECTS = (
    "Accounting", "Agriculture", "Architecture_and_Engineering", "Art", "Art_Theory", "Basic_Medical_Science",
    "Biology", "Chemistry", "Clinical_Medicine", "Computer_Science", "Design", "Diagnostics_and_Laboratory_Medicine",
    "Economics", "Electronics", "Energy_and_Power", "Finance", "Geography", "History", "Literature", "Manage",
    "Marketing", "Materials", "Math", "Mechanical_Engineering", "Music", "Pharmacy", "Physics", "Psychology",
    "Public_Health", "Sociology",
)  # fmt: skip
"""Subjects in the order of the official scripts, on which their random choices depend."""
DOMAIN_OF = {subject: domain for domain, subjects in DOMAINS.items() for subject in subjects}
ANSWERS = "answer_dict_val.json"
CHOICE, OPEN = "multiple-choice", "open"
N_IMAGES = 7
HIDDEN = "?"
"""Answer of the test split's questions."""
_KEYS = ("id", "question", "options", "answer", "question_type", "image_1")


def load(root: Path, split: str = "validation") -> list[Example]:
    """Read one split of MMMU below `root`, subjects in the official order.

    Raises:
        FileNotFoundError: no subject's file is there.
        BenchmarkError: a record lacks a key, its options are no list of texts, or its gold letter is not among them.
    """
    sources = [(subject, path) for subject in SUBJECTS if (path := _source(root, subject, split)) is not None]
    if not sources:
        if split == "validation" and (root / ANSWERS).is_file():
            return _answers_only(root / ANSWERS)
        raise FileNotFoundError(f"{root}: no <subject>/{split}-*.parquet or <subject>/{split}.jsonl is there")
    return [
        _example(record, subject, f"{path}: record {number}")
        for subject, path in sources
        for number, record in enumerate(_records(path))
    ]


def _source(root: Path, subject: str, split: str) -> Path | None:
    """Return a subject's file of a split: its JSON lines, else its first parquet file, else None."""
    lines = root / subject / f"{split}.jsonl"
    return lines if lines.is_file() else next(iter(sorted((root / subject).glob(f"{split}-*.parquet"))), None)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a subject's split, those of further parquet files of the same split behind."""
    if path.suffix == ".jsonl":
        yield from read_jsonl(path)
        return
    for part in sorted(path.parent.glob(f"{path.name.split('-')[0]}-*.parquet")):
        yield from _parquet(part)


def _parquet(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a parquet file; an image is an object with its `bytes`."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as err:
        raise BenchmarkError(f"{path}: parquet files are read with pyarrow: pip install 'visiontokens[mmmu]'") from err
    try:
        return list(parquet.read_table(path).to_pylist())
    except (ArrowException, OSError) as err:
        raise BenchmarkError(f"{path}: expected a parquet file: {err}") from err


def _example(record: Mapping[str, Any], subject: str, where: str) -> Example:
    require(record, _KEYS, where)
    key, kind = str(record["id"]), record["question_type"]
    if kind not in (CHOICE, OPEN):
        raise BenchmarkError(f"{where}: found question_type {kind!r}, expected {CHOICE} or {OPEN}")
    options = parse_list(record["options"], f"{where}: options")
    question = str(record["question"])
    n_images = sum(record.get(f"image_{n}") is not None for n in range(1, N_IMAGES + 1))
    if not n_images:
        raise BenchmarkError(f"{where}: question id {key!r} has no image, expected one to {N_IMAGES}")
    answer = _answer(record["answer"], kind, len(options), where)
    return Example(
        question_id=key,
        image=f"images/{image_name(key, 1)}",
        prompt=prompts.bracketed_choice(question, options) if kind == CHOICE else prompts.short_answer(question),
        group=key,
        meta={
            "answers": answer, "question_type": kind, "options": options, "subject": subject, "n_images": n_images,
        },
    )  # fmt: skip


def _answer(found: object, kind: str, n_options: int, where: str) -> tuple[str, ...]:
    """Return the answers that count as right; none where they are not public."""
    if found == HIDDEN:
        return ()
    if kind == OPEN:
        listed = isinstance(found, list) or (isinstance(found, str) and found.startswith("["))
        return parse_list(found, f"{where}: answer") if listed else (str(found),)
    letters = [str(letter) for letter in found] if isinstance(found, list) else [str(found)]
    wrong = [letter for letter in letters if letter not in tuple(ascii_uppercase[:n_options])]
    if wrong:
        raise BenchmarkError(f"{where}: gold {wrong[0]!r} is not among {n_options} options")
    return tuple(letters)


def parse_list(text: object, where: str) -> tuple[str, ...]:
    """Return the texts of a Python list literal such as "['red', 'blue']" (or of a list), without running any code.

    Raises:
        BenchmarkError: it is no list of texts or numbers.
    """
    try:
        found = ast.literal_eval(text) if isinstance(text, str) else text
    except (ValueError, SyntaxError, MemoryError, RecursionError) as err:
        raise BenchmarkError(f"{where}: found {text!r}, expected a list such as ['red', 'blue']") from err
    if not isinstance(found, list) or not all(isinstance(item, str | int | float) for item in found):
        raise BenchmarkError(f"{where}: found {text!r}, expected a list of texts such as ['red', 'blue']")
    return tuple(str(item) for item in found)


def subject_of(question_id: str) -> str:
    """Return the subject that an id such as "validation_Art_Theory_12" names."""
    return "_".join(question_id.split("_")[1:-1])


def _answers_only(path: Path) -> list[Example]:
    """Return examples without prompts from the official answer file: enough to score answers, not to ask."""
    examples = []
    for key, record in read_object(path).items():
        where = f"{path}: question id {key!r}"
        require(record, ("question_type", "ground_truth"), where)
        subject, kind = subject_of(key), CHOICE if record["question_type"] == CHOICE else OPEN
        if subject not in SUBJECTS:
            raise BenchmarkError(f"{where}: found subject {subject!r}, expected one of {', '.join(SUBJECTS)}")
        meta = {
            "answers": _answer(record["ground_truth"], kind, len(ascii_uppercase), where), "question_type": kind,
            "options": (), "subject": subject, "n_images": 1,
        }  # fmt: skip
        examples.append(Example(key, None, "", key, meta))
    return sorted(examples, key=lambda example: SUBJECTS.index(example.meta["subject"]))


def image_name(question_id: str, number: int) -> str:
    """Return the file name of a question's image; images are told apart by content, so the suffix is always .png."""
    return f"{question_id}_{number}.png"


def extract_images(root: Path, split: str = "validation") -> list[Path]:
    """Write the images inside the parquet files of a split to `<root>/images` and return their paths.

    Subjects that come as JSON lines have theirs there already.

    Raises:
        BenchmarkError: a file is no parquet file, or an image has no bytes.
    """
    written = []
    for subject in SUBJECTS:
        for path in sorted((root / subject).glob(f"{split}-*.parquet")):
            for row in _parquet(path):
                written += _write_images(row, root / "images", f"{path}: question id {row.get('id')!r}")
    return written


def _write_images(row: Mapping[str, Any], folder: Path, where: str) -> list[Path]:
    """Write the images of one row."""
    written = []
    for number in range(1, N_IMAGES + 1):
        image = row.get(f"image_{number}")
        if image is None:
            continue
        if not isinstance(image, dict) or not image.get("bytes"):
            raise BenchmarkError(f"{where}: image_{number} has no bytes")
        out = folder / image_name(str(row["id"]), number)
        if not (out.is_file() and out.read_bytes() == image["bytes"]):
            with atomic_write(out, "wb") as handle:
                handle.write(image["bytes"])
        written.append(out)
    return written

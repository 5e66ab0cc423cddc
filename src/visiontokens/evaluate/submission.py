"""Upload files for benchmarks that only their organisers' servers score, made from answer files and read back.

A file is encoded, decoded again and compared with what it should hold before it takes its name: every question of the
split once, in the official order, with the right types. Answers to VQAv2 and VizWiz pass LLaVA's M4C normalisation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from visiontokens.data.benchmarks import find_benchmark, mmmu
from visiontokens.data.benchmarks.base import find_one, read_jsonl, read_object, require
from visiontokens.data.benchmarks.mmbench import read_rows, text_of
from visiontokens.data.benchmarks.mmmu import CHOICE
from visiontokens.evaluate.normalize import normalize_m4c
from visiontokens.evaluate.predictions import read_predictions
from visiontokens.evaluate.score.mmmu import parse_choice, read_mmmu
from visiontokens.evaluate.score.seed import VIDEO_ID, read_seed
from visiontokens.provenance import atomic_write

DROPPED = frozenset({"hint", "category", "source", "image", "comment", "l2-category", "prediction"})
"""Columns of MMBench's table that its upload does not have (or has anew)."""
PREDICTION_COLUMN = 6
"""Where the upload's predictions stand, counted from 0: behind index, question and four options."""
FILLED = ""
"""Answer to a question of VQAv2's whole test set that was not asked (test-dev is about a quarter of it)."""


class SubmissionError(ValueError):
    """Answers do not make the upload that a server expects."""


class Row(NamedTuple):
    """One answer of an upload: the official id, the answer, and what else the file says about the question."""

    key: int | str
    answer: str
    cells: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Format:
    """How a benchmark's upload is made.

    Attributes:
        rows: from (folder of the benchmarks, answer file) to the rows of the upload.
        encode: rows to the file's bytes.
        decode: bytes to (id, answer) pairs; raises SubmissionError where a record has other keys or types.
    """

    rows: Callable[[Path, Path], list[Row]]
    encode: Callable[[Sequence[Row]], bytes]
    decode: Callable[[bytes], list[tuple[int | str, str]]]


def write_submission(name: str, answers: Path, benchmarks_dir: Path, out: Path) -> dict[str, Any]:
    """Write the upload file of a benchmark and return its counts.

    Args:
        name: key of `FORMATS`.
        answers: the answer file.
        benchmarks_dir: folder that holds the benchmark's folder with the questions of the split.
        out: the file to write.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no such upload; or an answer is missing, foreign, given twice, or cannot be written. The message
            names file, id and what was expected.
    """
    if name not in FORMATS:
        raise SubmissionError(f"no upload for benchmark {name!r}, expected one of {', '.join(FORMATS)}")
    form = FORMATS[name]
    rows = form.rows(Path(benchmarks_dir), Path(answers))
    content = form.encode(rows)
    check(name, content, rows)
    with atomic_write(out, "wb") as handle:
        handle.write(content)
    filled = sum(row.answer == FILLED for row in rows)
    return {"benchmark": name, "file": str(out), "questions": len(rows), "empty_answers": filled}


def check(name: str, content: bytes, rows: Sequence[Row]) -> None:
    """Read an upload back and compare it with the rows it was made of.

    Raises:
        SubmissionError: a record has other keys or types, or ids or answers differ; the message names the first.
    """
    found = FORMATS[name].decode(content)
    if len(found) != len(rows):
        raise SubmissionError(f"{name}: the file holds {len(found)} answers, expected {len(rows)}")
    for number, (pair, row) in enumerate(zip(found, rows, strict=True), 1):
        if pair != (row.key, row.answer):
            raise SubmissionError(f"{name}: answer {number}: found {pair}, expected {(row.key, row.answer)}")


def _vqav2(root: Path, answers: Path) -> list[Row]:
    """Every question of test2015, those that were not asked with an empty answer; test-dev has to be complete."""
    folder = root / find_benchmark("vqav2").folder
    keys = _ids(find_one(folder, "v2_OpenEnded_mscoco_test2015_questions.json", "llava_vqav2_mscoco_test2015.jsonl"))
    part = sorted(folder.glob("v2_OpenEnded_mscoco_test-dev2015_questions.json"))
    part = part or sorted(folder.glob("llava_vqav2_mscoco_test-dev2015.jsonl"))
    given = read_predictions(answers)
    _complete(answers, given, map(str, keys), map(str, _ids(part[0])) if part else ())
    return [Row(key, normalize_m4c(given[str(key)]) if str(key) in given else FILLED) for key in keys]


def _ids(path: Path) -> list[int]:
    """Return the question ids of an official question file, or of LLaVA's list of the same questions."""
    records = read_jsonl(path) if path.suffix == ".jsonl" else read_object(path, "questions")
    found: dict[int, None] = {}
    for number, record in enumerate(records):
        require(record, ("question_id",), f"{path}: question {number}")
        key = record["question_id"]
        if not isinstance(key, int) or isinstance(key, bool) or key in found:
            raise SubmissionError(f"{path}: question {number}: found id {key!r}, expected an integer not seen before")
        found[key] = None
    return list(found)


def _vizwiz(root: Path, answers: Path) -> list[Row]:
    """The test images in official order; answers may name them by file or, as LLaVA's, by place."""
    folder = root / find_benchmark("vizwiz").folder
    path = find_one(folder, "test.json", "Annotations/test.json", "llava_test.jsonl")
    records = read_jsonl(path) if path.suffix == ".jsonl" else read_object(path)
    images: dict[str, str] = {}
    for number, record in enumerate(records):
        require(record, ("image",), f"{path}: record {number}")
        images[str(record.get("question_id", number))] = str(record["image"])
    given = {images.get(key, key): text for key, text in read_predictions(answers).items()}
    _complete(answers, given, images.values(), images.values())
    return [Row(image, normalize_m4c(given[image])) for image in images.values()]


def _mmbench(root: Path, answers: Path, name: str) -> list[Row]:
    """The rows of the test table (of the dev table where there is no other), with their columns."""
    folder = root / find_benchmark(name).folder
    patterns = ("mmbench_test_*.tsv", "MMBench_TEST_*.tsv", "mmbench_dev_*.tsv", "*.tsv", "*.xlsx")
    path = find_one(folder, *patterns)
    table = {str(row["index"]): row for row in read_rows(path, ("index", "question", "A", "B"))}
    given = read_predictions(answers)
    _complete(answers, given, table, table)
    return [Row(int(row["index"]), given[key], row) for key, row in table.items()]


def _mmmu(root: Path, answers: Path) -> list[Row]:
    """Letters of multiple-choice answers (the text itself where it has none), and open answers as they are."""
    folder = root / find_benchmark("mmmu").folder
    tested = any(folder.glob("*/test-*.parquet")) or any(folder.glob("*/test.jsonl"))
    examples = mmmu.load(folder, "test" if tested else "validation")
    given = read_mmmu(answers, examples)
    kinds = {example.question_id: example.meta for example in examples}
    return [
        Row(key, (parse_choice(text, kinds[key]["options"]) or text) if kinds[key]["question_type"] == CHOICE else text)
        for key, text in given.items()
    ]


def _seed(root: Path, answers: Path) -> list[Row]:
    """Image questions in official order, and those about videos where one of them is answered."""
    videos = any(str(record.get("question_id")).startswith(VIDEO_ID) for record in read_jsonl(answers))
    examples = find_benchmark("seed").read(root, videos=videos)
    given = read_seed(answers, examples)
    return [Row(str(example.meta["official_id"]), given[example.question_id]) for example in examples]


def _complete(path: Path, given: Mapping[str, str], known: Iterable[str], needed: Iterable[str]) -> None:
    """Raise unless there are answers, all belong to known questions, and no needed one is missing."""
    known = set(known)
    if not given:
        raise SubmissionError(f"{path}: no answers, expected some to {len(known)} questions")
    foreign = [key for key in given if key not in known]
    if foreign:
        raise SubmissionError(f"{path}: question id {foreign[0]!r} is foreign, expected one of {len(known)} questions")
    missing = [key for key in needed if key not in given]
    if missing:
        raise SubmissionError(f"{path}: {len(missing)} questions have no answer, the first is {missing[0]!r}")


def _records(key: str, answer: str, kind: type[int] | type[str], *, lines: bool = False) -> dict[str, Any]:
    """Return encoder and decoder of a JSON list (or JSON lines) of records with exactly two keys."""

    def encode(rows: Sequence[Row]) -> bytes:
        found = [{key: row.key, answer: row.answer} for row in rows]
        text = "".join(json.dumps(record) + "\n" for record in found) if lines else json.dumps(found)
        return text.encode()

    def decode(content: bytes) -> list[tuple[int | str, str]]:
        found = [json.loads(line) for line in content.splitlines()] if lines else json.loads(content)
        for number, record in enumerate(found, 1):
            types = {name: type(value) for name, value in record.items()}
            if types != {key: kind, answer: str}:
                raise SubmissionError(f"record {number}: found {record}, expected {key} ({kind.__name__}) and {answer}")
        return [(record[key], record[answer]) for record in found]

    return {"encode": encode, "decode": decode}


def _object(rows: Sequence[Row]) -> bytes:
    """Return one JSON object id -> answer."""
    return json.dumps({row.key: row.answer for row in rows}, indent=1).encode()


def _read_object(content: bytes) -> list[tuple[int | str, str]]:
    return list(json.loads(content).items())


def columns(header: Iterable[str]) -> list[str]:
    """Return the columns of MMBench's upload for a table with `header`."""
    kept = [name for name in header if name not in DROPPED]
    return [*kept[:PREDICTION_COLUMN], "prediction", *kept[PREDICTION_COLUMN:]]


def _sheet(rows: Sequence[Row]) -> bytes:
    """Return an Excel workbook; cells that count as no value are empty, as pandas leaves them."""
    import openpyxl
    from openpyxl.utils.exceptions import IllegalCharacterError

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    names = columns(rows[0].cells) if rows else []
    sheet.append(names)
    for row in rows:
        cells = {**row.cells, "index": row.key, "prediction": row.answer}
        try:
            sheet.append([_cell(cells.get(name)) for name in names])
        except IllegalCharacterError as err:
            raise SubmissionError(f"row {row.key}: a text has a control character, which a sheet cannot hold") from err
    out = BytesIO()
    book.save(out)
    return out.getvalue()


def _cell(value: object) -> object:
    return value if isinstance(value, int | float) else text_of(value) or None


def _read_sheet(content: bytes) -> list[tuple[int | str, str]]:
    import openpyxl

    book = openpyxl.load_workbook(BytesIO(content), read_only=True)
    table = book.worksheets[0].iter_rows(values_only=True)
    header = [str(cell) for cell in next(table, ())]
    if header[:1] != ["index"] or header.index("prediction") != PREDICTION_COLUMN:
        raise SubmissionError(f"sheet: found columns {', '.join(header)}, expected index first and prediction seventh")
    found: list[tuple[int | str, str]] = []
    for cells in table:
        row = dict(zip(header, cells, strict=True))
        if not isinstance(row["index"], int):
            raise SubmissionError(f"sheet: found index {row['index']!r}, expected an integer")
        found.append((row["index"], str(row["prediction"] or "")))
    book.close()
    return found


FORMATS: dict[str, Format] = {
    "vqav2": Format(_vqav2, **_records("question_id", "answer", int)),
    "vizwiz": Format(_vizwiz, **_records("image", "answer", str)),
    "mmbench": Format(lambda root, answers: _mmbench(root, answers, "mmbench"), _sheet, _read_sheet),
    "mmbench_cn": Format(lambda root, answers: _mmbench(root, answers, "mmbench_cn"), _sheet, _read_sheet),
    "seed": Format(_seed, **_records("question_id", "prediction", str, lines=True)),
    "mmmu": Format(_mmmu, _object, _read_object),
}
"""Uploads by benchmark: EvalAI's JSON lists, the sheet of MMBench's server, SEED-Bench's JSON lines, MMMU's object."""

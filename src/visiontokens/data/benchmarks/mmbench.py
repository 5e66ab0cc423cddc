"""MMBench and MMBench-CN: multiple choice with rotated options, images inside the TSV (Liu et al., 2023).

Files: `mmbench_dev_20230712.tsv` and `mmbench_dev_cn_20231003.tsv`, or an uploaded prediction sheet (.xlsx), which has
the same columns without images. Rows with an index of 1,000,000 or more are rotations of the row `index % 1,000,000`.
The two languages ask about the same images, so `extract_images` writes them to one folder.
"""

from __future__ import annotations

import base64
import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.base import BenchmarkError, Example, find_one, require
from visiontokens.provenance import atomic_write

OPTIONS = "ABCD"
ROTATION = 1_000_000
MISSING = frozenset({"", "none", "nan", "<na>", "n/a", "na", "null", "#n/a"})
"""Cell texts that count as no value (pandas' empty marks and, as in LLaVA's reader, "none")."""
COLUMNS = ("index", "question", "A", "B", "answer")
TABLES = {
    "en": ("mmbench_dev_[!c]*.tsv", "MMBench_DEV_EN*.tsv"),
    "cn": ("mmbench_dev_cn_*.tsv", "MMBench_DEV_CN*.tsv"),
}
"""Names of the official tables, which tell the languages apart where both lie in one folder."""
_REFERENCE_LENGTH = 64


def load(root: Path, lang: str = "en", file: str | None = None, first_pass: bool = False) -> list[Example]:
    """Read the MMBench table below `root`; `first_pass` leaves the rotated rows out.

    Raises:
        FileNotFoundError: there is no table.
        BenchmarkError: a column or a base row is missing, or the gold letter is not among the options.
    """
    path = root / file if file else find_one(root, *TABLES[lang], "mmbench_*.tsv", "*.tsv", "*.xlsx")
    rows = {int(row["index"]): row for row in read_rows(path)}
    examples = []
    for index, row in rows.items():
        base = index % ROTATION
        if base not in rows:
            raise BenchmarkError(f"{path}: row {index} is a rotation, but its base row {base} is missing")
        if not (first_pass and index != base):
            examples.append(_example(index, row, rows[base], lang, f"{path}: row {index}"))
    return examples


def _example(index: int, row: Mapping[str, Any], base_row: Mapping[str, Any], lang: str, where: str) -> Example:
    """Turn one row into an example; the image is that of the base row."""
    options = options_of(row)
    if row["answer"] not in tuple(OPTIONS[: len(options)]):
        raise BenchmarkError(f"{where}: gold {row['answer']!r} is not among {len(options)} options")
    question = "\n".join(filter(None, (text_of(row.get("hint")), str(row["question"]), prompts.lettered(options))))
    base = index % ROTATION
    return Example(
        question_id=str(index),
        image=_file_name(base, base_row["image"]) if base_row.get("image") else None,
        prompt=prompts.option_letter(question, lang),
        group=str(base),
        meta={
            "answer": row["answer"],
            "options": options,
            "category": text_of(base_row.get("category")),
            "l2_category": text_of(base_row.get("l2-category")),
        },
    )


def read_rows(path: Path, columns: Sequence[str] = COLUMNS) -> Iterator[dict[str, Any]]:
    """Yield the rows of a TSV or XLSX table as dictionaries; `columns` must be there (a test table has no answers).

    Raises:
        BenchmarkError: a column is missing, an index is not an integer or occurs twice.
    """
    seen: set[int] = set()
    for number, row in enumerate(_xlsx(path) if path.suffix == ".xlsx" else _tsv(path), 2):
        where = f"{path}:{number}"
        require(row, columns, where)
        try:
            index = int(row["index"])
        except (TypeError, ValueError) as err:
            raise BenchmarkError(f"{where}: found index {row['index']!r}, expected an integer") from err
        if index in seen:
            raise BenchmarkError(f"{where}: index {index} occurs twice")
        seen.add(index)
        yield row


def _tsv(path: Path) -> Iterator[dict[str, Any]]:
    """Yield TSV rows; cells hold whole images, so the csv module's cell limit is lifted.

    Raises:
        BenchmarkError: a row is shorter or longer than the header, the last line has no end, or it is not UTF-8.
    """
    csv.field_size_limit(sys.maxsize)
    with path.open("rb") as raw:
        raw.seek(max(path.stat().st_size - 1, 0))
        if raw.read() != b"\n":
            raise BenchmarkError(f"{path}: found no end of the last line: the file is cut off")
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            rows = csv.DictReader(handle, delimiter="\t")
            for row in rows:
                if None in row or None in row.values():
                    raise BenchmarkError(f"{path}:{rows.line_num}: expected {len(rows.fieldnames or ())} columns")
                yield row
    except (UnicodeDecodeError, csv.Error) as err:
        raise BenchmarkError(f"{path}: no table in UTF-8: {err}") from err


def _xlsx(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of the first sheet, keyed by its header row.

    Raises:
        BenchmarkError: it is no whole sheet.
    """
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True)
        head, *rows = book.worksheets[0].iter_rows(values_only=True)
        book.close()
        header = [str(cell) for cell in head]
        records = [dict(zip(header, cells, strict=True)) for cells in rows]
    except FileNotFoundError:
        raise
    except Exception as err:  # openpyxl raises whatever its zip, XML and schema readers raise
        raise BenchmarkError(f"{path}: expected a whole XLSX sheet ({type(err).__name__}: {err})") from err
    yield from records


def text_of(cell: object) -> str:
    """Return a cell's text, or "" where it counts as no value."""
    text = "" if cell is None else str(cell)
    return "" if text.strip().lower() in MISSING else text


def options_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the options A, B, ... up to the first that has no value."""
    options: list[str] = []
    for letter in OPTIONS:
        text = text_of(row.get(letter))
        if not text:
            break
        options.append(text)
    return tuple(options)


def _file_name(base: int, encoded: str) -> str:
    """Name an extracted image by its base row; JPEG is told by the first bytes of its base64 form."""
    return f"{base}.jpg" if encoded.startswith("/9j") else f"{base}.png"


def extract_images(root: Path, image_dir: Path | None = None) -> list[Path]:
    """Write the images of the table below `root` as `<base index>.png` (or .jpg) and return their paths.

    Args:
        root: folder with the TSV (`mmbench` or `mmbench_cn`).
        image_dir: where they go; by default `mmbench/images` beside `root`, shared by both languages.

    Raises:
        BenchmarkError: a cell is not base64, refers to a missing row, or differs from the image already there.
    """
    path = find_one(root, "mmbench_dev_*.tsv", "mmbench_*.tsv", "*.tsv")
    target = image_dir or root.parent / "mmbench" / "images"
    cells = {int(row["index"]): row.get("image") or "" for row in read_rows(path)}
    written = []
    for index, cell in cells.items():
        if index >= ROTATION:
            continue
        # Later releases store an image once; other rows hold the index of the row that has it.
        encoded = cells.get(int(cell), "") if len(cell) <= _REFERENCE_LENGTH and cell.isdigit() else cell
        out = target / _file_name(index, cell)
        _write_image(encoded, out, f"{path}: row {index}")
        written.append(out)
    return written


def _write_image(encoded: str, out: Path, where: str) -> None:
    """Decode one cell into `out` unless the same bytes are there already."""
    try:
        content = base64.b64decode(encoded, validate=True)
    except ValueError as err:
        raise BenchmarkError(f"{where}: the image is not base64: {err}") from err
    if not content:
        raise BenchmarkError(f"{where}: the image is empty or refers to a row without one")
    if out.exists():
        if out.read_bytes() != content:
            raise BenchmarkError(f"{where}: {out} holds a different image; extract to another image_dir")
        return
    with atomic_write(out, "wb") as handle:
        handle.write(content)


load_cn = partial(load, lang="cn")

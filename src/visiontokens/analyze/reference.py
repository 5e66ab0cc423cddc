"""The published numbers, typed once under `data/reference`."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.errors import EmptyDataError, ParserError

from visiontokens.provenance import read_text

REFERENCE = Path("data/reference")
REFERENCE_FILES = ("llava_stf.csv", "llavolta.csv", "llava_1_5.csv", "m3.csv", "quecc.csv")
REFERENCE_COLUMNS = ["paper", "table", "row", "column", "value", "std", "unit", "suspect", "source"]


class ResultError(ValueError):
    """A result or reference file does not hold what it should; the message names file, key, found and expected."""


def reference(paper: str | None = None, table: str | None = None, folder: Path = REFERENCE) -> pd.DataFrame:
    """Return published numbers, one per line, in the order of the papers.

    Args:
        paper: `stf` (LLaVA-STF), `volta` (LLaVolta), `llava15`, `m3` or `quecc`; none = all.
        table: `1` .. `10`, `fig1`, `fig1_left`, `fig1_right`, `headline`, `zoo`, `scaling`; none = all.
        folder: where the CSV files are.

    Raises:
        FileNotFoundError: no reference file is there.
        ResultError: a file has other columns, a value is no number, or the choice is empty.
    """
    paths = [folder / name for name in REFERENCE_FILES]
    frame = pd.concat([_read_reference(path, path.stat().st_mtime_ns) for path in paths], ignore_index=True)
    if paper is not None:
        frame = frame[frame["paper"] == paper]
    if table is not None:
        frame = frame[frame["table"] == table]
    if frame.empty:
        raise ResultError(f"{folder}: found no published number for paper {paper!r}, table {table!r}")
    return frame.reset_index(drop=True)


@lru_cache(maxsize=len(REFERENCE_FILES))
def _read_reference(path: Path, changed: int) -> pd.DataFrame:
    """Read one file; `changed` is its time, so that a new one is read again. Callers must not write into the frame."""
    frame = read_csv(path, dtype=str, keep_default_na=False)
    if list(frame.columns) != REFERENCE_COLUMNS:
        raise ResultError(f"{path}: found columns {list(frame.columns)}, expected {REFERENCE_COLUMNS}")
    for column in ("value", "std"):
        numbers = pd.to_numeric(frame[column], errors="coerce")
        wrong = numbers.isna() & (frame[column] != "")
        if wrong.any():
            line = int(wrong.to_numpy().argmax()) + 2
            raise ResultError(f"{path}:{line}: column '{column}': found {frame[column][line - 2]!r}, expected a number")
        frame[f"{column}_text"] = frame[column]
        frame[column] = numbers
    return frame


def reference_rows(folder: Path = REFERENCE) -> pd.DataFrame:
    """Return which experiment regenerates which published row: columns paper, table, row, experiment."""
    return read_csv(folder / "rows.csv", dtype=str, keep_default_na=False)


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Read a table by pandas with these options.

    Raises:
        FileNotFoundError: the file is not there.
        ResultError: it is no table; the message names the file.
        ValueError: it is not UTF-8.
    """
    try:
        return pd.read_csv(io.StringIO(read_text(path), newline=""), **options)
    except (EmptyDataError, ParserError) as err:
        raise ResultError(f"{path}: no table: {err}") from err

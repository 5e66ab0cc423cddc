"""What a run's results are, bit by bit, without what is declared to vary: dates, times, commit and machine."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sandbox import RESULTS, WORLD

VOLATILE = frozenset(
    {"commit", "dirty", "date", "cores", "processor", "python", "seconds", "cpu_seconds", "wall_seconds"}
    | {"tokens_per_second", "mfu", "config_hash"}
)
"""Keys and columns that hold when, how fast or from which commit, at any depth; besides them, all that end in `_ms`."""
LEFT_OUT = ("logs", "benchmarks", "runs")
"""Folders of results that are no results: texts and times of jobs, and what a stopped run goes on from."""


def state(tree: Path, *others: Path) -> dict[str, str]:
    """Return the digest of every result and data file below a tree, by path.

    Pages may show times that were measured in `others`.
    """
    times = [shown for each in (tree, *others) for shown in _times(each)]
    return {path.relative_to(tree).as_posix(): _digest(path, times) for path in _files(tree)}


def differing(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return the paths at which two states differ, with what is the matter."""
    lines = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            lines.append(f"{name}: missing")
        elif name not in expected:
            lines.append(f"{name}: should not be there")
        elif expected[name] != found[name]:
            lines.append(f"{name}: differs")
    return lines


def _files(tree: Path) -> Iterator[Path]:
    for root in (tree / RESULTS, tree / WORLD):
        for path in sorted(root.rglob("*")):
            inside = path.relative_to(root).parts
            if not path.is_file() or inside[0] in LEFT_OUT:
                continue
            if path.name.startswith(".") or path.suffix == ".seal":
                continue  # drafts of killed jobs and seals: no reader takes them for results
            yield path


def _digest(path: Path, times: list[str]) -> str:
    raw = path.read_bytes()
    with suppress(ValueError):  # a damaged file: its bytes as they are
        raw = _comparable(path, raw, times)
    return hashlib.sha256(raw).hexdigest()


def _comparable(path: Path, raw: bytes, times: list[str]) -> bytes:
    if path.suffix == ".json":
        raw = json.dumps(_steady(json.loads(raw)), sort_keys=True).encode()
    elif path.name == "log.jsonl":
        raw = json.dumps([_steady(json.loads(line)) for line in raw.decode().splitlines()]).encode()
    elif path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(raw.decode(), newline="")))
        raw = json.dumps(_steady(rows)).encode()
    elif path.suffix in {".txt", ".html", ".tex", ".md"}:
        raw = _without_times(raw.decode(), times).encode()
    return raw


def _steady(value: Any) -> Any:
    """Return plain data without the volatile keys."""
    if isinstance(value, dict):
        return {k: _steady(v) for k, v in value.items() if k not in VOLATILE and not str(k).endswith("_ms")}
    if isinstance(value, list):
        return [_steady(entry) for entry in value]
    return value


def _times(tree: Path) -> Iterator[str]:
    """Yield every form in which a page shows a measured time of this tree."""
    for path in (tree / RESULTS / "efficiency").glob("*.json"):
        try:
            milliseconds = float(json.loads(path.read_bytes())["prefill_ms"])
        except (ValueError, KeyError):
            continue
        yield from (f"{milliseconds:.1f}", f"{milliseconds:.2f}", f"{milliseconds:.6g}")


def _without_times(text: str, times: list[str]) -> str:
    """Return a page with measured times, dates, rates and the width of columns taken out."""
    for form in sorted(times, key=len, reverse=True):
        text = text.replace(form, "<ms>")
    kept = [line for line in text.splitlines() if not re.search(r"seconds|20\d\d-\d\d-\d\d|tokens/s|[Cc]ommit", line)]
    return re.sub(r"[-\s]+", " ", " ".join(kept))

"""The tidy data behind the site's tables and figures, as CSV beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from visiontokens.analyze import collect
from visiontokens.provenance import atomic_write, read_json
from visiontokens.report.book import Book
from visiontokens.report.site.overview import LEDGER
from visiontokens.report.site.shell import copy

HEADLINES = ("summary.csv", "metrics.json", "numbers.json", "numbers.tex", "summary.txt")
"""Files of `paper/` that go along."""


def write_data(book: Book, results: Path, out: Path) -> set[str]:
    """Write `<out>/data/*.csv` and copy the headline numbers; return the stems of what has lines."""
    frames = {
        "scores": book.scores,
        "efficiency": book.efficiency.reset_index(),
        "training": book.records,
        "published": book.published,
        "validation": _validation(results),
        **{f"redundancy-{name}": collect.redundancy(results, name) for name in collect.REDUNDANCY_COLUMNS},
    }
    for name, frame in frames.items():
        if len(frame):
            with atomic_write(out / "data" / f"{name}.csv") as handle:
                frame.to_csv(handle, index=False, lineterminator="\n")
    for name in HEADLINES:
        if (results / "paper" / name).is_file():
            copy(results / "paper" / name, out / "data" / name)
    if (results / LEDGER).is_file():
        copy(results / LEDGER, out / "data" / LEDGER.name)
    return {name for name, frame in frames.items() if len(frame)}


def _validation(results: Path) -> pd.DataFrame:
    """Return every number of the validation files: columns experiment, seed, part, value."""
    lines: list[tuple[str, int, str, float]] = []
    for path in sorted((results / "validation").glob("*/seed*.json")):
        found = {key: value for key, value in read_json(path).items() if key != "run"}
        seed = int(path.stem.removeprefix("seed"))
        lines += [(path.parent.name, seed, part, value) for part, value in collect.flatten(found)]
    return pd.DataFrame(lines, columns=["experiment", "seed", "part", "value"])


def commits(results: Path) -> list[str]:
    """Return the commits that the run's predictions and weights were made at, with a + where edits were not in it."""
    found: set[str] = set()
    for pattern in ("scores/*/seed*/*.json", "models/*/seed*/*/record.json"):
        for _, _, path in collect.run_files(results, pattern):
            found |= set(_stamps(read_json(path)))
    return sorted(found)


def _stamps(tree: Any) -> list[str]:
    if not isinstance(tree, dict):
        return []
    own = [f"{tree['commit']}{'+' if tree.get('dirty') else ''}"] if tree.get("commit") else []
    return own + [commit for value in tree.values() for commit in _stamps(value)]

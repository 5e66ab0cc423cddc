"""Result files as tidy data frames; whatever was not run is simply absent."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from visiontokens.analyze.reference import ResultError
from visiontokens.provenance import read_json

SCORE_COLUMNS = ["experiment", "seed", "benchmark", "metric", "value", "ci_low", "ci_high", "se", "n"]
REDUNDANCY_COLUMNS = {
    "curve": ["layer", "stride", "kept", "benchmark", "value", "ci_low", "ci_high", "n"],
    "attention": ["layer", "target", "attention"],
    "similarity": ["level", "offset", "distance", "mean", "std"],
    "probe": ["level", "target", "accuracy"],
}


def scores(results: Path) -> pd.DataFrame:
    """Return one line per experiment, seed and benchmark from `scores/<experiment>/seed<k>/<benchmark>.json`.

    Raises:
        ResultError: a file lacks a field or names another benchmark than its path.
    """
    rows = []
    for path in sorted(results.glob("scores/*/seed*/*.json")):
        found = read_json(path)
        row = {
            "experiment": path.parents[1].name,
            "seed": int(path.parent.name.removeprefix("seed")),
            "benchmark": path.stem,
            **{key: _field(found, key, path) for key in ("metric", "value", "n")},
            **{key: found.get(key) for key in ("ci_low", "ci_high", "se")},
        }
        if found.get("benchmark", path.stem) != path.stem:
            raise ResultError(f"{path}: key 'benchmark': found {found['benchmark']!r}, expected {path.stem!r}")
        rows.append(row)
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def parts(results: Path) -> pd.DataFrame:
    """Return the benchmarks' numeric sub-scores: columns experiment, seed, benchmark, part, value."""
    rows = []
    for path in sorted(results.glob("scores/*/seed*/*.json")):
        for part, value in flatten(read_json(path).get("parts", {})):
            rows.append((path.parents[1].name, int(path.parent.name.removeprefix("seed")), path.stem, part, value))
    return pd.DataFrame(rows, columns=["experiment", "seed", "benchmark", "part", "value"])


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    """Yield `("a/b", 1.0)` for every number in a nested dictionary."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flatten(value, f"{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)


def efficiency(results: Path) -> pd.DataFrame:
    """Return one line per experiment with the scalar fields of `efficiency/<experiment>.json`."""
    rows = []
    for path in sorted(results.glob("efficiency/*.json")):
        found = read_json(path)
        for key in ("tokens_total", "tokens_mean", "compression_ratio", "prefill_flops", "prefill_ms"):
            _field(found, key, path)
        scalars = {k: v for k, v in found.items() if not isinstance(v, dict | list)}
        rows.append({**scalars, "experiment": path.stem})
    frame = pd.DataFrame(rows)
    return frame if rows else pd.DataFrame(columns=["experiment", "tokens_total", "tokens_mean", "prefill_ms"])


def training_logs(results: Path) -> pd.DataFrame:
    """Return the per-step training logs, long form: experiment, seed, stage, step, loss and what else was logged.

    Raises:
        ResultError: a line is not a JSON object.
    """
    frames = []
    for path in sorted(results.glob("models/*/seed*/*/log.jsonl")):
        rows = _read_jsonl(path)
        seed = int(path.parents[1].name.removeprefix("seed"))
        frames.append(pd.DataFrame(rows).assign(experiment=path.parents[2].name, seed=seed, stage=path.parent.name))
    if not frames:
        return pd.DataFrame(columns=["experiment", "seed", "stage", "step", "loss"])
    return pd.concat(frames, ignore_index=True)


def training_records(results: Path) -> pd.DataFrame:
    """Return the scalar fields of every `models/<experiment>/seed<k>/<stage>/record.json`."""
    rows = []
    for path in sorted(results.glob("models/*/seed*/*/record.json")):
        found = {k: v for k, v in read_json(path).items() if not isinstance(v, dict | list)}
        seed = int(path.parents[1].name.removeprefix("seed"))
        rows.append({**found, "experiment": path.parents[2].name, "seed": seed, "stage": path.parent.name})
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["experiment", "seed", "stage"])


def redundancy(results: Path, name: str) -> pd.DataFrame:
    """Return one of the redundancy tables (`curve`, `attention`, `similarity`, `probe`); empty if it was not run.

    Raises:
        ResultError: the file lacks a column.
    """
    wanted = REDUNDANCY_COLUMNS[name]
    path = results / "redundancy" / f"{name}.csv"
    if not path.exists():
        return pd.DataFrame(columns=wanted)
    frame = pd.read_csv(path)
    missing = [column for column in wanted if column not in frame]
    if missing:
        raise ResultError(f"{path}: found columns {list(frame.columns)}, expected also {missing}")
    return frame


def experiments(path: Path = Path("config/experiments.tsv")) -> pd.DataFrame:
    """Return the experiment table as text, in its order, with `tables` as lists like `["volta-2", "volta-3"]`."""
    with path.open(encoding="utf-8", newline="") as handle:
        lines = [cells for cells in csv.reader(handle, delimiter="\t") if cells and not cells[0].startswith("#")]
    frame = pd.DataFrame(lines[1:], columns=lines[0])
    frame["tables"] = [text.split(",") if text else [] for text in frame["tables"]]
    return frame


def benchmarks(path: Path = Path("config/benchmarks.tsv")) -> pd.DataFrame:
    """Return the benchmark table, indexed by name, with `divisor` and `chance` as numbers."""
    frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).set_index("name")
    return frame.assign(divisor=frame["divisor"].astype(float), chance=frame["chance"].astype(float))


def _field(found: dict[str, Any], key: str, path: Path) -> object:
    if key not in found:
        raise ResultError(f"{path}: key '{key}': found {sorted(found)}, expected it among them")
    return found[key]


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as err:
            raise ResultError(f"{path}:{number}: found {line[:60]!r}, expected a JSON object") from err
        if not isinstance(row, dict):
            raise ResultError(f"{path}:{number}: found {line[:60]!r}, expected a JSON object")
        rows.append(row)
    return rows

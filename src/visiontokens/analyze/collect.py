"""Result files as tidy data frames; whatever was not run is simply absent.

Runs of several targets lie side by side. Settings beside the results say which of them count: by default those of
`<results>/config.yaml`, which the workflow writes; without that file all do.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from visiontokens.analyze.reference import ResultError, read_csv
from visiontokens.config import load_config, load_experiments, seeds_of
from visiontokens.provenance import read_json, read_text

SCORE_COLUMNS = ["experiment", "seed", "benchmark", "metric", "value", "ci_low", "ci_high", "se", "n"]
REDUNDANCY_COLUMNS = {
    "curve": ["layer", "stride", "kept", "benchmark", "value", "ci_low", "ci_high", "n"],
    "attention": ["layer", "target", "attention"],
    "similarity": ["level", "offset", "distance", "mean", "std"],
    "probe": ["level", "target", "accuracy"],
}


def run_files(results: Path, pattern: str, settings: Path | None = None) -> Iterator[tuple[str, int, Path]]:
    """Yield (experiment, seed, path) for the files of runs that count, sorted.

    Args:
        results: folder of one scale.
        pattern: below it, with experiment and seed as its second and third part: `scores/*/seed*/gqa.json`.
        settings: whose rows and seeds count; default `<results>/config.yaml`.
    """
    settings = settings or results / "config.yaml"
    chosen = _runs(settings, settings.stat().st_mtime_ns) if settings.is_file() else None
    for path in sorted(results.glob(pattern)):
        _, experiment, number, *_ = path.relative_to(results).parts
        seed = int(number.removeprefix("seed"))
        if chosen is None or (experiment, seed) in chosen:
            yield experiment, seed, path


@lru_cache(maxsize=4)
def _runs(settings: Path, changed: int) -> frozenset[tuple[str, int]]:
    """Return the runs that settings ask for; `changed` is the file's time, so that a new one is read again."""
    config = load_config(settings)
    rows = load_experiments(config)
    return frozenset((name, seed) for name in rows for seed in seeds_of(config, rows, name))


def scores(results: Path, settings: Path | None = None) -> pd.DataFrame:
    """Return one line per experiment, seed and benchmark from `scores/<experiment>/seed<k>/<benchmark>.json`.

    What a stand-in "judged" is left out: it tries out the pipeline and is no result (`is_result`).

    Raises:
        ResultError: a file lacks a field or names another benchmark than its path.
    """
    rows = []
    for experiment, seed, path in run_files(results, "scores/*/seed*/*.json", settings):
        found = _object(path)
        if not is_result(found):
            continue
        row = {
            "experiment": experiment,
            "seed": seed,
            "benchmark": path.stem,
            **{key: _field(found, key, path) for key in ("metric", "value", "n")},
            **{key: found.get(key) for key in ("ci_low", "ci_high", "se")},
        }
        if found.get("benchmark", path.stem) != path.stem:
            raise ResultError(f"{path}: key 'benchmark': found {found['benchmark']!r}, expected {path.stem!r}")
        rows.append(row)
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def is_result(score: dict[str, Any]) -> bool:
    """Return whether a score's JSON object may enter tables, tests and averages: nobody stood in for its judge."""
    return not (score.get("judge") or {}).get("stand_in", False)


def parts(results: Path) -> pd.DataFrame:
    """Return the benchmarks' numeric sub-scores: columns experiment, seed, benchmark, part, value."""
    rows = []
    for experiment, seed, path in run_files(results, "scores/*/seed*/*.json"):
        found = _object(path)
        if is_result(found):
            rows += [(experiment, seed, path.stem, part, value) for part, value in flatten(found.get("parts", {}))]
    return pd.DataFrame(rows, columns=["experiment", "seed", "benchmark", "part", "value"])


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    """Yield `("a/b", 1.0)` for every number in a nested dictionary."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flatten(value, f"{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, float(value)


def spent_tokens(results: Path, settings: Path | None = None) -> dict[str, float]:
    """Return the mean vision tokens of an answer for the experiments whose method decides on them image by image.

    The scores repeat what the predictions counted (`predicted_vision_tokens`): the mean over all questions of all
    benchmarks and seeds. Arguments are those of `run_files`.
    """
    sums: dict[str, list[float]] = {}
    for experiment, _, path in run_files(results, "scores/*/seed*/*.json", settings):
        found = _object(path)
        mean = (found.get("predicted_vision_tokens") or {}).get(path.stem)
        if mean is not None:
            total = sums.setdefault(experiment, [0.0, 0.0])
            total[0] += mean * found["n"]
            total[1] += found["n"]
    return {experiment: tokens / questions for experiment, (tokens, questions) in sums.items() if questions}


def efficiency(results: Path, spent: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Return one line per experiment with the scalar fields of `efficiency/<experiment>.json`.

    Args:
        results: folder with `efficiency/`.
        spent: `spent_tokens`; a method that states an expected number only is counted with what it spent: tokens,
            compression ratio and the image's cache rows. FLOPs and times stay those of the declared number, which
            becomes the column `tokens_declared`.
    """
    rows = []
    for path in sorted(results.glob("efficiency/*.json")):
        found = _object(path)
        for key in ("tokens_total", "tokens_mean", "compression_ratio", "prefill_flops", "prefill_ms"):
            _field(found, key, path)
        scalars = {k: v for k, v in found.items() if not isinstance(v, dict | list)}
        if spent and path.stem in spent:
            scalars |= _as_spent(scalars, spent[path.stem])
        rows.append({**scalars, "experiment": path.stem})
    frame = pd.DataFrame(rows)
    return frame if rows else pd.DataFrame(columns=["experiment", "tokens_total", "tokens_mean", "prefill_ms"])


def _as_spent(declared: Mapping[str, Any], tokens: float) -> dict[str, Any]:
    """Return the fields of a cost record that are linear in the tokens of a layer, at a measured number of them."""
    ratio = tokens / declared["tokens_mean"]
    linear = ("tokens_mean", "tokens_total", "kv_tokens_mean", "kv_bytes_image")
    changed = {key: declared[key] * ratio for key in linear if key in declared}
    if {"kv_bytes", "kv_bytes_image"} <= declared.keys():
        changed["kv_bytes"] = declared["kv_bytes"] + (ratio - 1) * declared["kv_bytes_image"]
    compression = declared["compression_ratio"] / ratio
    return {**changed, "compression_ratio": compression, "tokens_declared": declared["tokens_mean"]}


def training_logs(results: Path) -> pd.DataFrame:
    """Return the per-step training logs, long form: experiment, seed, stage, step, loss and what else was logged.

    Raises:
        ResultError: a line is not a JSON object.
    """
    frames = []
    for experiment, seed, path in run_files(results, "models/*/seed*/*/log.jsonl"):
        rows = _read_jsonl(path)
        frames.append(pd.DataFrame(rows).assign(experiment=experiment, seed=seed, stage=path.parent.name))
    if not frames:
        return pd.DataFrame(columns=["experiment", "seed", "stage", "step", "loss"])
    return pd.concat(frames, ignore_index=True)


def training_records(results: Path, settings: Path | None = None) -> pd.DataFrame:
    """Return the scalar fields of every `models/<experiment>/seed<k>/<stage>/record.json`."""
    rows = []
    for experiment, seed, path in run_files(results, "models/*/seed*/*/record.json", settings):
        found = {k: v for k, v in _object(path).items() if not isinstance(v, dict | list)}
        rows.append({**found, "experiment": experiment, "seed": seed, "stage": path.parent.name})
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
    frame = read_csv(path)
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
    frame = read_csv(path, sep="\t", dtype=str, keep_default_na=False).set_index("name")
    return frame.assign(divisor=frame["divisor"].astype(float), chance=frame["chance"].astype(float))


def _object(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise ResultError(f"{path}: found {type(found).__name__}, expected an object")
    return found


def _field(found: dict[str, Any], key: str, path: Path) -> object:
    if key not in found:
        raise ResultError(f"{path}: key '{key}': found {sorted(found)}, expected it among them")
    return found[key]


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as err:
            raise ResultError(f"{path}:{number}: found {line[:60]!r}, expected a JSON object") from err
        if not isinstance(row, dict):
            raise ResultError(f"{path}:{number}: found {line[:60]!r}, expected a JSON object")
        rows.append(row)
    return rows

"""Experiments against the baseline, question by question: differences, their intervals, and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from visiontokens.analyze.collect import is_result, run_files
from visiontokens.analyze.stats import compare, holm
from visiontokens.evaluate.score import SCORERS, Record, questions_path, read_score

COLUMNS = (
    "experiment", "benchmark", "difference", "low", "high", "se", "p_value", "adjusted", "test", "questions", "seeds",
)  # fmt: skip


def against(
    results: Path, baseline: str, experiments: Sequence[str], *, resamples: int = 1000, settings: Path | None = None
) -> pd.DataFrame:
    """Compare experiments with `baseline` on every benchmark that both were scored on; one line a pair.

    Seeds that both have are taken together: the answers of all seeds to one question belong to one cluster.
    `difference` is experiment minus baseline in the metric's unit with its 95% interval and standard error; `p_value`
    is of the exact McNemar test or the cluster permutation test (`test`), `adjusted` after Holm over the benchmarks of
    one experiment. `settings`: whose runs count, as in `collect.run_files`.

    Raises:
        ValueError: the two hold different questions.
    """
    theirs = {benchmark: _by_seed(results, baseline, benchmark, settings) for benchmark in SCORERS}
    lines = [
        line
        for name in experiments
        if name != baseline
        for line in _adjusted(_lines(results, name, theirs, resamples, settings))
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _adjusted(lines: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    found = list(lines)
    for line, value in zip(found, holm([line["p_value"] for line in found]), strict=True):
        line["adjusted"] = value
    return found


def _lines(
    results: Path, name: str, theirs: dict[str, dict[int, list[Record]]], resamples: int, settings: Path | None
) -> Iterator[dict[str, Any]]:
    for benchmark, scorer in SCORERS.items():
        ours = _by_seed(results, name, benchmark, settings)
        seeds = sorted(set(ours) & set(theirs[benchmark]))
        if not seeds:
            continue
        first, second = ([row for seed in seeds for row in rows[seed]] for rows in (ours, theirs[benchmark]))
        found = compare(first, second, scorer.statistic, resamples=resamples)
        yield {
            "experiment": name,
            "benchmark": benchmark,
            "difference": found.difference.value,
            "low": found.difference.low,
            "high": found.difference.high,
            "se": found.difference.se,
            "p_value": found.p_value,
            "test": found.test,
            "questions": found.n // len(seeds),
            "seeds": len(seeds),
        }


def _by_seed(results: Path, experiment: str, benchmark: str, settings: Path | None) -> dict[int, list[Record]]:
    """Return seed -> per-question records, ids made unique over seeds; scores that came without them are left out."""
    found = {}
    for _, seed, path in run_files(results, f"scores/{experiment}/seed*/{benchmark}.json", settings):
        if not questions_path(path).exists():
            continue
        score, records = read_score(path)
        if not is_result(score):
            continue
        found[seed] = [{**record, "question_id": f"{seed}/{record['question_id']}"} for record in records]
    return found

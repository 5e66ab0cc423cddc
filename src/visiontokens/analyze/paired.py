"""Experiments against one another, question by question: differences, their intervals, and tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from visiontokens.analyze.collect import is_result, run_files
from visiontokens.analyze.significance import holm
from visiontokens.analyze.stats import Estimate, compare, with_seeds
from visiontokens.evaluate.score import SCORERS, Record, questions_path, read_score

COLUMNS = (
    "experiment", "baseline", "benchmark", "difference", "low", "high", "se", "questions_se", "gaps", "detectable",
    "p_value", "adjusted", "test", "questions", "seeds",
)  # fmt: skip


def against(
    results: Path,
    baseline: str,
    experiments: Sequence[str],
    *,
    benchmarks: Sequence[str] | None = None,
    resamples: int = 1000,
    settings: Path | None = None,
    test: bool = True,
) -> pd.DataFrame:
    """Compare experiments with `baseline` on every benchmark that both were scored on; one line a pair.

    `difference` is experiment minus baseline in the metric's unit, mean over the seeds that both have, with its 95%
    interval, standard error (`se`; of it `questions_se` from question sampling), every seed's own difference (`gaps`)
    and the difference that a test at 5% finds four times in five (`detectable`). `p_value` is of `test`
    (`stats.compare`), `adjusted` after Holm over the benchmarks of one experiment.

    Args:
        results: folder of one scale.
        baseline: experiment that the others are compared with.
        experiments: the others.
        benchmarks: on which; default all.
        resamples: of the bootstrap.
        settings: whose runs count, as in `collect.run_files`.
        test: compute p-values (else NaN).

    Raises:
        ValueError: the two hold different questions.
    """
    chosen = [name for name in SCORERS if benchmarks is None or name in benchmarks]
    theirs = {benchmark: _by_seed(results, baseline, benchmark, settings) for benchmark in chosen}
    lines = []
    for name in experiments:
        if name != baseline:
            found = list(_lines(results, name, theirs, settings, resamples=resamples, test=test))
            lines += _adjusted(found) if test else found
    return pd.DataFrame([{"baseline": baseline, **line} for line in lines], columns=list(COLUMNS))


def mean_over(lines: pd.DataFrame, divisors: pd.Series) -> Estimate:
    """Return the mean over benchmarks of one pair's differences, each divided so that it is out of 100.

    Benchmarks hold different questions, so their question errors are independent; a seed's difference is the mean of
    its differences, so what a seed does to all benchmarks alike stays in the spread.

    Args:
        lines: of `against`, one per benchmark.
        divisors: of the published values, by benchmark.

    Raises:
        ValueError: there are no lines, or the benchmarks have different seeds.
    """
    rows = lines.to_dict("records")
    if not rows or len({row["seeds"] for row in rows}) > 1:
        raise ValueError(f"a mean over {len(rows)} benchmarks: expected at least one, and the same seeds for all")
    by = np.array([float(divisors[row["benchmark"]]) for row in rows])
    gaps = (np.array([row["gaps"] for row in rows]) / by[:, None]).mean(axis=0)
    questions = np.sqrt(((np.array([row["questions_se"] for row in rows]) / by) ** 2).sum()) / len(rows)
    return with_seeds(gaps.tolist(), float(questions))


def _adjusted(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for line, value in zip(lines, holm([line["p_value"] for line in lines]), strict=True):
        line["adjusted"] = value
    return lines


def _lines(
    results: Path,
    name: str,
    theirs: Mapping[str, dict[int, list[Record]]],
    settings: Path | None,
    *,
    resamples: int,
    test: bool,
) -> Iterator[dict[str, Any]]:
    for benchmark, baseline in theirs.items():
        ours = _by_seed(results, name, benchmark, settings)
        seeds = sorted(set(ours) & set(baseline))
        if not seeds:
            continue
        first, second = ([side[seed] for seed in seeds] for side in (ours, baseline))
        found = compare(first, second, SCORERS[benchmark].statistic, resamples=resamples, test=test)
        low, high = found.difference.interval()
        yield {
            "experiment": name,
            "benchmark": benchmark,
            "difference": found.difference.value,
            "low": low,
            "high": high,
            "se": found.difference.se,
            "questions_se": found.difference.questions,
            "gaps": found.gaps,
            "detectable": found.difference.detectable,
            "p_value": found.p_value,
            "test": found.test,
            "questions": found.n,
            "seeds": len(seeds),
        }


def _by_seed(results: Path, experiment: str, benchmark: str, settings: Path | None) -> dict[int, list[Record]]:
    """Return seed -> per-question records; scores that came without them are left out."""
    found = {}
    for _, seed, path in run_files(results, f"scores/{experiment}/seed*/{benchmark}.json", settings):
        if questions_path(path).exists():
            score, records = read_score(path)
            if is_result(score):
                found[seed] = records
    return found

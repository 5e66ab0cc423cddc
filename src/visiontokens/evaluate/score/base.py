"""What every scorer returns, and metrics as functions of per-question records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from visiontokens.data.benchmarks import Example
from visiontokens.evaluate.bootstrap import Clusters, Combine, FloatArray, Interval, bootstrap_interval, cluster

Record = dict[str, Any]
"""One scored question: question_id, group, stratum, correct (0 … 1), prediction, and what the metric needs."""


@dataclass(frozen=True)
class Statistic:
    """A metric computed from per-question records: `combine(sum over questions of terms)`.

    It can be recomputed on any multiset of records, so a bootstrap that repeats whole groups gets the right value
    also where the metric is not a mean (POPE's F1, MME's sum of ratios, MMBench's circular accuracy).

    Attributes:
        terms: from one record to its `K` contributions.
        combine: from sums `[..., K]` to the metric `[...]` in its published unit.
    """

    terms: Callable[[Record], Sequence[float]]
    combine: Combine

    def matrix(self, records: Sequence[Record]) -> FloatArray:
        """Return the contributions `[n, K]` of `records`."""
        return np.array([self.terms(record) for record in records], dtype=np.float64)

    def __call__(self, records: Sequence[Record]) -> float:
        """Return the metric over `records`; repeated records count repeatedly."""
        return float(self.combine(self.matrix(records).sum(axis=0)))

    def interval(
        self, records: Sequence[Record], resamples: int = 2000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """Return the metric with its clustered bootstrap interval."""
        return bootstrap_interval(
            self.matrix(records),
            self.combine,
            clusters_of(records),
            resamples=resamples,
            level=level,
            seed=seed,
        )


def clusters_of(records: Sequence[Record]) -> Clusters:
    """Return the clusters of `records`: by `group`, within `stratum` where records have one."""
    return cluster([record["group"] for record in records], [record.get("stratum", "") for record in records])


def ratio(sums: FloatArray) -> FloatArray:
    """Map sums `[..., 2]` of (gained, possible) to a percentage; nothing possible gives 0."""
    return 100.0 * safe_divide(sums[..., 0], sums[..., 1])


def safe_divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide, with 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator, dtype=np.float64), where=denominator != 0)


MEAN_CORRECT = Statistic(terms=lambda record: (record["correct"], 1.0), combine=ratio)
"""Mean of `correct` in percent."""


@dataclass(frozen=True)
class Score:
    """The result of scoring one prediction file.

    Attributes:
        benchmark: registry name.
        metric: what `value` is, in words.
        value: the published number, in its published unit.
        parts: further numbers by name (per category or type).
        per_question: one record per question, in the benchmark's order.
        statistic: recomputes `value` from any records of this benchmark.
        policy: keyword options of the scorer that change the number.
        policy_name: name of the options, "official" or "correct".
        policies: value under each policy; empty where the two agree by construction.
        other_parts: parts that differ under the other policy, with their values there.
        judge: who judged (id, whether a stand-in, dates); none where answers are compared by rule.
    """

    benchmark: str
    metric: str
    value: float
    parts: dict[str, float]
    per_question: list[Record]
    statistic: Statistic
    policy: dict[str, Any] = field(default_factory=dict)
    policy_name: str = ""
    policies: dict[str, float] = field(default_factory=dict)
    other_parts: dict[str, float] = field(default_factory=dict)
    judge: dict[str, Any] | None = None

    @property
    def n(self) -> int:
        """Number of questions."""
        return len(self.per_question)


def record_of(example: Example, prediction: str, correct: float, **extra: object) -> Record:
    """Return the record of one question; `extra` adds what the metric or a reader needs."""
    return {
        "question_id": example.question_id,
        "group": example.group,
        "correct": float(correct),
        "prediction": prediction,
        **extra,
    }


def means_by(records: Sequence[Record], key: str, prefix: str) -> dict[str, float]:
    """Return the mean of `correct` in percent for each value of `key`, named `prefix/value`, sorted."""
    values: dict[str, list[float]] = {}
    for record in records:
        values.setdefault(str(record[key]), []).append(record["correct"])
    return {f"{prefix}/{name}": 100.0 * float(np.mean(values[name])) for name in sorted(values)}


def text_for(example: Example, predictions: Mapping[str, str]) -> str:
    """Return the answer to an example.

    Raises:
        ValueError: there is none.
    """
    try:
        return predictions[example.question_id]
    except KeyError:
        raise ValueError(f"no prediction for question id {example.question_id!r}") from None

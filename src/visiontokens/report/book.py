"""Everything the report draws from, loaded once, and what it derives from it: seed means, averages, training tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from visiontokens.analyze import collect
from visiontokens.analyze.paired import against
from visiontokens.analyze.reference import REFERENCE, reference, reference_rows
from visiontokens.analyze.stats import Z95, Estimate
from visiontokens.compress.schedule import Schedule
from visiontokens.data.benchmarks import BENCHMARKS
from visiontokens.measure.tokens import pooled_tokens, total_tokens

AVERAGE = "average"
BASELINES = ("none", "video-none")
"""Rows with all tokens; a report compares with the one that it has."""


@dataclass(frozen=True)
class Cell:
    """A measured value: mean over seeds, spread over seeds, and half the confidence interval over questions."""

    value: float
    half: float = math.nan
    std: float = math.nan
    seeds: int = 1
    n: int = 0

    @property
    def noise(self) -> float:
        """Half width of a 95% interval for question sampling and, where there are several, the seeds' spread."""
        return self.estimate.half()

    @property
    def estimate(self) -> Estimate:
        """The value with both parts of its uncertainty; a part that is not known counts as 0."""
        questions, spread = (0.0 if math.isnan(x) else x for x in (self.half / Z95, self.std))
        return Estimate(self.value, questions, spread, self.seeds)


@dataclass(frozen=True)
class Book:
    """The published numbers, the experiment and benchmark tables, and the results of one scale in the folder `results`.

    `settings` is the file whose rows and seeds count, where it is not the one beside the results.
    """

    results: Path
    published: pd.DataFrame
    rows: pd.DataFrame
    experiments: pd.DataFrame
    benchmarks: pd.DataFrame
    scores: pd.DataFrame
    efficiency: pd.DataFrame
    records: pd.DataFrame
    schedules: Path
    settings: Path | None = None

    @classmethod
    def load(
        cls,
        results: str | Path,
        config: str | Path = "config",
        reference_dir: str | Path = REFERENCE,
        *,
        part: str = "",
    ) -> Self:
        """Read the results under `results` (e.g. `results/mini`); what was not run is empty.

        Args:
            results: folder of one scale.
            config: folder of the tables of experiments and benchmarks.
            reference_dir: folder of the published numbers.
            part: folder below `results` with settings and costs of its own, whose runs count (`leaderboard`).
        """
        results, config, folder = Path(results), Path(config), Path(reference_dir)
        settings = results / part / "config.yaml" if part else None
        spent = collect.spent_tokens(results, settings)
        return cls(
            results=results,
            published=reference(folder=folder),
            rows=reference_rows(folder),
            experiments=collect.experiments(config / "experiments.tsv").set_index("id"),
            benchmarks=collect.benchmarks(config / "benchmarks.tsv"),
            scores=collect.scores(results, settings),
            efficiency=collect.efficiency(results / part, spent).set_index("experiment"),
            records=collect.training_records(results, settings),
            schedules=config / "schedules",
            settings=settings,
        )

    @cached_property
    def cells(self) -> dict[tuple[str, str], Cell]:
        """Measured values by (experiment, benchmark), in published units, and the average as benchmark `average`."""
        found = {
            (str(name), str(bench)): _over_seeds(group)
            for (name, bench), group in self.scores.groupby(["experiment", "benchmark"], sort=False)
        }
        for name in dict.fromkeys(self.scores["experiment"]):
            average = self.average(str(name), self.averaged)
            if average is not None:
                found[str(name), AVERAGE] = average
        return found

    @property
    def run(self) -> list[str]:
        """Experiments that have scores, in the order of the experiment table, others behind."""
        scored = list(dict.fromkeys(self.scores["experiment"]))
        listed = [name for name in self.experiments.index if name in scored]
        return listed + [name for name in scored if name not in listed]

    @property
    def scored_benchmarks(self) -> list[str]:
        """Benchmarks with at least one score, in the order of the benchmark table."""
        scored = set(self.scores["benchmark"])
        return [name for name in self.benchmarks.index if name in scored]

    @property
    def averaged(self) -> list[str]:
        """Benchmarks that the average is over: the nine about images, or those about videos where no other was run.

        Further ones never count, so that adding one to a run does not change what "average" means.
        """
        groups: dict[bool, list[str]] = {False: [], True: []}
        for name in self.benchmarks.index:
            known = BENCHMARKS.get(str(name))
            if known is None or not known.further:
                groups[known is not None and known.video].append(str(name))
        videos_only = bool(self.scored_benchmarks) and set(self.scored_benchmarks) <= set(groups[True])
        return groups[videos_only]

    def label(self, experiment: str) -> str:
        """Return an experiment's name for tables and figures."""
        return str(self.experiments["label"].get(experiment, experiment))

    def average(self, experiment: str, benchmarks: list[str]) -> Cell | None:
        """Return the mean over benchmarks, each on a scale of 100; none if one of them was not run.

        Its interval takes the benchmarks as independent; its spread is that of the seeds' own averages.
        """
        scores = self.scores[(self.scores["experiment"] == experiment) & self.scores["benchmark"].isin(benchmarks)]
        if scores.empty or scores["benchmark"].nunique() < len(benchmarks):
            return None
        divisor = scores["benchmark"].map(self.benchmarks["divisor"])
        scaled = scores.assign(value=scores["value"] / divisor, half=_half(scores) / divisor)
        per_seed = scaled.groupby("seed")["value"].mean()
        halves = scaled.groupby("benchmark")["half"].mean()
        return Cell(
            value=float(per_seed.mean()),
            half=float(np.sqrt((halves**2).sum()) / len(halves)),
            std=float(per_seed.std()) if len(per_seed) > 1 else math.nan,
            seeds=len(per_seed),
            n=int(scaled[scaled["seed"] == scaled["seed"].iloc[0]]["n"].sum()),
        )

    @cached_property
    def baseline(self) -> str:
        """The row with all tokens that was run; empty if none was."""
        return next((name for name in BASELINES if name in self.run), "")

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """Every row that was run against the baseline, question by question (`paired.against`, without tests)."""
        return against(self.results, self.baseline, self.run, resamples=500, settings=self.settings, test=False)

    def cost(self, experiment: str, key: str) -> float:
        """Return one number of an experiment's efficiency record, NaN if it was not measured."""
        if experiment not in self.efficiency.index or key not in self.efficiency:
            return math.nan
        return float(self.efficiency[key].to_dict()[experiment])

    def training_tokens(self, experiment: str) -> float:
        """Return `#Tokens` (summed over layers) averaged over the training stages; NaN without measured sizes.

        Rows without a stage schedule train with the tokens they are tested with.
        """
        if experiment not in self.efficiency.index:
            return math.nan
        name = self.experiments["schedule"].get(experiment, "")
        if not name:
            return self.cost(experiment, "tokens_total")
        n_vision = int(self.cost(experiment, "vision_tokens"))
        n_layers = int(self.cost(experiment, "layers"))
        schedule = Schedule.from_yaml(self.schedules / f"{name}.yaml")
        layers = [max(0, stage.layer.at(n_layers)) if stage.stride > 1 else 0 for stage in schedule.stages]
        tokens = [
            total_tokens(pooled_tokens(n_vision, n_layers, layer, stage.stride))
            for layer, stage in zip(layers, schedule.stages, strict=True)
        ]
        return float(np.average(tokens, weights=np.diff([0, *schedule.ends(*self._tuning(experiment))])))

    def _tuning(self, experiment: str) -> tuple[int, float]:
        """Return optimizer steps and epochs of the tune stage; before it was trained, round numbers of one epoch."""
        mine = self.records[(self.records["experiment"] == experiment) & (self.records["stage"] == "tune")]
        return (int(mine["steps"].iloc[0]), float(mine["epochs"].iloc[0])) if len(mine) else (10_000, 1.0)

    def training_seconds(self, experiment: str, stage: str = "tune") -> float:
        """Return the wall time of one training stage, mean over seeds; NaN if it was not trained."""
        if "wall_seconds" not in self.records:
            return math.nan
        mine = self.records[(self.records["experiment"] == experiment) & (self.records["stage"] == stage)]
        return float(mine["wall_seconds"].mean()) if len(mine) else math.nan


def _half(scores: pd.DataFrame) -> pd.Series:
    """Return half the confidence intervals' widths."""
    low, high = (pd.to_numeric(scores[name], errors="coerce") for name in ("ci_low", "ci_high"))
    return (high - low) / 2


def _over_seeds(group: pd.DataFrame) -> Cell:
    values = group["value"].astype(float)
    return Cell(
        value=float(values.mean()),
        half=float(_half(group).mean()),
        std=float(values.std()) if len(values) > 1 else math.nan,
        seeds=len(values),
        n=int(group["n"].iloc[0]),
    )

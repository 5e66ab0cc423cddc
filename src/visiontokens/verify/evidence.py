"""The results of one scale as the tests ask for them: paired differences, costs, curves, convergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import pandas as pd

from visiontokens.analyze import collect
from visiontokens.analyze.errata import errata
from visiontokens.analyze.gate import gate, read_validations
from visiontokens.analyze.paired import against, mean_over
from visiontokens.analyze.reference import REFERENCE
from visiontokens.analyze.stats import Estimate
from visiontokens.report.book import BASELINES, Book
from visiontokens.verify.claims import Claim, cited
from visiontokens.verify.verdict import ABSENT


class NotRun(Exception):
    """What a test needs is not among the results; the message says what."""


@dataclass(frozen=True)
class Difference:
    """First minus second, mean over benchmarks, and the number of questions it rests on."""

    estimate: Estimate
    questions: int


@dataclass
class Evidence:
    """What the results of one scale say; whatever was not run raises `NotRun`."""

    book: Book
    reference: Path = REFERENCE
    resamples: int = 1000
    _known: dict[tuple[str, str, str], pd.DataFrame] = field(default_factory=dict)

    @classmethod
    def load(cls, results: Path, config: Path, reference: Path = REFERENCE) -> Self:
        """Read the results under `results`; `config` is the folder of the tables."""
        return cls(Book.load(results, config, reference), reference)

    @cached_property
    def errata(self) -> pd.DataFrame:
        """Every printed number that can be recomputed."""
        return errata(self.reference)

    @cached_property
    def unconverged(self) -> dict[str, str]:
        """Rows that are ahead of the baseline on the validation split beyond noise, and how far."""
        runs = read_validations(self.book.results / "validation")
        rows = [row for base in BASELINES for row in gate(runs, base).to_dict("records")]
        behind = [row for row in rows if row["verdict"] == "baseline behind"]
        return {row["experiment"]: f"{row['difference']:.1f} points, seeds: {row['seeds']}" for row in behind}

    def label(self, experiment: str) -> str:
        """Return an experiment's name for readers."""
        return self.book.label(experiment)

    def benchmarks(self, claim: Claim, chosen: Sequence[str] = ()) -> list[str]:
        """Return the benchmarks that a claim is tested on: the chosen, or the cited columns that were scored.

        Where a table's columns are not among the scored ones (unreadable, or other benchmarks), those that the report
        averages.
        """
        scored = self.book.scored_benchmarks
        if chosen:
            absent = [name for name in chosen if name not in scored]
            if absent:
                raise NotRun(f"{', '.join(absent)} not scored at this scale")
            return list(chosen)
        columns = {
            column
            for place in claim.cites
            for column in cited(self.book.published, claim.paper, place)["column"].unique()
        }
        found = [name for name in scored if name in columns] or [n for n in self.book.averaged if n in scored]
        if not found:
            raise NotRun("no benchmark of this claim was scored at this scale")
        return found

    def difference(self, first: str, second: str, benchmarks: Sequence[str]) -> Difference:
        """Return the mean difference over benchmarks (MME / 20) on the same questions.

        Raises:
            NotRun: a row or benchmark has no scores with questions, or the baseline is not converged.
        """
        absent = [name for name in (first, second) if name not in self.book.run]
        if absent:
            raise NotRun(ABSENT + ", ".join(absent))
        for base, other in ((first, second), (second, first)):
            if base in BASELINES and other in self.unconverged:
                how = self.unconverged[other]
                raise NotRun(f"the baseline is not converged: {other} is ahead on the validation split ({how})")
        lines = self._lines(first, second)
        lines = lines[lines["benchmark"].isin(benchmarks)]
        lacking = [name for name in benchmarks if name not in set(lines["benchmark"])]
        if lacking:
            raise NotRun(f"no scores by question for {', '.join(lacking)}")
        if lines["seeds"].nunique() > 1:
            raise NotRun(f"{first} or {second} has other seeds on some benchmarks: the run is not complete")
        mean = mean_over(lines, self.book.benchmarks["divisor"])
        return Difference(mean, int(lines["questions"].sum()))

    def _lines(self, first: str, second: str) -> pd.DataFrame:
        key = (first, second, "")
        if key not in self._known:
            self._known[key] = against(
                self.book.results,
                second,
                [first],
                resamples=self.resamples,
                settings=self.book.settings,
                test=False,
            )
        return self._known[key]

    def redundancy(self, name: str) -> pd.DataFrame:
        """Return one of the redundancy tables.

        Raises:
            NotRun: it is not there.
        """
        found = collect.redundancy(self.book.results, name)
        if found.empty:
            raise NotRun(f"redundancy/{name}.csv was not made at this scale")
        return found

"""The search is a job of its own, before everything that runs a searched schedule, and of no other row."""

from __future__ import annotations

import pytest
from planning import Run, job_counts

FIELD = ("--configfile", "config/scales/mini.yaml", "--config", "experiments={only: [gsearch-test, psigmoid-test]}")


def test_one_search_for_each_row_that_asks(snakemake: Run) -> None:
    counts = job_counts(snakemake("-n", *FIELD))
    assert counts["search"] == 2
    assert counts["tune"] == 1, "schedules are searched on the baseline's weights"
    assert counts["predict"] == 3


@pytest.mark.parametrize("target", ["efficiency", "results/mini/predictions/psigmoid-test/seed0/record.json"])
def test_what_runs_a_schedule_waits_for_its_search(snakemake: Run, target: str) -> None:
    counts = job_counts(snakemake("-n", *FIELD, "--", target))
    assert counts["search"] == (2 if target == "efficiency" else 1)


def test_no_other_row_waits_for_a_search(snakemake: Run) -> None:
    only = ("--config", "experiments={only: [gsearch-test, fastv-2-8-test]}")
    target = "results/mini/predictions/fastv-2-8-test/seed0/record.json"
    assert "search" not in job_counts(snakemake("-n", *FIELD[:2], *only, "--", target))

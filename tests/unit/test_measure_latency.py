"""Timing warms up, repeats, and orders its quartiles."""

from __future__ import annotations

import time

import pytest
import torch

from visiontokens.measure.latency import measure_latency

CPU = torch.device("cpu")


def test_runs_warmup_and_repeats():
    calls = []
    timed = measure_latency(lambda: calls.append(1), CPU, repeats=5, warmup=2)
    assert len(calls) == 7
    assert timed.runs == 5


def test_a_sleep_is_seen_and_quartiles_are_ordered():
    timed = measure_latency(lambda: time.sleep(0.004), CPU, repeats=5, warmup=0)
    assert 4.0 <= timed.q25_ms <= timed.median_ms <= timed.q75_ms
    assert timed.iqr_ms == pytest.approx(timed.q75_ms - timed.q25_ms)


def test_median_ignores_one_slow_run():
    naps = iter([0.2, 0, 0, 0, 0])
    assert measure_latency(lambda: time.sleep(next(naps)), CPU, repeats=5, warmup=0).median_ms < 100


@pytest.mark.parametrize(("repeats", "warmup"), [(1, 0), (5, -1)])
def test_senseless_counts_are_refused(repeats, warmup):
    with pytest.raises(ValueError, match="expected at least 2 and 0"):
        measure_latency(lambda: None, CPU, repeats=repeats, warmup=warmup)

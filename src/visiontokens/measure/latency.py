"""Measured time of a call: warm-up, then single runs, reported as median and quartiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Latency:
    """Wall times of repeated runs, in milliseconds."""

    median_ms: float
    q25_ms: float
    q75_ms: float
    runs: int

    @property
    def iqr_ms(self) -> float:
        """Distance between the quartiles."""
        return self.q75_ms - self.q25_ms


def _timed_cpu(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - start)


def _timed_cuda(step: Callable[[], object], device: torch.device) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    with torch.cuda.device(device):
        torch.cuda.synchronize(device)
        start.record()
        step()
        end.record()
        torch.cuda.synchronize(device)
    return float(start.elapsed_time(end))


def timed(step: Callable[[], object], device: torch.device) -> float:
    """Return the milliseconds of one call: CUDA events on a GPU, the monotonic clock elsewhere."""
    return _timed_cuda(step, device) if device.type == "cuda" else _timed_cpu(step)


def timed_in_turns(
    steps: Sequence[Callable[[], object]], device: torch.device, repeats: int, warmup: int
) -> list[list[float]]:
    """Return every step's milliseconds by round, turning the order round so that drift and caches favour none.

    Raises:
        ValueError: no repeats, or a negative warm-up.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats, warmup: found {repeats}, {warmup}, expected at least 1 and 0")
    times: list[list[float]] = [[] for _ in steps]
    order = list(zip(steps, times, strict=True))
    for number in range(warmup + repeats):
        for step, kept in order[:: 1 if number % 2 else -1]:
            taken = timed(step, device)
            if number >= warmup:
                kept.append(taken)
    return times


def measure_latency(step: Callable[[], object], device: torch.device, *, repeats: int = 20, warmup: int = 3) -> Latency:
    """Time `step` on `device`: CUDA events on a GPU, the monotonic clock elsewhere.

    The median and the quartiles are reported because a shared machine only ever adds time.

    Raises:
        ValueError: `repeats` is below 2 (no quartiles) or `warmup` is negative.
    """
    if repeats < 2 or warmup < 0:
        raise ValueError(f"repeats, warmup: found {repeats}, {warmup}, expected at least 2 and 0")
    for _ in range(warmup):
        step()
    times = [timed(step, device) for _ in range(repeats)]
    q25, median, q75 = statistics.quantiles(times, n=4, method="inclusive")
    return Latency(median_ms=median, q25_ms=q25, q75_ms=q75, runs=repeats)

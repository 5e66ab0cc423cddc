"""Peak memory of a call: what the tensor allocator hands out on top of what is alive before it.

Weights are not in it (they are alive before the call) and are reported on their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

METHODS = {"cpu": "torch allocator events (profiler)", "cuda": "torch.cuda.max_memory_allocated"}
"""How the peak was read, by device type; stored beside the number."""


def peak_bytes(step: Callable[[], object], device: torch.device) -> int:
    """Return the largest number of bytes that `step` has allocated and not yet freed.

    On a CPU the profiler lists every allocation and release of PyTorch's allocator, so the number is exact and
    repeatable. (Resident set size is neither, and Python's own tracer does not see tensors.)
    """
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        step()
    results = trace.profiler.kineto_results if trace.profiler else None
    events = [] if results is None else [e for e in results.events() if e.name() == "[memory]"]
    return running_peak(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))


def running_peak(changes: Iterable[int]) -> int:
    """Return the highest partial sum of a sequence of allocations (+) and releases (-), at least 0."""
    now = peak = 0
    for change in changes:
        now += change
        peak = max(peak, now)
    return peak


def parameter_bytes(module: nn.Module) -> int:
    """Return the bytes of a module's parameters, shared ones counted once."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def parameter_count(module: nn.Module) -> int:
    """Return the number of a module's parameters, shared ones counted once."""
    return sum(p.numel() for p in module.parameters())

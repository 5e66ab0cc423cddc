"""Several processes as one run: who am I, sums over all, one decision for all, and a stop on request."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Self

import torch
from torch import distributed

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Asks for a checkpoint and an end: what SLURM sends ahead of a time limit (`--signal`) and on `scancel`."""

log = logging.getLogger(__name__)


class Stopped(RuntimeError):
    """A run ended early on request, after a checkpoint; started again, it continues there."""


@dataclass(frozen=True)
class Processes:
    """This process among those that `torchrun` started."""

    count: int = 1
    rank: int = 0

    @classmethod
    def from_environment(cls) -> Self:
        """Read what `torchrun` sets; alone without it."""
        return cls(int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0")))

    @property
    def first(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0


def connected() -> bool:
    """Tell whether processes are connected (a single one may be, below DeepSpeed)."""
    return distributed.is_available() and distributed.is_initialized()


def total(values: Sequence[float], device: torch.device | str) -> list[float]:
    """Return the sums of the values over all processes; every process must call it."""
    if not connected() or distributed.get_world_size() == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return sums.tolist()


def from_first(value: Any) -> Any:
    """Return the value that the first process has; every process must call it."""
    if not connected() or distributed.get_world_size() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def wait_for_all() -> None:
    """Wait until every process is here."""
    if connected():
        distributed.barrier()


def disconnect() -> None:
    """Leave the group: from here on each process goes its own way."""
    if connected():
        distributed.destroy_process_group()


def pose_as_launched() -> None:
    """Set what `torchrun` would set for a single process, where it did not (DeepSpeed would look for MPI)."""
    if "RANK" in os.environ:
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(alone)


class StopRequest:
    """Notes a signal that asks this process to stop; a context manager around the training loop.

    Further signals change nothing: the way to end a process at once is SIGKILL, after which it loses a few steps only.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: signals go elsewhere
                log.debug("signal %d cannot be caught in this thread", number)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.asked = True

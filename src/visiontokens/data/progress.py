"""Progress as plain log lines: one every few seconds, readable in a terminal and in a workflow's log file."""

from __future__ import annotations

import logging
import threading
import time

BAR = 20
"""Characters of a bar."""


def duration(seconds: float) -> str:
    """Return seconds as `m:ss`, or `h:mm:ss` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Counts units of work and logs a line with the time left, at most every `every` seconds and at the end.

    Args:
        logger: where the lines go, at level INFO.
        label: begins every line.
        total: number of units in all.
        done: units already done when counting starts (a resumed job); they do not enter the speed.
        every: seconds between lines.
    """

    def __init__(self, logger: logging.Logger, label: str, total: int, done: int = 0, every: float = 5.0) -> None:
        self._logger, self._label, self._every = logger, label, every
        self.total, self.done = total, done
        self._first = done
        self._start = self._last = time.monotonic()

    @property
    def seconds_left(self) -> float:
        """Time the rest will take at the mean speed so far."""
        spent = time.monotonic() - self._start
        return (self.total - self.done) * spent / max(1, self.done - self._first)

    def advance(self, units: int, note: str = "") -> None:
        """Add finished units and log a line when it is time; `note` is put into it."""
        self.done += units
        now = time.monotonic()
        if now - self._last < self._every and self.done < self.total:
            return
        self._last = now
        middle = f"  {note}" if note else ""
        self._logger.info(
            "%s %d/%d%s  left %s", self._label, self.done, self.total, middle, duration(self.seconds_left)
        )


class Meter:
    """Counts bytes that several threads fetch and logs a line with a bar, the speed and the time left.

    Args:
        logger: where the lines go, at level INFO.
        label: begins every line.
        total: bytes in all; 0 = not known.
        every: seconds between lines.
    """

    def __init__(self, logger: logging.Logger, label: str, total: int, every: float = 5.0) -> None:
        self._logger, self._label, self._total, self._every = logger, label, total, every
        self._bytes = 0
        self._start = self._last = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        """Add bytes (negative: they were thrown away) and log a line when it is time."""
        with self._lock:
            self._bytes += count
            now = time.monotonic()
            if now - self._last >= self._every:
                self._last = now
                self._logger.info("%s", self.line(now - self._start))

    def line(self, seconds: float) -> str:
        """Return how far it is after so many seconds."""
        speed = max(1.0, self._bytes / max(seconds, 1e-9))
        amount = f"{self._bytes / 1e9:.2f} GB"
        if self._total:
            share = min(1.0, max(0.0, self._bytes / self._total))
            filled = int(BAR * share)
            bar = "#" * filled + "-" * (BAR - filled)
            amount = f"[{bar}] {share:4.0%}  {self._bytes / 1e9:.2f} of {self._total / 1e9:.2f} GB"
        left = f"  left {duration(max(0, self._total - self._bytes) / speed)}" if self._total else ""
        return f"{self._label} {amount}  {speed / 1e6:.1f} MB/s{left}"

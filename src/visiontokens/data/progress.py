"""Progress as plain log lines: one every few seconds, readable in a terminal and in a workflow's log file."""

from __future__ import annotations

import logging
import time


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

"""Files that grow by one JSON object a line, each line with its own checksum: what a crash damages is not read.

A process that dies leaves a torn last line, a full disk or a bad sector anything else. A line counts only if its
checksum holds, so whatever happened, an entry is what was written or it is not there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

log = logging.getLogger(__name__)

DIGEST = 16
"""Hex digits of a line's checksum."""


class JournalBusyError(ValueError):
    """Another process is writing this file."""


def seal(entry: Mapping[str, Any]) -> bytes:
    """Return an entry as one line: the checksum of its JSON form, a space, the JSON."""
    body = json.dumps(entry, ensure_ascii=False).encode()
    return _digest(body) + b" " + body + b"\n"


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:DIGEST].encode()


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the sound entries of a file in order, without changing it; damaged lines are skipped with a warning.

    Raises:
        FileNotFoundError: there is no such file.
    """
    damaged: list[int] = []
    with Path(path).open("rb") as handle:
        for number, raw in enumerate(handle, 1):
            found, body = raw[:DIGEST], raw[DIGEST + 1 : -1]
            if raw[DIGEST:].startswith(b" ") and raw.endswith(b"\n") and found == _digest(body):
                yield json.loads(body)
            else:
                damaged.append(number)
    if damaged:
        log.warning("%s: %d damaged line(s) left out, the first is line %d", path, len(damaged), damaged[0])


class Journal:
    """A journal open for writing by this process only.

    Raises:
        JournalBusyError: on opening, where another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._handle: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = self.path.open("a+b")
        try:
            self._lock(self._handle)
        except JournalBusyError:
            self.close()
            raise
        return self

    def _lock(self, handle: IO[bytes]) -> None:
        """Take the file's lock, which ends with the process, however that ends."""
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JournalBusyError(
                    f"{self.path}: another process is writing it; wait for it or end it, then start again"
                ) from None

    def entries(self) -> list[dict[str, Any]]:
        """Return the sound entries; a torn end is closed so that what is appended next starts a line of its own."""
        handle = self._open()
        handle.flush()
        found = list(read_journal(self.path))
        size = handle.seek(0, os.SEEK_END)
        if size:
            handle.seek(size - 1)
            if handle.read(1) != b"\n":
                handle.write(b"\0\n")  # so that a line that lacked its end only is not read later on, either
        return found

    def append(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Add entries and bring them to disk."""
        handle = self._open()
        handle.write(b"".join(map(seal, entries)))
        handle.flush()
        os.fsync(handle.fileno())

    def clear(self) -> None:
        """Remove all entries."""
        self._open().truncate(0)

    def _open(self) -> IO[bytes]:
        if self._handle is None:
            raise RuntimeError(f"{self.path}: the journal is not open")
        return self._handle

    def close(self) -> None:
        """Close the file and give up its lock."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""One file over HTTP: resumed by range, verified, and renamed only when it is whole.

The bytes go to `.<name>.part` beside the target; a note beside that says which version of the remote file they belong
to, so that what is resumed is never a mixture of two versions.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO

import requests

BLOCK = 1 << 16
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which asking again makes sense."""
LONGEST_WAIT = 600.0
"""Seconds that a server's Retry-After is followed at most."""
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class DownloadError(ValueError):
    """A file could not be fetched, or is not what it should be; the message says which, what was found, what to do."""


class _Again(Exception):
    """This attempt failed in a way that another may not."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Digest:
    """What a file is."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Remote:
    """A file to fetch, and what is known of it beforehand (None or empty = unknown)."""

    url: str
    target: Path
    bytes: int | None = None
    sha256: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def part(self) -> Path:
        """Where the bytes gather."""
        return self.target.with_name(f".{self.target.name}.part")

    @property
    def note(self) -> Path:
        """Which version of the remote file the gathered bytes belong to."""
        return self.target.with_name(f".{self.target.name}.part.json")


@dataclass
class Transport:
    """How files are fetched.

    Attributes:
        attempts: failures in a row, without a new byte, that end a download.
        timeout: seconds without an answer that end an attempt.
        sleep: waits between attempts.
        on_bytes: called with the number of new bytes (negative when bytes are thrown away).
    """

    attempts: int = 8
    timeout: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    on_bytes: Callable[[int], None] = lambda count: None


def digest_of(path: Path) -> Digest:
    """Return size and SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return Digest(path.stat().st_size, digest.hexdigest())


def mismatch(found: Digest, size: int | None, sha256: str) -> str:
    """Return in words how a file differs from what is known of it ('' if it does not)."""
    if size is not None and found.bytes != size:
        return f"found {found.bytes} bytes, expected {size}"
    if sha256 and found.sha256 != sha256:
        return f"found SHA-256 {found.sha256}, expected {sha256}"
    return ""


def download(remote: Remote, transport: Transport) -> Digest:
    """Fetch a file to its target and return what it is.

    A file that is there already is replaced: callers look first. A killed download continues with its part.

    Raises:
        DownloadError: refused, not found, out of attempts, out of disk, in the hands of another process, or the bytes
            that came are not those that were announced; nothing is left at the target then.
        OSError: the disk cannot be written; asking again would not mend that.
    """
    remote.target.parent.mkdir(parents=True, exist_ok=True)
    failures, wrong = 0, 0
    with remote.part.open("ab", buffering=0) as handle, _alone(remote, handle):
        while True:
            before = remote.part.stat().st_size
            try:
                _attempt(remote, handle, transport)
                found = digest_of(remote.part)
                fault = mismatch(found, remote.bytes, remote.sha256)
                if not fault:
                    break
                _discard(remote, handle, transport)
                wrong += 1
                if wrong == 2:
                    raise DownloadError(f"{remote.url}: {fault}, twice: the file there is not the one wanted")
            except (_Again, requests.RequestException) as err:
                failures = 1 if remote.part.stat().st_size > before else failures + 1
                if failures >= transport.attempts:
                    raise DownloadError(f"{remote.url}: given up after {failures} attempts: {err}") from err
                transport.sleep(pause(failures, err.wait if isinstance(err, _Again) else None))
    remote.part.replace(remote.target)
    remote.note.unlink(missing_ok=True)
    return found


def pause(failures: int, wait: float | None = None) -> float:
    """Return the seconds to wait after so many failures: what the server asks for, else twice as long each time."""
    return min(LONGEST_WAIT, wait if wait is not None else 2.0 ** min(failures - 1, 6))


@contextmanager
def _alone(remote: Remote, handle: IO[bytes]) -> Iterator[None]:
    """Hold the part for this process, where the file system can."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        raise DownloadError(f"{remote.part}: another process is fetching this file") from err
    except OSError:
        pass  # no locks on this file system
    yield


def _discard(remote: Remote, handle: IO[bytes], transport: Transport) -> None:
    """Throw away what has gathered."""
    transport.on_bytes(-remote.part.stat().st_size)
    handle.truncate(0)
    remote.note.unlink(missing_ok=True)


def _attempt(remote: Remote, handle: IO[bytes], transport: Transport) -> None:
    """Ask once, for the rest of the file, and append what comes."""
    have, validator = remote.part.stat().st_size, _validator(remote)
    if have and not validator and not remote.sha256:
        _discard(remote, handle, transport)  # nothing would tell whether the rest belongs to it
        have = 0
    headers = {"Accept-Encoding": "identity", **remote.headers}
    if have:
        headers["Range"] = f"bytes={have}-"
        headers |= {"If-Range": validator} if validator else {}
    with requests.get(remote.url, headers=headers, stream=True, timeout=transport.timeout) as answer:
        if answer.status_code == 416:
            total = re.fullmatch(r"bytes \*/(\d+)", answer.headers.get("Content-Range", ""))
            if total and int(total[1]) == have:
                return
            _discard(remote, handle, transport)
            raise _Again("the server has less than was received before")
        _check_status(remote, answer)
        expected = _begin(remote, handle, transport, answer, have)
        for block in answer.iter_content(BLOCK):
            handle.write(block)
            transport.on_bytes(len(block))
        handle.flush()
    got = remote.part.stat().st_size
    if expected is not None and got != expected:
        if got > expected:
            _discard(remote, handle, transport)
        raise _Again(f"the connection ended after {got} of {expected} bytes")


def _validator(remote: Remote) -> str:
    """Return the strong validator of the gathered bytes, if they came from this URL."""
    try:
        note = json.loads(remote.note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(note["validator"]) if note.get("url") == remote.url else ""


def _check_status(remote: Remote, answer: requests.Response) -> None:
    """Raise unless the answer carries the file."""
    status = answer.status_code
    if status in BUSY:
        raise _Again(f"the server answered {status} {answer.reason}", retry_after(answer))
    if status in (401, 403):
        hint = "accept the terms on its page and set HF_TOKEN, or place the file by hand"
        raise DownloadError(f"{remote.url}: the server answered {status} {answer.reason}: {hint}")
    if status not in (200, 206):
        raise DownloadError(f"{remote.url}: the server answered {status} {answer.reason}")
    kind = answer.headers.get("Content-Type", "")
    if kind.startswith("text/html") and not remote.target.name.endswith((".html", ".htm")):
        raise DownloadError(f"{remote.url}: found a web page, expected a file: a login, a notice or a wrong address")


def retry_after(answer: requests.Response) -> float | None:
    """Return the seconds the server asks to wait (it may name a number or a date)."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _begin(remote: Remote, handle: IO[bytes], transport: Transport, answer: requests.Response, have: int) -> int | None:
    """Prepare the part for an answer's body and return the size of the whole file, if it is announced."""
    if answer.status_code == 206:
        match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            _discard(remote, handle, transport)
            raise _Again(f"the server sent {answer.headers.get('Content-Range')!r}, asked for bytes from {have}")
        total = None if match[3] == "*" else int(match[3])
    else:
        if have:
            _discard(remote, handle, transport)
            have = 0
        length = answer.headers.get("Content-Length")
        total = int(length) if length else None
    if remote.bytes is not None and total is not None and total != remote.bytes:
        raise DownloadError(f"{remote.url}: the server announces {total} bytes, expected {remote.bytes}")
    _check_space(remote, total, have)
    etag = answer.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")
    if not have:
        note = {"url": remote.url, "validator": validator}
        remote.note.write_text(json.dumps(note), encoding="utf-8")
    return total


def _check_space(remote: Remote, total: int | None, have: int) -> None:
    """Raise when the rest of the file does not fit on the disk."""
    free = shutil.disk_usage(remote.target.parent).free
    if total is not None and total - have > free:
        raise DownloadError(f"{remote.target}: {total - have} bytes are to come, {free} are free on this disk")

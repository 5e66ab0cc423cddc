"""Checksums that a job leaves beside what it made, checked by the jobs that read it; and folders that one job has.

A flipped bit in cached features or in weights gives no error, only another number. So a job that ends well *seals* its
outputs: `files.seal` in a folder, or `<name>.seal` beside a single file, holds size and CRC-32 of every file, enough
against accidents. What has no seal (files from elsewhere) is not checked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from visiontokens.provenance import read_json, write_json

SUFFIX = ".seal"
IN_FOLDER = f"files{SUFFIX}"
CARD = "README.md"
"""Not sealed: a model's card is written again when its scores are there."""
BLOCK = 1 << 22


class SealError(ValueError):
    """A file is not as the job that made it left it."""


class BusyError(ValueError):
    """Another process works in a folder."""


@contextmanager
def alone(folder: Path, *, write: bool = True) -> Iterator[None]:
    """Keep other processes out of a folder while one works in it; the lock ends with the process, however it ends.

    Two trainings of one run would write one log and one set of checkpoints: a number of neither.

    Args:
        folder: is made if it is not there.
        write: False in all processes of a job but the first, which do not ask.

    Raises:
        BusyError: another process has it.
    """
    if not write:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        if err.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(handle)
            message = f"{folder}: another process is at work here; wait for its end, or end it, and start again"
            raise BusyError(message) from err
        # some network file systems know no locks
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def sealing(*places: Path, write: bool = True) -> Iterator[None]:
    """Seal the outputs of a job, folders or single files, if it ends without an error; an older seal goes first.

    Args:
        *places: folders, of which the files directly inside are sealed, or files.
        write: False in all processes of a job but the first.
    """
    if write:
        for place in places:
            (place / IN_FOLDER).unlink(missing_ok=True) if place.is_dir() else _beside(place).unlink(missing_ok=True)
    yield
    if write:
        for place in places:
            seal(place)


def seal(place: Path) -> Path:
    """Write the seal of a folder or file and return its path."""
    files = sorted(path for path in place.iterdir() if _counts(path)) if place.is_dir() else [place]
    target = place / IN_FOLDER if place.is_dir() else _beside(place)
    write_json(target, {path.name: _measure(path) for path in files})
    return target


def check(place: Path, only: Collection[str] | None = None) -> None:
    """Check a folder or file against its seal, if it has one.

    Args:
        place: what was sealed.
        only: names of the files that are read here; all of the folder by default.

    Raises:
        SealError: a file is missing or differs; the message names it and says how to have it made again.
        ValueError: the seal itself is damaged.
    """
    target = place / IN_FOLDER if place.is_dir() else _beside(place)
    if target.is_file():
        _check(target, only=only)


def check_below(root: Path, skip: Collection[str] = ()) -> None:
    """Check everything below a folder that has a seal, but for files of some suffixes; errors as `check`."""
    for target in sorted(root.rglob(f"*{SUFFIX}")):
        _check(target, skip)


def _check(target: Path, skip: Collection[str] = (), only: Collection[str] | None = None) -> None:
    found = read_json(target)
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise SealError(f"{target}: expected size and checksum of each file")
    again = target.parent if target.name == IN_FOLDER else target.with_suffix("")
    for name, expected in found.items():
        path = target.with_name(name)
        if path.suffix in skip or (only is not None and name not in only):
            continue
        if not path.is_file():
            raise SealError(f"{path}: missing, expected it beside {target}; remove {again} to have it made again")
        if (measured := _measure(path)) != expected:
            raise SealError(
                f"{path}: found {_words(measured)}, expected {_words(expected)} as its job left it ({target}); "
                f"remove {again} to have it made again"
            )


def _beside(file: Path) -> Path:
    return file.with_name(file.name + SUFFIX)


def _counts(path: Path) -> bool:
    """Tell whether a file of a folder is an output: not hidden, no seal, no partial predictions, no model card."""
    hidden = path.name.startswith(".") or path.name == CARD
    return path.is_file() and not hidden and path.suffix not in {SUFFIX, ".partial"}


def _measure(path: Path) -> dict[str, object]:
    crc, size = 0, 0
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            crc, size = zlib.crc32(block, crc), size + len(block)
    return {"bytes": size, "crc32": f"{crc:08x}"}


def _words(entry: dict[str, object]) -> str:
    return f"{entry.get('bytes')} bytes with CRC-32 {entry.get('crc32')}"

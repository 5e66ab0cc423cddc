"""Who made a result, with what, when; and files that are either whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import yaml

VERSIONED = ("torch", "transformers", "numpy", "visiontokens")


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary sibling of `path` for writing and rename it to `path` on success.

    A crash or an exception leaves `path` as it was. Parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, mode, encoding=None if "b" in mode else "utf-8") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException as err:
        Path(name).unlink(missing_ok=True)
        if isinstance(err, OSError) and err.filename is None:
            err.filename = str(path)  # a full disk does not say which file it was
        raise


def reserve(path: Path, size: int) -> None:
    """Take the disk space of a file now: a memory-mapped write to a full disk ends a process without a word.

    Raises:
        OSError: there is too little; the message names the file.
    """
    with path.open("r+b") as handle:
        try:
            os.posix_fallocate(handle.fileno(), 0, size)
        except OSError as err:
            err.filename = str(path)
            raise


def _umask() -> int:
    """Return the process's umask (mkstemp makes private files; results should be readable as usual)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | os.PathLike[str], obj: object) -> None:
    """Write `obj` as indented, key-sorted JSON, atomically."""
    with atomic_write(path) as handle:
        json.dump(obj, handle, indent=1, sort_keys=True, ensure_ascii=False)
        handle.write("\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it is not JSON or not UTF-8; the message names file, line and column.
    """
    path = Path(path)
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as err:
        raise ValueError(f"{path}:{err.lineno}:{err.colno}: not valid JSON: {err.msg}") from err
    except RecursionError as err:
        raise ValueError(f"{path}: not valid JSON: nested too deeply") from err


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a text file in UTF-8, line ends as they are.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it is not UTF-8; the message names file and line.
    """
    raw = Path(path).read_bytes()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8: found byte 0x{raw[err.start]:02x}") from err


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Read a YAML file of plain values.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it is not YAML or not UTF-8; the message names the file.
    """
    try:
        return yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError) as err:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(err).split())}") from err


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes in hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(obj: object) -> str:
    """Return the SHA-256 of an object's canonical JSON form."""
    return hashlib.sha256(json.dumps(obj, sort_keys=True, default=str).encode()).hexdigest()


def _git(*args: str) -> str:
    try:
        done = subprocess.run(["git", *args], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def tracked(*paths: str) -> list[str]:
    """Return the files below `paths` that git tracks in the working directory, sorted; none where there is no git."""
    return sorted(filter(None, _git("ls-files", "--", *paths).splitlines()))


def versions() -> dict[str, str]:
    """Return the versions of the libraries that results depend on; empty for one that is not installed."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def stamp() -> dict[str, Any]:
    """Return what identifies this run: commit, dirty flag, library versions, processor, UTC date.

    Edits of tracked results do not make a state dirty: a run writes them itself.
    """
    return {
        "commit": _git("rev-parse", "--short", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results")),
        "versions": versions(),
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    """Return the CPU's model name (Linux), else what the platform module knows."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

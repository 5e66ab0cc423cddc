"""What came of a registry entry at first: its commit, and size and SHA-256 of every file, enforced from then on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visiontokens.data.download import Digest, DownloadError, digest_of, mismatch
from visiontokens.provenance import read_json, write_json


class Lock:
    """The record of one entry in a JSON file, which is read at once and written after every change.

    Attributes:
        revision: the commit that files of a hub repository were taken from ('' = none yet).
        files: by name, `bytes`, `sha256`, `url` ('' = placed by the user) and `seen` (size and time of the file
            when it was last read, so that an untouched file is not read again).
        whole: True when `files` are all that the hub lists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        content = read_json(path) if path.is_file() else {}
        files = content.get("files", {}) if isinstance(content, dict) else None
        if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
            raise DownloadError(f"{path}: not the record of a download; remove it to have the files checked again")
        self.revision: str = content.get("revision", "")
        self.files: dict[str, dict[str, Any]] = files
        self.whole: bool = content.get("whole", False)

    def expected(self, name: str, size: int | None, sha256: str) -> tuple[int | None, str]:
        """Return size and checksum a file must have: the published ones, else those of the first time."""
        first = self.files.get(name, {})
        return size or first.get("bytes"), sha256 or first.get("sha256", "")

    def check(self, name: str, path: Path, size: int | None = None, sha256: str = "") -> dict[str, Any]:
        """Check a file that is there against what is published or recorded, record it and return what it is.

        Raises:
            DownloadError: it is another file.
        """
        size, sha256 = self.expected(name, size, sha256)
        first = self.files.get(name, {})
        untouched = first.get("seen") == _seen(path)
        found = Digest(first["bytes"], first["sha256"]) if untouched else digest_of(path)
        if fault := mismatch(found, size, sha256):
            raise DownloadError(f"{path}: {fault}; move it away to have it fetched again")
        return self.record(name, path, found, first.get("url", ""))

    def record(self, name: str, path: Path, found: Digest, url: str) -> dict[str, Any]:
        """Record a file and return what it is; `url` says where it was fetched ('' = placed by the user)."""
        plain = {"bytes": found.bytes, "sha256": found.sha256}
        self.files[name] = {**plain, "url": url, "seen": _seen(path)}
        self.write()
        return plain

    def forget(self, name: str) -> None:
        """Drop the record of a file that turned out to be broken."""
        self.files.pop(name, None)
        self.write()

    def write(self) -> None:
        """Write the record, whole or not at all."""
        write_json(self._path, {"revision": self.revision, "files": self.files, "whole": self.whole})


def _seen(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]

"""One registry entry to its place: what is there already is checked, the rest is fetched, verified and extracted.

A published checksum is enforced. Where none is published, the first download is recorded in
`<data>/downloads/<name>.lock.json` and enforced from then on. What a user placed by hand is never changed or removed.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from visiontokens.config import Config
from visiontokens.data.archives import extract
from visiontokens.data.download import Digest, DownloadError, Remote, Transport, digest_of, download, mismatch
from visiontokens.data.hub import headers, list_files
from visiontokens.data.progress import duration
from visiontokens.data.registry import Entry, destination
from visiontokens.provenance import read_json, write_json

log = logging.getLogger(__name__)
FOLDER = "downloads"
"""Below the data folder: receipts, recorded checksums, and archives before they are extracted."""


@dataclass
class Fetcher:
    """Fetches entries under one configuration; `transport` does the talking."""

    config: Config
    transport: Transport

    def fetch(self, entry: Entry, receipt: Path | None = None) -> dict[str, Any]:
        """Bring an entry to its place and return (and write) its receipt: name, version, licence, files.

        Raises:
            DownloadError: it cannot be fetched, is not what was recorded, or must be placed by hand.
            ArchiveError: its archive is broken or unsafe.
        """
        target = destination(entry, self.config)
        if entry.member:
            files = self._unpacked(entry, target)
        elif not entry.source:
            files = _by_hand(entry, target)
        elif entry.hub is not None:
            files = self._from_hub(entry, target)
        else:
            files = {target.name: self._file(entry, Remote(entry.source, target, entry.bytes, entry.sha256))}
        if entry.also:
            _link(self.config.data_dir / entry.also, target)
        result = {"name": entry.name, "version": entry.version, "licence": entry.licence, "files": files}
        write_json(receipt or self.receipt(entry), result)
        return result

    def receipt(self, entry: Entry) -> Path:
        """Return where an entry's receipt lies unless the caller says otherwise."""
        return self.config.data_dir / FOLDER / f"{entry.name}.json"

    def _file(self, entry: Entry, remote: Remote) -> dict[str, Any]:
        """Check or fetch one file against what is published, else against what was recorded first."""
        lock = self.config.data_dir / FOLDER / f"{entry.name}.lock.json"
        known = read_json(lock) if lock.is_file() else {}
        key = remote.target.name if entry.role == "images" else remote.target.as_posix()
        first = known.get(key, {})
        wanted = replace(
            remote, bytes=remote.bytes or first.get("bytes"), sha256=remote.sha256 or first.get("sha256", "")
        )
        if wanted.target.is_file():
            stamp = wanted.target.stat()
            if [stamp.st_size, stamp.st_mtime_ns] == first.get("seen"):
                return {"bytes": first["bytes"], "sha256": first["sha256"]}
            found = digest_of(wanted.target)
            if fault := mismatch(found, wanted.bytes, wanted.sha256):
                raise DownloadError(f"{wanted.target}: {fault}; move it away to have it fetched again")
        else:
            found = download(wanted, self.transport)
        stamp = wanted.target.stat()
        known[key] = _plain(found) | {"url": remote.url, "seen": [stamp.st_size, stamp.st_mtime_ns]}
        write_json(lock, known)
        return _plain(found)

    def _from_hub(self, entry: Entry, target: Path) -> dict[str, Any]:
        """Check or fetch the files of a hub repository; without the hub, what is there is accepted."""
        single = len(entry.files) == 1 and "*" not in entry.files[0]
        place: Callable[[str], Path] = (lambda path: target) if single else (lambda path: target / path)
        try:
            listed = list_files(entry, self.transport)
        except DownloadError:
            there = _matching(entry, target, single)
            if not there:
                raise
            log.warning("%s: the hub cannot be asked; %d files there are taken as they are", entry.name, len(there))
            return {
                name: self._file(entry, Remote(entry.source, path, entry.bytes, entry.sha256 if single else ""))
                for name, path in there.items()
            }
        return {
            file.path: self._file(
                entry,
                Remote(
                    file.url, place(file.path), file.bytes, file.sha256 or (entry.sha256 if single else ""), headers()
                ),
            )
            for file in listed
        }

    def _unpacked(self, entry: Entry, target: Path) -> dict[str, Any]:
        """Fetch and extract an archive, unless what comes out of it is there."""
        if not target.exists():
            archive = (
                self.config.data_dir / FOLDER / "archives" / (entry.files or (entry.source.rsplit("/", 1)[-1],))[0]
            )
            archive = archive.with_name(f"{entry.name}-{archive.name}")
            remote = Remote(entry.source, archive, entry.bytes, entry.sha256)
            if entry.hub is not None:
                file = list_files(entry, self.transport)[0]
                remote = Remote(file.url, archive, file.bytes, file.sha256 or entry.sha256, headers())
            self._file(entry, remote)
            log.info("%s: extracting %s", entry.name, archive)
            extract(archive, entry.member, target)
            if not self.config.downloads.keep_archives:
                archive.unlink()
        if target.is_file():
            return {target.name: _plain(digest_of(target))}
        return {target.name: {"files": sum(len(names) for _, _, names in os.walk(target))}}


def _plain(found: Digest) -> dict[str, Any]:
    return {"bytes": found.bytes, "sha256": found.sha256}


def _by_hand(entry: Entry, target: Path) -> dict[str, Any]:
    """Accept what only a user can place."""
    if not target.exists():
        raise DownloadError(f"{entry.name}: place it at {target} by hand: {entry.note}")
    if target.is_file():
        return {target.name: _plain(digest_of(target))}
    return {target.name: {"files": sum(len(names) for _, _, names in os.walk(target))}}


def _matching(entry: Entry, target: Path, single: bool) -> dict[str, Path]:
    """Return the local files of a hub entry by name, or none unless every pattern has one."""
    if single:
        return {entry.files[0]: target} if target.is_file() else {}
    files = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()}
    if not all(fnmatch.filter(files, pattern) for pattern in entry.files):
        return {}
    return {name: path for name, path in files.items() if any(fnmatch.fnmatchcase(name, p) for p in entry.files)}


def _link(link: Path, target: Path) -> None:
    """Make `link` point to `target` (relative), unless something is there."""
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent))


class Meter:
    """Counts bytes from several threads and logs one line every few seconds."""

    def __init__(self, gigabytes: float, every: float = 5.0) -> None:
        self._total, self._every = gigabytes * 1e9, every
        self._bytes = 0
        self._start = self._last = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        """Add bytes."""
        with self._lock:
            self._bytes += count
            now = time.monotonic()
            if now - self._last < self._every:
                return
            self._last = now
            speed = max(1.0, self._bytes / (now - self._start))
            left = f", left {duration(max(0.0, self._total - self._bytes) / speed)}" if self._total else ""
            log.info("download %.2f of %.2f GB, %.1f MB/s%s", self._bytes / 1e9, self._total / 1e9, speed / 1e6, left)


def fetch_all(config: Config, entries: Sequence[Entry], receipt: Path | None = None) -> None:
    """Fetch entries, several at a time; all are tried, then the failures are reported together.

    Args:
        config: settings; `downloads` says how.
        entries: what to fetch.
        receipt: where the receipt goes, for a single entry.

    Raises:
        DownloadError: an entry failed; the message has one line for each.
    """
    missing = [entry for entry in entries if not destination(entry, config).exists()]
    settings = config.downloads
    meter = Meter(sum(entry.gigabytes or 0.0 for entry in missing))
    fetcher = Fetcher(config, Transport(settings.attempts, settings.timeout, on_bytes=meter))
    failures: list[str] = []

    def one(entry: Entry) -> None:
        try:
            fetcher.fetch(entry, receipt)
            log.info("%s: there, %s", entry.name, destination(entry, config))
        except ValueError as err:
            log.error("%s", err)
            failures.append(f"{entry.name}: {err}")

    with ThreadPoolExecutor(settings.workers) as pool:
        list(pool.map(one, entries))
    if failures:
        raise DownloadError(f"{len(failures)} of {len(entries)} downloads failed: " + "; ".join(sorted(failures)))

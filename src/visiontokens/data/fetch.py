"""One registry entry to its place: what is there already is checked, the rest is fetched, verified and extracted.

A published checksum is enforced. Where none is published, what came first is recorded (`visiontokens.data.lock`) and
enforced from then on. What a user placed by hand is never changed or removed.
"""

from __future__ import annotations

import fnmatch
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from visiontokens.config import Config
from visiontokens.data.archives import ArchiveError, extract
from visiontokens.data.download import DownloadError, Remote, Transport, download
from visiontokens.data.hub import headers, list_files, newest_commit
from visiontokens.data.lock import Lock
from visiontokens.data.progress import Meter
from visiontokens.data.registry import Entry, destination
from visiontokens.provenance import write_json

log = logging.getLogger(__name__)
FOLDER = "downloads"
"""Below the data folder: receipts, recorded checksums, and archives before they are extracted."""
WEIGHTS_RECEIPT = "download.json"
"""Name of the receipt in a folder of weights; no file of the repository."""


@dataclass
class Fetcher:
    """Fetches entries under one configuration; `transport` does the talking."""

    config: Config
    transport: Transport

    def fetch(self, entry: Entry, receipt: Path | None = None) -> dict[str, Any]:
        """Bring an entry to its place and return (and write) its receipt: name, version, licence, files.

        Raises:
            DownloadError: it cannot be fetched, is not what was published or recorded, or must be placed by hand.
            ArchiveError: its archive is broken or unsafe.
            OSError: the disk is full or not writable.
        """
        target = destination(entry, self.config)
        lock = Lock(self._folder / f"{entry.name}.lock.json")
        if not entry.source and not target.exists():
            raise DownloadError(f"{entry.name}: place it at {target} by hand: {entry.note}")
        if entry.member or not entry.source:
            if not target.exists():
                self._unpack(entry, target, lock)
            files = _taken(target, lock)
        elif entry.is_single:
            files = {target.name: self._file(lock, target.name, self._remote(entry, target, lock))}
        else:
            files = self._repository(entry, target, lock)
        if entry.also:
            _link(self.config.data_dir / entry.also, target)
        result = {
            "name": entry.name,
            "version": entry.version,
            "revision": entry.revision or lock.revision,
            "licence": entry.licence,
            "files": files,
        }
        write_json(receipt or self._folder / f"{entry.name}.json", result)
        return result

    @property
    def _folder(self) -> Path:
        return self.config.data_dir / FOLDER

    def _file(self, lock: Lock, name: str, remote: Remote) -> dict[str, Any]:
        """Check or fetch one file against what is published, else against what was recorded first."""
        if remote.target.is_file():
            return lock.check(name, remote.target, remote.bytes, remote.sha256)
        size, sha256 = lock.expected(name, remote.bytes, remote.sha256)
        found = download(replace(remote, bytes=size, sha256=sha256), self.transport)
        return lock.record(name, remote.target, found, remote.url)

    def _revision(self, entry: Entry, lock: Lock) -> str:
        """Return the commit to take: the registered one, else that of the first time, else the newest."""
        if not (entry.revision or lock.revision):
            lock.revision = newest_commit(entry, self.transport)
            lock.write()
        return entry.revision or lock.revision

    def _remote(self, entry: Entry, target: Path, lock: Lock) -> Remote:
        """Return where a single file comes from; one that is there does not need the hub."""
        plain = Remote(entry.source, target, entry.bytes, entry.sha256)
        if entry.hub is None or (target.is_file() and target.name in lock.files):
            return plain
        try:
            file = list_files(entry, self._revision(entry, lock), self.transport)[0]
        except DownloadError as err:
            if not target.is_file():
                raise
            log.warning("%s: %s is taken as it is: %s", entry.name, target, err)
            return plain
        return Remote(file.url, target, file.bytes, file.sha256, headers())

    def _repository(self, entry: Entry, target: Path, lock: Lock) -> dict[str, Any]:
        """Check or fetch several files of a hub repository; without the hub, what is there is accepted."""
        there = _matching(entry, target)
        if not (lock.whole and set(lock.files) <= set(there)):
            try:
                listed = list_files(entry, self._revision(entry, lock), self.transport)
            except DownloadError as err:
                if not there or not set(lock.files) <= set(there):
                    raise
                log.warning("%s: %d files there are taken as they are: %s", entry.name, len(there), err)
            else:
                files = {}
                for file in listed:
                    remote = Remote(file.url, target / file.path, file.bytes, file.sha256, headers())
                    files[file.path] = self._file(lock, file.path, remote)
                lock.whole = True
                lock.write()
                return files
        return {name: lock.check(name, path) for name, path in there.items() if not lock.whole or name in lock.files}

    def _unpack(self, entry: Entry, target: Path, lock: Lock) -> None:
        """Fetch and extract an archive; one that the user placed stays."""
        name = PurePosixPath(entry.files[0] if entry.files else entry.source).name
        archive = self._folder / "archives" / f"{entry.name}-{name}"
        self._file(lock, archive.name, self._remote(entry, archive, lock))
        log.info("%s: extracting %s", entry.name, archive)
        fetched = bool(lock.files[archive.name]["url"])
        try:
            extract(archive, entry.member, target)
        except ArchiveError:
            lock.forget(archive.name)  # what is broken must not become what is expected
            if fetched:
                archive.unlink()
            raise
        if fetched and not self.config.downloads.keep_archives:
            archive.unlink()


def _taken(target: Path, lock: Lock) -> dict[str, Any]:
    """Return what is at `target`: a file is held to its first checksum, a folder is taken as it is."""
    if target.is_file():
        return {target.name: lock.check(target.name, target)}
    return {target.name: {"files": sum(len(names) for _, _, names in os.walk(target))}}


def _matching(entry: Entry, target: Path) -> dict[str, Path]:
    """Return the local files of a hub entry by name, or none unless every pattern has one."""
    files = {
        path.relative_to(target).as_posix(): path
        for path in target.rglob("*")
        if path.is_file() and path.name != WEIGHTS_RECEIPT and not path.name.startswith(".")
    }
    if not all(fnmatch.filter(files, pattern) for pattern in entry.files):
        return {}
    return {name: path for name, path in files.items() if any(fnmatch.fnmatchcase(name, p) for p in entry.files)}


def _link(link: Path, target: Path) -> None:
    """Make `link` point to `target` (relative), unless something is there."""
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent))


def fetch_all(config: Config, entries: Sequence[Entry], receipt: Path | None = None) -> None:
    """Fetch entries, several at a time; all are tried, then the failures are reported together.

    Args:
        config: settings; `downloads` says how.
        entries: what to fetch.
        receipt: where the receipt goes, for a single entry.

    Raises:
        DownloadError: an entry failed; the message has one part for each.
    """
    missing = [entry for entry in entries if not destination(entry, config).exists()]
    settings = config.downloads
    meter = Meter(log, "download", round(1e9 * sum(entry.gigabytes or 0.0 for entry in missing)))
    fetcher = Fetcher(config, Transport(settings.attempts, settings.timeout, on_bytes=meter))
    failures: list[str] = []

    def one(entry: Entry) -> None:
        """Fetch one entry; what goes wrong is noted, and the others go on."""
        try:
            fetcher.fetch(entry, receipt)
            log.info("%s: there, %s", entry.name, destination(entry, config))
        except (ValueError, OSError) as err:
            log.error("%s: %s", entry.name, err)
            failures.append(f"{entry.name}: {err}")

    with ThreadPoolExecutor(settings.workers) as pool:
        list(pool.map(one, entries))
    if failures:
        raise DownloadError(f"{len(failures)} of {len(entries)} downloads failed: " + "; ".join(sorted(failures)))

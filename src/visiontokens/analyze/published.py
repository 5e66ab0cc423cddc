"""Finished runs as small archives that travel with the repository: all of their results but the weights.

One archive a run (`<experiment>.seed<k>.tar.xz`) with its training records and logs, its answers, and their scores;
what belongs to no run (redundancy, costs, traces) is in `shared.tar.xz`. Paths in an archive are relative to the
results folder, and the same files give the same bytes. So results add up over machines, and a clone has what was
published.
"""

from __future__ import annotations

import io
import lzma
import os
import re
import tarfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from visiontokens.data.archives import extract
from visiontokens.provenance import atomic_write, sha256_file
from visiontokens.seals import check

SHARED = "shared"
SUFFIX = ".tar.xz"
ARCHIVES = f"*{SUFFIX}"
SHARED_FILES = ("redundancy/*", "efficiency/*", "search/*", "explorer/*", "paper/figures/contact_sheet.*")
"""The contact sheet is drawn from the data, which are not packed either."""
OF_RUN = ("models/{run}/*/*", "predictions/{run}/*", "scores/{run}/*", "validation/{run}.json*")
WEIGHTS = ".safetensors"
RUN = re.compile(r"(?P<experiment>[a-z0-9][a-z0-9.-]*)\.seed(?P<seed>\d+)")


class PublishedError(ValueError):
    """An archive of results is not one, or what it holds differs from what lies there."""


def pack(results: Path, store: Path) -> list[Path]:
    """Write an archive for every run under `results` that has been scored, and for what all share; return their paths.

    Files are checked against their seals first. An archive that holds the same already stays as it is; a damaged one is
    replaced.

    Args:
        results: folder of one scale.
        store: receives the archives.

    Raises:
        SealError: a file is not as its job left it.
        FileNotFoundError: there is no finished run.
    """
    runs = sorted(path.relative_to(results / "scores") for path in results.glob("scores/*/seed*") if path.is_dir())
    if not runs:
        raise FileNotFoundError(f"{results / 'scores'}: no scores of any run, expected <experiment>/seed<k>")
    groups = {
        ".".join(run.parts): [path for pattern in OF_RUN for path in results.glob(pattern.format(run=run.as_posix()))]
        for run in runs
    }
    groups[SHARED] = [path for pattern in SHARED_FILES for path in results.glob(pattern)]
    return [_write(results, store / f"{name}{SUFFIX}", files) for name, files in groups.items() if files]


def published(store: Path) -> list[tuple[str, int]]:
    """Return (experiment, seed) of every run in a store, sorted.

    Raises:
        PublishedError: a file there is no archive of a run.
    """
    found = []
    for path in store.glob(ARCHIVES):
        name = path.name.removesuffix(SUFFIX)
        match = RUN.fullmatch(name)
        if match:
            found.append((match["experiment"], int(match["seed"])))
        elif name != SHARED:
            raise PublishedError(f"{path}: expected <experiment>.seed<k>{SUFFIX} or {SHARED}{SUFFIX}")
    return sorted(found)


def unpack(archives: Iterable[Path], results: Path) -> int:
    """Lay the files of archives where the workflow would have made them; return how many were new.

    Files that are there already stay; they must be the same. All new ones get one time, so that none is newer than what
    was made from it, and the workflow sees nothing to make again.

    Args:
        archives: made by `pack`.
        results: folder of one scale; is made if it is not there.

    Raises:
        ArchiveError: an archive is damaged or unsafe.
        PublishedError: a file lies there with other content.
    """
    results.mkdir(parents=True, exist_ok=True)
    new, now = 0, time.time_ns()
    for archive in archives:
        with TemporaryDirectory(dir=results, prefix=".published-") as scratch:
            folder = Path(scratch) / "files"
            extract(archive, "*", folder)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            targets = [results / path.relative_to(folder) for path in files]
            _compare(archive, files, targets)
            for path, target in zip(files, targets, strict=True):
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.utime(path, ns=(now, now))
                    path.replace(target)
                    new += 1
    return new


def _compare(archive: Path, files: Sequence[Path], targets: Sequence[Path]) -> None:
    for path, target in zip(files, targets, strict=True):
        if target.exists() and sha256_file(path) != sha256_file(target):
            raise PublishedError(
                f"{target}: differs from the one in {archive}; move one of the two away (nothing of the archive was "
                f"unpacked)"
            )


def _write(results: Path, out: Path, files: Sequence[Path]) -> Path:
    chosen = sorted(path for path in files if path.is_file() and path.suffix not in {WEIGHTS, ".partial"})
    for folder in sorted({path.parent for path in chosen}):
        check(folder, only=[path.name for path in chosen if path.parent == folder])
    content = _tar(results, chosen)
    if not (out.is_file() and _content(out) == content):
        with atomic_write(out, "wb") as handle:
            handle.write(lzma.compress(content, preset=9))
    return out


def _tar(results: Path, files: Sequence[Path]) -> bytes:
    """Return a tar of files with nothing in it but their names and contents."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in files:
            content = path.read_bytes()
            info = tarfile.TarInfo(path.relative_to(results).as_posix())
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _content(archive: Path) -> bytes | None:
    """Return the tar in an archive; `None` if it is damaged."""
    try:
        return lzma.decompress(archive.read_bytes())
    except (lzma.LZMAError, EOFError):
        return None

"""Archives to files, safely: nothing lands outside the target, nothing half-written stays, no links are followed."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

JUNK = ("__MACOSX", ".DS_Store")
"""What some packers add."""
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)


class ArchiveError(ValueError):
    """An archive is broken, unsafe, or lacks what is wanted; the message names it and the entry."""


@dataclass(frozen=True)
class Member:
    """One regular file of an archive."""

    path: PurePosixPath
    bytes: int
    info: Any


def extract(archive: Path, member: str, target: Path) -> int:
    """Extract an archive (zip or tar, told by its content) and return how many files came out.

    Everything goes to a temporary sibling of `target` and is renamed when it is whole, so a `target` that exists is
    complete.

    Args:
        archive: the file.
        member: `*` for everything (`target` becomes a folder; a single top folder of the same name is that folder),
            else the one file with this path or path ending.
        target: what comes out; must not exist.

    Raises:
        ArchiveError: neither zip nor tar, cut off or corrupted, an entry that would land outside or is a link or
            device, no or several entries for `member`, or too little disk.
    """
    partial = target.with_name(f".{target.name}.partial")
    remove(partial)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _opened(archive) as (members, read):
            chosen = _choose(archive, members, member, target)
            _check_space(archive, chosen, target)
            for item, place in chosen:
                out = partial / place if member == "*" else partial
                out.parent.mkdir(parents=True, exist_ok=True)
                _copy(archive, item, read(item), out)
    except BROKEN as err:
        remove(partial)
        raise ArchiveError(f"{archive}: broken or cut off: {err or type(err).__name__}") from err
    except ArchiveError:
        remove(partial)
        raise
    partial.replace(target)
    return len(chosen)


def remove(path: Path) -> None:
    """Delete a file or folder that may not be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[list[Member], Any]]:
    """Yield the archive's files and a function that opens one."""
    with archive.open("rb") as handle:
        head = handle.read(4)
    if head[:2] == b"PK":
        with zipfile.ZipFile(archive) as packed:
            yield (
                # told by the end of the name: `is_dir` fails on an empty one
                [_zip_member(archive, info) for info in packed.infolist() if not info.filename.endswith("/")],
                lambda m: packed.open(m.info),
            )
        return
    try:
        tar = tarfile.open(archive)  # noqa: SIM115 - closed below; a failure to open is told apart from one to read
    except tarfile.ReadError as err:
        raise ArchiveError(f"{archive}: neither zip nor tar, it begins with {head!r}") from err
    with tar:
        members = [_tar_member(archive, info) for info in tar.getmembers() if not info.isdir()]
        _check_end(archive, tar)
        yield members, lambda m: tar.extractfile(m.info)


def _zip_member(archive: Path, info: zipfile.ZipInfo) -> Member:
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise ArchiveError(f"{archive}: entry {info.filename!r} is a link or device, expected plain files only")
    if info.flag_bits & 1:
        raise ArchiveError(f"{archive}: entry {info.filename!r} is encrypted")
    # `orig_filename` is the name as stored: zipfile itself rewrites backslashes and cuts at a null byte.
    return Member(_safe(archive, info.orig_filename), info.file_size, info)


def _tar_member(archive: Path, info: tarfile.TarInfo) -> Member:
    if not info.isreg():
        raise ArchiveError(f"{archive}: entry {info.name!r} is a link or device, expected plain files only")
    return Member(_safe(archive, info.name), info.size, info)


def _safe(archive: Path, name: str) -> PurePosixPath:
    """Return an entry's path, or raise if it could leave the folder it is extracted to."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in name or not path.parts:
        raise ArchiveError(f"{archive}: entry {name!r} would land outside of the folder it is extracted to")
    return path


def _check_end(archive: Path, tar: tarfile.TarFile) -> None:
    """Raise unless the tar has its end mark: one cut between two entries looks whole otherwise."""
    infos = tar.getmembers()
    end = max((info.offset_data + -(-info.size // 512) * 512 for info in infos), default=0)
    assert tar.fileobj is not None
    tar.fileobj.seek(end)
    if tar.fileobj.read(512) != bytes(512):
        raise ArchiveError(f"{archive}: broken or cut off: no end mark after {len(infos)} entries")
    while tar.fileobj.read(1 << 20):
        pass  # a compressed tar has its checksum at the very end


def _choose(archive: Path, members: Sequence[Member], member: str, target: Path) -> list[tuple[Member, PurePosixPath]]:
    """Return what to extract and where below the target."""
    files = [m for m in members if not set(m.path.parts) & set(JUNK) and not m.path.name.startswith("._")]
    if member != "*":
        ending = PurePosixPath(member).parts
        found = [m for m in files if m.path.parts[-len(ending) :] == ending]
        if len(found) != 1:
            some = ", ".join(str(m.path) for m in files[:3])
            raise ArchiveError(f"{archive}: found {len(found)} entries {member!r}, expected one; it holds {some}, ...")
        return [(found[0], PurePosixPath())]
    tops = {m.path.parts[0] for m in files}
    nested = tops == {target.name} and all(len(m.path.parts) > 1 for m in files)
    places = [PurePosixPath(*m.path.parts[1:]) if nested else m.path for m in files]
    if not files or len(set(places)) != len(places):
        raise ArchiveError(f"{archive}: found {len(files)} files, {len(set(places))} of them different, expected some")
    return list(zip(files, places, strict=True))


def _check_space(archive: Path, chosen: Sequence[tuple[Member, PurePosixPath]], target: Path) -> None:
    total, free = sum(m.bytes for m, _ in chosen), shutil.disk_usage(target.parent).free
    if total > free:
        raise ArchiveError(f"{archive}: {total} bytes come out of it, {free} are free on the disk of {target}")


def _copy(archive: Path, member: Member, source: IO[bytes] | None, out: Path) -> None:
    """Write one entry; its bytes must be as many as declared (zip entries also have a checksum, checked on reading)."""
    assert source is not None
    with source, out.open("xb") as handle:
        shutil.copyfileobj(source, handle, 1 << 20)
        written = handle.tell()
    if written != member.bytes:
        raise ArchiveError(f"{archive}: entry {member.path}: found {written} bytes, expected {member.bytes}")

"""Extraction: nothing outside the target, no links, nothing half-written."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from visiontokens.data.archives import ArchiveError, extract


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, *infos: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for info in infos:
            info.size = 600 if info.isreg() else 0
            archive.addfile(info, io.BytesIO(bytes(600)) if info.isreg() else None)
    return path


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:evil"])
def test_paths_that_leave_the_target_are_refused(tmp_path: Path, name: str) -> None:
    for archive in (zipped(tmp_path / "a.zip", {name: b"x"}), tarred(tmp_path / "a.tar", tarfile.TarInfo(name))):
        with pytest.raises(ArchiveError, match="would land outside"):
            extract(archive, "*", tmp_path / "in/target")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive = tarred(tmp_path / "a.tar", link("out", "/etc", kind), tarfile.TarInfo("out/passwd"))
    with pytest.raises(ArchiveError, match="'out' is a link or device"):
        extract(archive, "*", tmp_path / "target")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("out")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc")
    with pytest.raises(ArchiveError, match="link or device"):
        extract(tmp_path / "a.zip", "*", tmp_path / "target")


def test_a_tar_cut_between_two_entries_is_noticed(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar", tarfile.TarInfo("one"), tarfile.TarInfo("two"))
    archive.write_bytes(archive.read_bytes()[: 512 + 1024])
    with pytest.raises(ArchiveError, match="cut off"):
        extract(archive, "*", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_corrupted_zip_leaves_nothing(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"one": b"a" * 500, "two": b"b" * 500})
    archive.write_bytes(archive.read_bytes().replace(b"b" * 500, b"b" * 499 + b"c"))
    with pytest.raises(ArchiveError, match="broken or cut off"):
        extract(archive, "*", tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_what_is_no_archive_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"<html>login</html>")
    with pytest.raises(ArchiveError, match="neither zip nor tar"):
        extract(tmp_path / "a.zip", "*", tmp_path / "target")


def test_a_top_folder_of_the_same_name_is_the_target(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"val2014/1.jpg": b"1", "__MACOSX/val2014/._1.jpg": b"junk"})
    assert extract(archive, "*", tmp_path / "x/val2014") == 1
    assert (tmp_path / "x/val2014/1.jpg").read_bytes() == b"1"


def test_one_member_and_a_member_that_is_not_there(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"deep/val.json": b"[]", "train.json": b"{}"})
    extract(archive, "val.json", tmp_path / "mine.json")
    assert (tmp_path / "mine.json").read_bytes() == b"[]"
    with pytest.raises(ArchiveError, match=r"found 0 entries 'test\.json'"):
        extract(archive, "test.json", tmp_path / "other.json")


def test_the_remains_of_a_killed_extraction_are_replaced(tmp_path: Path) -> None:
    (tmp_path / ".target.partial").mkdir()
    (tmp_path / ".target.partial/half").write_bytes(b"")
    extract(zipped(tmp_path / "a.zip", {"whole": b"1"}), "*", tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["whole"]

"""Snakemake's records out to one file and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visiontokens.records import RecordError, export_records, restore_records


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def store(work: Path, name: str) -> Path:
    """File a record for `name` where Snakemake itself files it."""
    from snakemake.persistence.file import FilePersistence

    folder = work / ".snakemake" / "metadata"
    folder.mkdir(parents=True, exist_ok=True)
    keeper = FilePersistence.__new__(FilePersistence)
    keeper._max_len = None
    path = Path(keeper._record_path(str(folder), name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"code": "x", "starttime": 1.0, "endtime": 2.0, "job_hash": 7, "rule": "r"}))
    return path


@pytest.mark.parametrize("name", ["out/a.txt", "out/ümlaut?.txt"])
def test_records_come_back_under_the_same_name_without_times(work: Path, name: str) -> None:
    (work / "out").mkdir()
    path = store(work, name)
    (work / name).touch()
    assert export_records(work / "records.json") == 1
    content = json.loads((work / "records.json").read_text())
    assert content[name] == {
        "code": "x",
        "rule": "r",
        "starttime": None,
        "endtime": None,
        "job_hash": None,
        "external_jobid": None,
    }
    path.unlink()
    assert restore_records(work / "records.json") == 1
    assert json.loads(path.read_text())["code"] == "x"


def test_a_long_path_is_filed_in_pieces_like_snakemakes(work: Path) -> None:
    name = "/".join(["folder-with-a-long-name" * 3] * 5) + "/file.txt"
    (work / name).parent.mkdir(parents=True)
    (work / name).touch()
    path = store(work, name)
    assert path.parent.name.startswith("@")
    export_records(work / "records.json")
    path.unlink()
    restore_records(work / "records.json")
    assert path.is_file()


def test_files_that_are_gone_and_records_that_exist_are_left_alone(work: Path) -> None:
    (work / "out").mkdir()
    (work / "out" / "a.txt").touch()
    kept = store(work, "out/a.txt")
    store(work, "out/gone.txt")
    assert export_records(work / "records.json") == 1
    kept.write_text("newer")
    assert restore_records(work / "records.json") == 0
    assert kept.read_text() == "newer"


def test_the_exported_file_does_not_depend_on_times(work: Path) -> None:
    (work / "a.txt").touch()
    path = store(work, "a.txt")
    export_records(work / "one.json")
    path.write_text(path.read_text().replace("1.0", "9.0"))
    export_records(work / "two.json")
    assert (work / "one.json").read_bytes() == (work / "two.json").read_bytes()


def test_errors_name_the_file(work: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run snakemake first"):
        export_records(work / "records.json")
    (work / "bad.json").write_text("[1]")
    with pytest.raises(RecordError, match=r"bad\.json"):
        restore_records(work / "bad.json")

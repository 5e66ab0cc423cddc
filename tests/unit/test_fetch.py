"""Registry entries to their places, from a server on loopback: fetched, recorded, held to the record, or accepted."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import BODY, SHA, Server, running

from visiontokens.config import Config
from visiontokens.data.archives import ArchiveError
from visiontokens.data.download import DownloadError, Remote, Transport, download
from visiontokens.data.fetch import Fetcher, fetch_all
from visiontokens.data.progress import Meter
from visiontokens.data.registry import Entry
from visiontokens.provenance import read_json


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.model_validate({"world": None, "data": tmp_path / "data", "downloads": {"attempts": 2, "workers": 2}})


@pytest.fixture
def fetcher(config: Config) -> Fetcher:
    return Fetcher(config, Transport(attempts=2, timeout=60, sleep=lambda seconds: None))


def entry(source: str, **changes: Any) -> Entry:
    """Return an entry of which nothing is known but where it is."""
    empty = dict.fromkeys(Entry.model_fields, "")
    return Entry.model_validate(
        {**empty, "name": "thing", "role": "benchmark", "source": source, "path": "here/file.bin", **changes}
    )


def packed(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"images/{name}", content)
    return buffer.getvalue()


def archived(server: Server, **changes: Any) -> Entry:
    return entry(f"{server.base}/a.zip", role="images", path="sets/images", member="*", **changes)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if not path.is_dir())


def test_what_came_first_is_enforced_where_no_checksum_is_published(server: Server, fetcher: Fetcher) -> None:
    thing, target = entry(server.url), fetcher.config.data_dir / "here/file.bin"
    assert fetcher.fetch(thing)["files"] == {"file.bin": {"bytes": len(BODY), "sha256": SHA}}
    lock = read_json(fetcher.config.data_dir / "downloads/thing.lock.json")
    assert lock["files"]["file.bin"]["sha256"] == SHA
    target.unlink()
    server.files["/file.bin"] = BODY[:-1] + b"?"
    with pytest.raises(DownloadError, match=f"expected {SHA}, twice"):
        fetcher.fetch(thing)
    assert not target.exists()
    target.write_bytes(b"edited")
    with pytest.raises(DownloadError, match=r"file\.bin: found 6 bytes, expected 1024000; move it away"):
        fetcher.fetch(thing)
    assert target.read_bytes() == b"edited"


def test_a_file_that_is_there_is_accepted_and_not_fetched(server: Server, fetcher: Fetcher) -> None:
    target = fetcher.config.data_dir / "here/file.bin"
    target.parent.mkdir(parents=True)
    target.write_bytes(BODY)
    for sha256 in (SHA, ""):
        assert fetcher.fetch(entry(server.url, sha256=sha256))["files"]["file.bin"]["sha256"] == SHA
    assert server.paths == []
    with pytest.raises(DownloadError, match=f"found SHA-256 {SHA}, expected {'0' * 64}"):
        fetcher.fetch(entry(server.url, sha256="0" * 64))
    assert target.read_bytes() == BODY


def test_the_receipt_says_what_came(server: Server, fetcher: Fetcher, tmp_path: Path) -> None:
    fetcher.fetch(entry(server.url, version="v2", licence="MIT"), tmp_path / "receipt.json")
    found = read_json(tmp_path / "receipt.json")
    assert (found["name"], found["version"], found["licence"]) == ("thing", "v2", "MIT")
    assert found["files"]["file.bin"]["bytes"] == len(BODY)


def test_an_archive_is_extracted_linked_and_removed(server: Server, fetcher: Fetcher) -> None:
    server.files["/a.zip"] = packed(one=b"1", two=b"2")
    thing, data = archived(server, also="benchmarks/images"), fetcher.config.data_dir
    assert fetcher.fetch(thing)["files"] == {"images": {"files": 2}}
    assert (data / "benchmarks/images/one").read_bytes() == b"1"
    assert names(data / "downloads") == ["thing.json", "thing.lock.json"]
    fetcher.fetch(thing)
    assert server.paths == ["/a.zip"]


def test_an_archive_that_the_user_placed_is_used_and_kept(server: Server, fetcher: Fetcher) -> None:
    archive = fetcher.config.data_dir / "downloads/archives/thing-a.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(packed(one=b"1"))
    assert fetcher.fetch(archived(server))["files"] == {"images": {"files": 1}}
    assert archive.is_file()
    assert server.paths == []


def test_a_broken_archive_is_not_what_is_expected_from_then_on(server: Server, fetcher: Fetcher) -> None:
    whole = packed(one=b"1" * 500)
    server.files["/a.zip"] = whole.replace(b"1" * 500, b"1" * 499 + b"0")
    with pytest.raises(ArchiveError, match="broken"):
        fetcher.fetch(archived(server))
    assert names(fetcher.config.data_dir) == ["thing.lock.json"]
    server.files["/a.zip"] = whole
    assert fetcher.fetch(archived(server))["files"] == {"images": {"files": 1}}


def test_one_file_of_an_archive_is_held_to_its_first_checksum(server: Server, fetcher: Fetcher) -> None:
    server.files["/a.zip"] = packed(**{"val.json": b"[]", "train.json": b"{}"})
    thing = entry(f"{server.base}/a.zip", path="here/val.json", member="val.json")
    fetcher.fetch(thing)
    target = fetcher.config.data_dir / "here/val.json"
    assert target.read_bytes() == b"[]"
    target.write_bytes(b"[1]")
    with pytest.raises(DownloadError, match=r"val\.json: found 3 bytes, expected 2"):
        fetcher.fetch(thing)


def test_what_has_no_source_is_asked_for_and_then_accepted(fetcher: Fetcher) -> None:
    thing = entry("", path="sets/images", note="run the authors' script")
    with pytest.raises(DownloadError, match=r"thing: place it at .*sets/images by hand: run the authors' script"):
        fetcher.fetch(thing)
    (fetcher.config.data_dir / "sets/images").mkdir(parents=True)
    (fetcher.config.data_dir / "sets/images/1.jpg").touch()
    assert fetcher.fetch(thing)["files"] == {"images": {"files": 1}}


def test_entries_are_fetched_at_the_same_time(server: Server, config: Config) -> None:
    """Each request waits for the other one."""
    server.together = threading.Barrier(2)
    fetch_all(config, [entry(server.url, name=name, path=f"here/{name}") for name in ("one", "two")])
    assert len(server.paths) == 2
    assert (config.data_dir / "here/one").read_bytes() == (config.data_dir / "here/two").read_bytes() == BODY


def test_all_entries_are_tried_and_failures_told_together(server: Server, config: Config) -> None:
    things = [entry(f"{server.base}/{name}", name=name, path=f"here/{name}") for name in ("file.bin", "gone", "lost")]
    with pytest.raises(DownloadError, match=r"2 of 3 downloads failed: gone: .*404.*; lost: .*404"):
        fetch_all(config, things)
    assert (config.data_dir / "here/file.bin").read_bytes() == BODY


def test_a_killed_download_leaves_nothing_half_written_and_continues(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    server.faults = ["stall"]
    code = "import sys; from pathlib import Path; from visiontokens.data.download import Remote, Transport, download;"
    code += "download(Remote(sys.argv[1], Path(sys.argv[2])), Transport())"
    process = subprocess.Popen([sys.executable, "-c", code, server.url, str(target)])
    part, end = tmp_path / ".file.bin.part", time.monotonic() + 300
    while not part.exists() or part.stat().st_size < len(BODY) // 4:
        assert process.poll() is None, "the download ended by itself"
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    got = part.stat().st_size
    download(Remote(server.url, target), Transport())
    assert target.read_bytes() == BODY
    assert server.seen == ["", f"bytes={got}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_the_bar_says_how_far_it_is_and_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    meter = Meter(logging.getLogger("meter"), "download", 2_000_000_000, every=0)
    with caplog.at_level("INFO"):
        meter(1_500_000_000)
        meter(-500_000_000)
    assert "[###############-----]  75%" in caplog.messages[0]
    line = meter.line(10)
    assert line == "download [##########----------]  50%  1.00 of 2.00 GB  100.0 MB/s  left 0:10"
    assert Meter(logging.getLogger("meter"), "download", 0).line(1).startswith("download 0.00 GB")

"""One file over HTTP: cut off, corrupted, redirected, busy, with and without ranges, changed in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import BODY, SHA, Server, running

from visiontokens.data.download import DownloadError, Remote, Transport, download


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def transport(slept: list[float]) -> Transport:
    return Transport(attempts=3, timeout=5, sleep=slept.append)


def fetch(server: Server, folder: Path, transport: Transport, sha256: str = SHA) -> Path:
    target = folder / "file.bin"
    download(Remote(server.url, target, sha256=sha256), transport)
    return target


def test_a_cut_connection_is_resumed_by_range(server: Server, tmp_path: Path, transport: Transport) -> None:
    server.faults = ["cut", "cut"]
    assert fetch(server, tmp_path, transport).read_bytes() == BODY
    assert [bool(seen) for seen in server.seen] == [False, True, True]
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_a_server_that_ignores_ranges_starts_over(server: Server, tmp_path: Path, transport: Transport) -> None:
    server.faults, server.ranges = ["cut"], False
    assert fetch(server, tmp_path, transport).read_bytes() == BODY


def test_a_wrong_range_is_thrown_away(server: Server, tmp_path: Path, transport: Transport) -> None:
    server.faults = ["cut", "badrange"]
    assert fetch(server, tmp_path, transport).read_bytes() == BODY


def test_a_changed_remote_file_is_never_mixed(server: Server, tmp_path: Path, transport: Transport) -> None:
    """Without a known checksum only the validator can tell."""
    part = tmp_path / ".file.bin.part"
    part.write_bytes(b"old" * 100)
    part.with_name(".file.bin.part.json").write_text(f'{{"url": "{server.url}", "validator": "\\"zero\\""}}')
    assert fetch(server, tmp_path, transport, sha256="").read_bytes() == BODY


def test_busy_servers_are_waited_for_as_they_ask(
    server: Server, tmp_path: Path, transport: Transport, slept: list[float]
) -> None:
    server.faults = ["busy", "redirect"]
    assert fetch(server, tmp_path, transport).read_bytes() == BODY
    assert slept == [7.0]


def test_corruption_is_fetched_again_and_then_refused(server: Server, tmp_path: Path, transport: Transport) -> None:
    server.faults = ["corrupt"]
    assert fetch(server, tmp_path, transport).read_bytes() == BODY
    (tmp_path / "file.bin").unlink()
    server.faults = ["corrupt", "corrupt"]
    with pytest.raises(DownloadError, match=f"expected {SHA}, twice"):
        fetch(server, tmp_path, transport)
    assert not (tmp_path / "file.bin").exists()


def test_what_asking_again_cannot_mend_is_refused_at_once(
    server: Server, tmp_path: Path, transport: Transport, slept: list[float]
) -> None:
    for fault, words in (("gone", "404"), ("html", "found a web page")):
        server.faults = [fault]
        with pytest.raises(DownloadError, match=words):
            fetch(server, tmp_path, transport)
    assert slept == []


def test_attempts_end(server: Server, tmp_path: Path, transport: Transport) -> None:
    server.faults = ["busy"] * 9
    with pytest.raises(DownloadError, match="given up after 3 attempts"):
        fetch(server, tmp_path, transport)
    assert len(server.seen) == 3


def test_an_announced_size_that_is_wrong_is_refused_before_the_bytes(
    server: Server, tmp_path: Path, transport: Transport
) -> None:
    with pytest.raises(DownloadError, match=f"announces {len(BODY)} bytes, expected 5"):
        download(Remote(server.url, tmp_path / "file.bin", bytes=5), transport)


def test_a_disk_that_cannot_be_written_is_not_asked_again(
    server: Server, tmp_path: Path, transport: Transport, slept: list[float]
) -> None:
    (tmp_path / ".file.bin.part.json").mkdir()
    with pytest.raises(OSError, match=r"part\.json"):
        fetch(server, tmp_path, transport)
    assert (slept, len(server.seen)) == ([], 1)

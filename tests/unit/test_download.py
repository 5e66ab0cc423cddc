"""Downloads against a server on loopback that cuts off, corrupts, redirects, is busy, and may ignore ranges."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from visiontokens.data.download import DownloadError, Remote, Transport, download

BODY = bytes(range(256)) * 4000
SHA = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `body`; `faults` are taken one a request: cut, corrupt, busy, badrange, html, gone."""

    body, ranges, etag = BODY, True, '"one"'

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[str] = []
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        server = self.server
        server.seen.append(self.headers.get("Range", ""))
        fault = server.faults.pop(0) if server.faults else ""
        if fault in ("busy", "gone", "redirect"):
            self.send_response({"busy": 503, "gone": 404, "redirect": 302}[fault])
            self.send_header("Retry-After", "7")
            self.send_header("Location", server.url)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        wanted = self.headers.get("Range", "")
        fresh = self.headers.get("If-Range", server.etag) == server.etag
        if wanted and server.ranges and fresh:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            shown = start + 1 if fault == "badrange" else start
            self.send_header("Content-Range", f"bytes {shown}-{len(server.body) - 1}/{len(server.body)}")
        self.send_header("ETag", server.etag)
        self.send_header("Content-Type", "text/html" if fault == "html" else "application/octet-stream")
        rest = server.body[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if fault == "corrupt":
            rest = rest[:-1] + bytes([rest[-1] ^ 1])
        self.wfile.write(rest[: len(rest) // 2] if fault == "cut" else rest)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


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

"""A server on loopback that cuts off, corrupts, redirects, stalls, is busy, and may ignore ranges."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = bytes(range(256)) * 4000
SHA = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` by path; `faults` are taken one a request: cut, corrupt, busy, badrange, html, gone, gated, ...

    Attributes:
        seen: the Range header of every request.
        paths: the path of every request.
        tokens: the Authorization header of every request.
        together: requests wait here for each other, if it is set.
        released: a request with the fault `stall` waits here after half of the body.
        next_page: `Link` header of answers below `/api/`, by path.
    """

    ranges, etag, daemon_threads = True, '"one"', True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/file.bin": BODY}
        self.faults: list[str] = []
        self.seen: list[str] = []
        self.paths: list[str] = []
        self.tokens: list[str] = []
        self.together: threading.Barrier | None = None
        self.released = threading.Event()
        self.next_page: dict[str, str] = {}

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.base}/file.bin"

    def publish(self, kind: str, repo: str, commit: str, files: dict[str, bytes], large: str = ".bin") -> None:
        """Serve a hub repository at one commit, which `main` is at from now on; only `large` files have a checksum."""
        rows = []
        for path, content in files.items():
            row: dict[str, object] = {"type": "file", "path": path, "size": len(content)}
            if path.endswith(large):
                row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
            rows.append(row)
            prefix = "/datasets" if kind == "datasets" else ""
            self.files[f"{prefix}/{repo}/resolve/{commit}/{path}"] = content
        self.files[f"/api/{kind}/{repo}/tree/{commit}?recursive=true"] = json.dumps(rows).encode()
        self.files[f"/api/{kind}/{repo}/revision/main"] = json.dumps({"sha": commit}).encode()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        server = self.server
        server.seen.append(self.headers.get("Range", ""))
        server.paths.append(self.path)
        server.tokens.append(self.headers.get("Authorization", ""))
        if server.together is not None:
            server.together.wait(timeout=60)
        fault = server.faults.pop(0) if server.faults else ""
        if self.path not in server.files:
            fault = "gone"
        if fault in ("busy", "gone", "redirect", "gated"):
            self.send_response({"busy": 503, "gone": 404, "redirect": 302, "gated": 401}[fault])
            self.send_header("Retry-After", "7")
            self.send_header("Location", server.base + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(server.files[self.path], fault)

    def _send(self, body: bytes, fault: str) -> None:
        server, start = self.server, 0
        wanted = self.headers.get("Range", "")
        fresh = self.headers.get("If-Range", server.etag) == server.etag
        if wanted and server.ranges and fresh:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            shown = start + 1 if fault == "badrange" else start
            self.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
        self.send_header("ETag", server.etag)
        self.send_header("Content-Type", "text/html" if fault == "html" else "application/octet-stream")
        if self.path in server.next_page:
            self.send_header("Link", f'<{server.base}{server.next_page[self.path]}>; rel="next"')
        rest = body[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if fault == "corrupt":
            rest = rest[:-1] + bytes([rest[-1] ^ 1])
        if fault == "stall":
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            server.released.wait(timeout=120)
            return
        self.wfile.write(rest[: len(rest) // 2] if fault == "cut" else rest)


@contextmanager
def running() -> Iterator[Server]:
    """Run a server while the block runs."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()

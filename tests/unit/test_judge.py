"""The judge: what is sent, replies asked for once, kills and torn lines, a busy or broken endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from visiontokens.config import JudgeConfig
from visiontokens.evaluate.judge import STAND_IN, Ask, Endpoint, JudgeError, StandIn, make_judge, read_replies


class Server(ThreadingHTTPServer):
    """Answers chat completions with `texts` in turn; a number among them is a status, bytes are sent as they are."""

    daemon_threads = True

    def __init__(self, texts: list[str | int | bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.texts = texts
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None: ...

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(json.loads(body))
        self.server.keys.append(self.headers.get("Authorization"))
        self.server.paths.append(self.path)
        found = self.server.texts.pop(0)
        status = found if isinstance(found, int) else 200
        message = {"choices": [{"message": {"content": found}}]}
        content = found if isinstance(found, bytes) else json.dumps(message).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def serve() -> Iterator[Any]:
    servers: list[Server] = []

    def start(*texts: str | int | bytes) -> Server:
        server = Server(list(texts))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def endpoint(server: Server, folder: Path, **settings: Any) -> Endpoint:
    given = {"attempts": 3, "backoff": 0.0, "timeout": 5.0, "key_env": "JUDGE_TEST_KEY", **settings}
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    return Endpoint(JudgeConfig(url=url, model="m", cache=folder / "deep" / "replies.jsonl", **given))


ASK = Ask(prompt="2 + 2?", offline="0", system="Be exact.", temperature=0.2, max_tokens=3)


def test_the_request_is_openais_and_the_key_comes_from_the_environment(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_TEST_KEY", "secret")
    server = serve("4")
    judge = endpoint(server, tmp_path)
    reply = judge.reply(ASK)
    assert reply.text == "4" and len(reply.date) == 10
    assert server.paths == ["/v1/chat/completions"] and server.keys == ["Bearer secret"]
    messages = [{"role": "system", "content": "Be exact."}, {"role": "user", "content": "2 + 2?"}]
    assert server.bodies == [{"model": "m", "messages": messages, "temperature": 0.2, "max_tokens": 3}]
    assert "secret" not in (tmp_path / "deep" / "replies.jsonl").read_text()
    assert not judge.stand_in and judge.id.startswith("m at http")


def test_a_reply_is_asked_for_once_and_every_part_of_the_request_counts(serve: Any, tmp_path: Path) -> None:
    server = serve("a", "b", "c", "d", "e")
    first = endpoint(server, tmp_path)
    assert [first.reply(ASK).text for _ in range(3)] == ["a", "a", "a"]
    again = endpoint(server, tmp_path)
    assert (again.reply(ASK).text, again.asked) == ("a", 0)
    others = [
        Ask("2 + 3?", "0", "Be exact.", 0.2, 3), Ask("2 + 2?", "0", "", 0.2, 3),
        Ask("2 + 2?", "0", "Be exact.", 0.3, 3),
        Ask("2 + 2?", "0", "Be exact.", 0.2, 3, run=1),
    ]  # fmt: skip
    assert [again.reply(ask).text for ask in others] == ["b", "c", "d", "e"]
    assert again.reply(Ask("2 + 2?", "another stand-in", "Be exact.", 0.2, 3)).text == "a"


def test_a_kill_costs_the_line_that_was_being_written_and_no_other(serve: Any, tmp_path: Path) -> None:
    server = serve("a", "b", "c", "d")
    judge = endpoint(server, tmp_path)
    asks = [Ask(f"question {number}", "") for number in range(3)]
    for ask in asks:
        judge.reply(ask)
    path = judge.settings.cache
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        lines = whole[:cut].count(b"\n") + (cut < len(whole) and whole[cut : cut + 1] == b"\n")
        assert len(read_replies(path)) == lines
    path.write_bytes(whole[:-9])
    resumed = endpoint(server, tmp_path)
    assert [resumed.reply(ask).text for ask in asks] == ["a", "b", "d"] and resumed.asked == 1
    assert len(read_replies(path)) == 3, "the torn line spoils none after it"


def test_a_busy_endpoint_is_asked_again_and_a_refusal_is_not(serve: Any, tmp_path: Path) -> None:
    busy = serve(429, 503, "yes")
    assert endpoint(busy, tmp_path).reply(ASK).text == "yes" and len(busy.bodies) == 3
    broken = serve(b"<html>", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}')
    with pytest.raises(JudgeError, match="no reply in 3 attempts; last: no chat completion"):
        endpoint(broken, tmp_path / "b").reply(ASK)
    refusing = serve(401, "never asked")
    with pytest.raises(JudgeError, match="no reply in 1 attempts; last: status 401"):
        endpoint(refusing, tmp_path / "c").reply(ASK)
    assert len(refusing.bodies) == 1
    refusing.shutdown()
    refusing.server_close()
    gone = endpoint(refusing, tmp_path / "d", attempts=2)
    with pytest.raises(JudgeError, match="no reply in 2 attempts"):
        gone.reply(ASK)
    assert not gone.settings.cache.exists()


def test_without_an_endpoint_somebody_stands_in_who_says_so() -> None:
    judge = make_judge(None)
    assert isinstance(judge, StandIn) and judge.stand_in and judge.id == STAND_IN
    assert judge.reply(ASK).text == ASK.offline and judge.reply(ASK).date == ""

"""One way to ask a language model for a verdict: any OpenAI-compatible endpoint, or an offline stand-in.

Replies are kept in a file by hash of (judge, prompt, decoding), one JSON object a line, written as they come: a killed
run goes on where it stopped, and scoring again asks nobody.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol

from visiontokens.config import JudgeConfig
from visiontokens.provenance import sha256_json

STAND_IN = "stand-in, not a judge"
_LONGEST_WAIT = 60.0
_TRY_AGAIN = frozenset({408, 409, 425, 429})


class JudgeError(ValueError):
    """The judge cannot be asked, or what it says is no answer."""


@dataclass(frozen=True)
class Ask:
    """One request for a verdict.

    Attributes:
        prompt: the user's message.
        system: the system message; none if empty.
        temperature: of the decoding.
        max_tokens: of the reply; 0 leaves it to the endpoint.
        run: number of the repetition, so that repeated judgements are drawn anew.
        offline: what the stand-in replies, in the form that the protocol expects of a judge.
    """

    prompt: str
    offline: str
    system: str = ""
    temperature: float = 0.0
    max_tokens: int = 0
    run: int = 0


@dataclass(frozen=True)
class Reply:
    """What came back: the text, and the UTC date of the judgement (none from a stand-in)."""

    text: str
    date: str = ""


class Judge(Protocol):
    """Whoever replies to `Ask`s."""

    @property
    def id(self) -> str:
        """Who judges, as scores name it."""

    @property
    def stand_in(self) -> bool:
        """Whether nobody judges, so that no table may take the scores."""

    def reply(self, ask: Ask) -> Reply:
        """Return the judge's reply."""


@dataclass(frozen=True)
class StandIn:
    """Replies by a rule of the protocol, the same one each time; it tries out the pipeline where no judge is."""

    id: str = STAND_IN
    stand_in: bool = True

    def reply(self, ask: Ask) -> Reply:
        """Return the reply that the protocol computed."""
        return Reply(ask.offline)


@dataclass
class Endpoint:
    """A model behind an OpenAI-compatible endpoint, with its cache.

    Attributes:
        settings: where and how.
        asked: requests sent so far; cached replies are not among them.
    """

    settings: JudgeConfig
    asked: int = 0
    stand_in: bool = False
    _replies: dict[str, Reply] | None = field(default=None, repr=False)

    @property
    def id(self) -> str:
        """Model and address."""
        return f"{self.settings.model} at {self.settings.url}"

    def reply(self, ask: Ask) -> Reply:
        """Return the cached reply, or ask and cache.

        Raises:
            JudgeError: the endpoint refuses, or fails in every attempt.
        """
        if self._replies is None:
            self._replies = read_replies(self.settings.cache)
        key = sha256_json([self.id, ask.system, ask.prompt, ask.temperature, ask.max_tokens, ask.run])
        if key not in self._replies:
            self.asked += 1
            found = Reply(self._request(ask), datetime.now(UTC).strftime("%Y-%m-%d"))
            append_reply(self.settings.cache, key, self.id, found)
            self._replies[key] = found
        return self._replies[key]

    def _request(self, ask: Ask) -> str:
        """Send one request, again with growing pauses while the endpoint is busy or away."""
        wait, last = self.settings.backoff, ""
        for attempt in range(self.settings.attempts):
            if attempt:
                time.sleep(min(wait, _LONGEST_WAIT))
                wait *= 2
            try:
                return self._once(ask)
            except urllib.error.HTTPError as err:
                last = f"status {err.code}: {err.read(300).decode(errors='replace')}"
                if err.code < 500 and err.code not in _TRY_AGAIN:
                    break
            except (OSError, HTTPException) as err:  # URLError and timeouts are OSErrors
                last = str(err) or type(err).__name__
            except (ValueError, LookupError, TypeError) as err:
                last = f"no chat completion in the reply ({err})"
        raise JudgeError(f"judge {self.id}: no reply in {attempt + 1} attempts; last: {' '.join(last.split())}")

    def _once(self, ask: Ask) -> str:
        """Send one request and return the text of the first choice."""
        messages = [{"role": "system", "content": ask.system}] if ask.system else []
        messages.append({"role": "user", "content": ask.prompt})
        body: dict[str, Any] = {"model": self.settings.model, "messages": messages, "temperature": ask.temperature}
        if ask.max_tokens:
            body["max_tokens"] = ask.max_tokens
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.settings.key_env, "")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            f"{self.settings.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=self.settings.timeout) as response:
            text = json.load(response)["choices"][0]["message"]["content"]
        if not isinstance(text, str):
            raise TypeError(f"found {type(text).__name__}, expected a text")
        return text


def make_judge(settings: JudgeConfig | None) -> Judge:
    """Return the configured judge, or the stand-in."""
    return Endpoint(settings) if settings else StandIn()


def read_replies(path: Path) -> dict[str, Reply]:
    """Read cached replies; a line that a kill or a full disk tore is one reply less, never an error."""
    found: dict[str, Reply] = {}
    if not path.is_file():
        return found
    for line in path.read_bytes().split(b"\n"):
        record = _record(line)
        if record:
            found[record["key"]] = Reply(record["text"], record["date"])
    return found


def _record(line: bytes) -> Mapping[str, str] | None:
    """Return a whole line's record, or None."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    fields = ("key", "text", "date")
    return record if isinstance(record, dict) and all(isinstance(record.get(name), str) for name in fields) else None


def append_reply(path: Path, key: str, judge: str, reply: Reply) -> None:
    """Append one reply and bring it to disk; a torn last line is closed first, so that it spoils no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"key": key, "judge": judge, "date": reply.date, "text": reply.text}, ensure_ascii=False)
    with path.open("a+b") as handle:
        size = handle.seek(0, os.SEEK_END)
        if size:
            handle.seek(size - 1)
            if handle.read(1) != b"\n":
                line = f"\n{line}"
        handle.write(f"{line}\n".encode())  # in append mode one write, so that two processes do not mix their lines
        handle.flush()
        os.fsync(handle.fileno())

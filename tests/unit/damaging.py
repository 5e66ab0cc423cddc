"""Cutting files and flipping their bits, at seeded places, and what a reader may then do."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROUNDS = int(os.environ.get("VISIONTOKENS_DAMAGE_ROUNDS", "100"))
"""Cuts, and flips, of each file."""


def cuts(raw: bytes, seed: int = 0, rounds: int = ROUNDS) -> Iterator[bytes]:
    """Yield beginnings of a file, among them the empty one and those that end with a line."""
    rng = random.Random(seed)
    ends = [n + 1 for n, byte in enumerate(raw[:-1]) if byte == 0x0A]
    yield b""
    for _ in range(rounds - 1):
        yield raw[: rng.choice(ends) if ends and rng.random() < 0.3 else rng.randrange(1, len(raw))]


def flips(raw: bytes, seed: int = 0, rounds: int = ROUNDS) -> Iterator[bytes]:
    """Yield copies of a file with one bit flipped."""
    rng = random.Random(seed)
    for _ in range(rounds):
        at = rng.randrange(len(raw))
        yield raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :]


def outcome(path: Path, damaged: bytes, read: Callable[[], Any], named: Path | None = None) -> tuple[str, Any]:
    """Let a reader read a damaged file: `("content", value)`, or `("error", exception)` if it is clear.

    Clear is a ValueError or OSError that names the file (or `named`, where another file tells). The file is left
    damaged.

    Raises:
        AssertionError: the error is of another kind, or does not name the file.
    """
    path.write_bytes(damaged)
    try:
        return "content", read()
    except (ValueError, OSError) as err:
        names = {path.name, (named or path).name}
        assert any(name in str(err) for name in names), f"{type(err).__name__} without {path.name}: {err}"
        assert not isinstance(err, UnicodeError), f"a bare {type(err).__name__}: {err}"
        return "error", err
    except Exception as err:
        raise AssertionError(f"{path.name}: {type(err).__name__}: {err} ({len(damaged)} bytes)") from err


def mutations(raw: bytes, rng: random.Random) -> Iterator[bytes]:
    """Yield a file again and again, each time changed in one way: its values, its lines, or its bytes."""
    try:
        plain = json.loads(raw)
    except ValueError:
        plain = None
    while True:
        kind = rng.choice(("value", "line", "bytes")) if plain is not None else rng.choice(("line", "bytes"))
        if kind == "value":
            yield json.dumps(_changed(plain, rng)).encode()
        elif kind == "line":
            yield _other_lines(raw, rng)
        else:
            at, to = sorted(rng.randrange(len(raw) + 1) for _ in range(2))
            middle = rng.choice((b"", rng.randbytes(rng.randrange(40)), raw[at:to] * 2, b"\xff\xfe", b"\0" * 16))
            yield raw[:at] + middle + raw[to:]


ODD = (None, True, -1, 0, 10**40, 1.5, float("nan"), "", "x", "\ud7ff\0", "../..", [], {}, [[]], {"": None}, "a" * 5000)
"""Values that a parser may not expect."""


def _changed(value: Any, rng: random.Random) -> Any:
    """Return plain data with one node replaced, removed or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.2:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        if rng.random() < 0.2:
            return [*value[:at], *rng.choice(([], [value[at], value[at]])), *value[at + 1 :]]
        return [*value[:at], _changed(value[at], rng), *value[at + 1 :]]
    return rng.choice(ODD)


def _other_lines(raw: bytes, rng: random.Random) -> bytes:
    """Return a file with a line removed, doubled, moved or with its cells mixed."""
    lines = raw.split(b"\n")
    at = rng.randrange(len(lines))
    kind = rng.choice(("remove", "double", "move", "cells"))
    line = lines.pop(at)
    if kind == "double":
        lines[at:at] = [line, line]
    elif kind == "move":
        lines.insert(rng.randrange(len(lines) + 1), line)
    elif kind == "cells":
        mark = rng.choice((b"\t", b",", b'"', b":", b" "))
        cells = line.split(mark)
        rng.shuffle(cells)
        lines.insert(at, mark.join(cells))
    return b"\n".join(lines)

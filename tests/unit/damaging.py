"""Cutting files and flipping their bits, at seeded places, and what a reader may then do."""

from __future__ import annotations

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

"""Ways in which a file goes bad."""

from __future__ import annotations

import os
import random
from pathlib import Path


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file in one of several ways, with its date kept or not; return what was done."""
    status, raw = path.stat(), path.read_bytes()
    kind = rng.choice(("cut", "cut", "flip", "flip", "flip", "empty", "zeros", "append"))
    at = rng.randrange(max(len(raw), 1))
    if kind == "cut":
        raw = raw[:at]
    elif kind == "flip" and raw:
        raw = raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :]
    elif kind == "empty":
        raw = b""
    elif kind == "zeros":
        raw = raw[:at] + bytes(len(raw[at : at + 512])) + raw[at + 512 :]
    else:
        raw += b"\0garbage"
    path.write_bytes(raw)
    if rng.random() < 0.5:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return f"{kind} at {at}, date kept"
    return f"{kind} at {at}"

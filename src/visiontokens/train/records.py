"""What a training run leaves behind: its identity, its log, its checkpoints and its final record."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visiontokens.provenance import read_json, read_text, sha256_json, stamp, write_json
from visiontokens.seals import check

log = logging.getLogger(__name__)
MARK = "complete.json"
"""Written last into a checkpoint; one without it was cut short and is not used."""


class ResumeError(ValueError):
    """A run folder belongs to a run with other settings."""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one level with dotted keys."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def claim(run_dir: Path, identity: Mapping[str, Any], *, write: bool = True) -> None:
    """Write `run.json` into a fresh run folder, or check that the one there is of the same run.

    Args:
        run_dir: the run folder.
        identity: what the run's results depend on.
        write: False in all processes of a run but the first, which only check.

    Raises:
        ResumeError: the folder's run differs; every differing key is named with both values.
    """
    path = run_dir / "run.json"
    wanted = json.loads(json.dumps(identity, default=str))
    if not path.is_file():
        if write:
            write_json(path, wanted)
        return
    old, new = flat(read_json(path)), flat(wanted)
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    if changed:
        lines = "; ".join(f"{key}: found {old.get(key)!r}, expected {new.get(key)!r}" for key in changed)
        raise ResumeError(
            f"{path}: an unfinished run with other settings lies here ({lines}). "
            "Restore the settings to continue it, or remove the folder to start over."
        )


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the latest complete checkpoint and remove incomplete and damaged ones."""
    complete: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        if (path / MARK).is_file() and _whole(path):
            complete.append((int(path.name.rsplit("-", 1)[1]), path))
        else:
            shutil.rmtree(path)
    return max(complete)[1] if complete else None


def _whole(checkpoint: Path) -> bool:
    """Tell whether a checkpoint is as it was written; a damaged one would train to other weights without an error."""
    try:
        check(checkpoint)
    except ValueError as err:
        log.warning("%s: damaged, not used: %s", checkpoint, err)
        return False
    return True


def trim_log(path: Path, step: int) -> None:
    """Drop the lines of `log.jsonl` after `step` (work that a resumed run does again) and a half-written last line."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Read a `log.jsonl`: one mapping per optimizer step.

    Raises:
        ValueError: a malformed line; the message names file and line.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as err:
            raise ValueError(f"{path}:{number}: not valid JSON: {err.msg}") from err
    return rows


def final_record(
    identity: Mapping[str, Any], log: list[dict[str, Any]], parameters: Mapping[str, int]
) -> dict[str, Any]:
    """Return what `record.json` says about a finished run.

    Times are sums over the log's steps, so they hold for resumed runs too (work that was lost is not counted).

    Args:
        identity: what `claim` checked.
        log: rows of `log.jsonl`.
        parameters: counts, e.g. `trained` and `total`.
    """
    losses = [row["loss"] for row in log]
    tail = losses[-max(1, len(losses) // 10) :]
    return {
        **stamp(),
        "run": json.loads(json.dumps(identity, default=str)),
        "config_hash": sha256_json(identity)[:16],
        "data_hash": identity.get("data_hash", ""),
        "parameters": dict(parameters),
        "steps": len(log),
        "epochs": identity["settings"]["epochs"],
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "loss_last_tenth": sum(tail) / len(tail),
        "tokens_seen": sum(row["tokens"] for row in log),
        "wall_seconds": round(sum(row["seconds"] for row in log), 3),
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in log), 3),
        **speed(log),
    }


def speed(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return padding share, tokens per second and MFU of a run from its log (weighted by tokens and time)."""
    rows = [row for row in rows if row.get("lm_tokens")]
    seconds, tokens = sum(row["seconds"] for row in rows), sum(row["lm_tokens"] for row in rows)
    if not seconds:
        return {}
    slots = sum(row["lm_tokens"] / (1 - row["padding"]) for row in rows)
    return {
        "padding": round(1 - tokens / slots, 4),
        "tokens_per_second": round(tokens / seconds, 1),
        "mfu": round(sum(row["mfu"] * row["seconds"] for row in rows) / seconds, 6),
    }

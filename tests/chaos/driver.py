"""Rounds of chaos over the workflow: a finished run, one fault, and the question whether a wrong number came out.

    python tests/chaos/driver.py --rounds 100 --folder DIR

A round ends well in one of two ways: the run succeeds and every result file equals the undisturbed one; or it fails
with an error that names what is wrong, and equals the undisturbed one after the obvious remedy. Rounds are numbered;
the number is the seed. The log in the folder (`log.jsonl`) says which are done: called again, the rest run.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

import mounts
from cases import CASES
from compare import differing, state
from faults import Attempt, Skipped
from jobs import JOBS
from sandbox import Sandbox

CODE = ("src", "workflow", "Snakefile", "config", "profiles", "notebooks")


def play(sandbox: Sandbox, number: int) -> dict[str, object]:
    """Play one round and return its line for the log; `verdict` is `equal`, `mended`, `skipped` or what went wrong."""
    kind, fault, rule = CASES[number % len(CASES)]
    begun, rng = time.monotonic(), random.Random(number)
    row: dict[str, object] = {"round": number, "fault": kind, "rule": rule}
    sandbox.restore()
    try:
        attempt = fault(sandbox, JOBS[rule], rng)
        row |= {"note": attempt.note, "code": attempt.ended.code}
        row["verdict"] = judge(sandbox, attempt, JOBS[rule].target if kind != "everything" else None)
    except Skipped as reason:
        row |= {"verdict": "skipped", "note": str(reason)}
    except Exception as err:  # a round that breaks the driver is a failed round, and the others go on
        row["verdict"] = f"BROKEN: {type(err).__name__}: {str(err)[-900:]}"
    finally:
        mounts.release()
    return row | {"seconds": round(time.monotonic() - begun, 1)}


def wrong_files(sandbox: Sandbox) -> list[str]:
    """Return what differs from the undisturbed run; times of both are taken out of the pages of both."""
    expected = state(sandbox.finished, sandbox.tree)
    return differing(expected, state(sandbox.tree, sandbox.finished))


def judge(sandbox: Sandbox, attempt: Attempt, target: str | None) -> str:
    """Say how a disturbed run came out, after the remedy where it failed."""
    if attempt.ended.code == 0:
        damaged = set(attempt.names) - {target}
        wrong = [line for line in wrong_files(sandbox) if line.split(":")[0] not in damaged]
        return "equal" if not wrong else f"WRONG without an error: {'; '.join(wrong[:5])}"
    fault = unclear(attempt)
    attempt.mend()
    again = sandbox.run(*([target] if target else []))
    if again.code:
        return f"STUCK after the remedy: {tail(again.text)}"
    if wrong := wrong_files(sandbox):
        return f"WRONG after the remedy: {'; '.join(wrong[:5])}"
    return fault or "mended"


def unclear(attempt: Attempt) -> str:
    """Return what an error lacks: it has to name one of the attempt's names, and no traceback belongs into it."""
    lines = attempt.ended.text.splitlines()
    told = [line for line in lines if not re.match(r"\s*(input|output|log|Command|wildcards|shell|Select)\b", line)]
    spoken = "\n".join(line for line in told if "visiontokens " not in line or " --config " not in line)
    if attempt.names and not any(name in spoken for name in attempt.names):
        return f"UNCLEAR: names none of {attempt.names}: {tail(spoken)}"
    if attempt.names and "Traceback (most recent call last)" in spoken:
        return f"UNCLEAR: a traceback: {tail(spoken)}"
    return ""


def tail(text: str) -> str:
    """Return the telling end of an output."""
    telling = [line for line in text.splitlines() if re.search(r"Error|error|visiontokens [a-z-]+:", line)]
    return " | ".join(telling[-6:] or text.splitlines()[-3:])[-900:]


def done(log: Path) -> dict[int, dict[str, object]]:
    """Return the rounds that a log holds."""
    if not log.exists():
        return {}
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return {row["round"]: row for row in rows}


def main() -> int:
    """Play the rounds that are missing from the log; return 1 when one went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=len(CASES), help="rounds 0 to this")
    parser.add_argument("--only", type=int, nargs="*", help="these rounds, whether done or not")
    parser.add_argument("--folder", type=Path, default=Path(".chaos"), help="for the clone and the log")
    parser.add_argument("--fresh", action="store_true", help="clone the working tree anew (the log stays)")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no round after so many")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    sandbox, log = Sandbox(args.folder.resolve() / "box"), args.folder / "log.jsonl"
    if args.fresh:
        shutil.rmtree(sandbox.folder, ignore_errors=True)
    sandbox.prepare()
    rows = done(log)
    todo = args.only if args.only is not None else [n for n in range(args.rounds) if n not in rows]
    begun = time.monotonic()
    for place, number in enumerate(todo):
        if time.monotonic() - begun > 60 * args.minutes:
            break
        row = play(sandbox, number)
        rows[number] = row
        with log.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        left = (time.monotonic() - begun) / (place + 1) * (len(todo) - place - 1) / 60
        verdict = str(row["verdict"])
        print(f"{place + 1}/{len(todo)} round {number} {row['fault']} {row['rule']} ({row.get('note', '')}): {verdict}"
              f"  [{row['seconds']} s, {left:.0f} min left]", flush=True)  # fmt: skip
    counts = Counter(re.split(r"[ :]", str(row["verdict"]))[0] for row in rows.values())
    print(f"{sum(counts.values())} rounds: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
    return int(bool(counts.keys() - {"equal", "mended", "skipped"}))


if __name__ == "__main__":
    sys.exit(main())

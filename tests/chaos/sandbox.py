"""A clone with a finished run of the workflow at its smallest size, which every round starts from a copy of."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/artifact"))
from clone import copy_tree  # noqa: E402 - the path comes first

SCALE = "chaos"
RESULTS, WORLD = f"results/{SCALE}", f"data/world/{SCALE}"
SETTINGS = ["config/scales/smoke.yaml", "tests/chaos/settings.yaml"]
BASELINE = "volta-four-wider-deeper"
ROWS = {BASELINE: "", "stf-mbtf": "", "gsearch-test": BASELINE, "prumerge-8-test": BASELINE}
"""Rows of the experiment table that run, with the row that test-only ones take their weights from."""
STATE = (RESULTS, WORLD, ".snakemake", "data/backbones", "config")
"""What a round may change."""


@dataclass(frozen=True)
class Ended:
    """How a run of the workflow ended: exit code (negative: signal) and what it printed, failed jobs' logs included."""

    code: int
    text: str


class Sandbox:
    """A clone (`tree`), its finished state (`finished`), and what runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tree, self.finished = folder, folder / "tree", folder / "finished"

    def __truediv__(self, name: str) -> Path:
        return self.tree / name

    def prepare(self) -> None:
        """Clone the working tree and run the workflow once, unless that has been done here."""
        if (self.folder / "ready").exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.tree.mkdir(parents=True)
        copy_tree(self.tree)
        write_table(self / "config/experiments.tsv", self / "config/chaos.tsv")
        ended = self.run()
        if ended.code:
            raise RuntimeError(f"the undisturbed run failed:\n{ended.text[-6000:]}")
        for name in STATE:
            shutil.copytree(self / name, self.finished / name, symlinks=True)
        (self.folder / "ready").touch()

    def restore(self) -> None:
        """Bring the finished state back, dates included."""
        for name in STATE:
            shutil.rmtree(self / name, ignore_errors=True)
            shutil.copytree(self.finished / name, self / name, symlinks=True)

    def start(self, *targets: str, env: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()) -> Running:
        """Start the workflow in a session of its own."""
        return Running(self, [*prefix, *command(*targets)], env or {})

    def run(self, *targets: str, env: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()) -> Ended:
        """Run the workflow to its end."""
        return self.start(*targets, env=env, prefix=prefix).wait()


class Running:
    """A workflow that runs, and all of its processes."""

    count = 0

    def __init__(self, sandbox: Sandbox, arguments: list[str], env: Mapping[str, str]) -> None:
        Running.count += 1
        self.output = sandbox.folder / f"output-{os.getpid()}-{Running.count}.txt"
        full = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(sandbox / "src"),
            "OMP_NUM_THREADS": "1",
            **env,
        }
        with self.output.open("wb") as handle:
            self.process = subprocess.Popen(
                arguments, cwd=sandbox.tree, env=full, stdout=handle, stderr=handle, start_new_session=True
            )

    def members(self) -> list[int]:
        """Return the ids of the processes of this session but Snakemake's own (its id is the session's)."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.process.pid:
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    found.append(int(entry.name))
        return sorted(found)

    def kill(self, pids: list[int], number: int = signal.SIGKILL) -> None:
        """Send a signal to processes of this session."""
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def wait(self, timeout: int = 900) -> Ended:
        """Wait for the end of the run (not of orphans it left)."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill([*self.members(), self.process.pid])
            code = self.process.wait()
            return Ended(code, self.text() + "\n(killed: it did not end in time)")
        return Ended(code, self.text())

    def text(self) -> str:
        """Return what has been printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")


def command(*targets: str) -> list[str]:
    """Return the command a user runs, restarts included (the profile says `rerun-incomplete`)."""
    return [
        "snakemake", "--cores", "2", "--configfile", *SETTINGS, "--show-failed-logs", "--rerun-incomplete",
        *(["--", *targets] if targets else []),
    ]  # fmt: skip


def write_table(source: Path, target: Path) -> None:
    """Write the few rows that run, taken from the whole table of experiments."""
    with source.open(encoding="utf-8", newline="") as handle:
        lines = (line for line in handle if not line.startswith("#"))
        reader = csv.DictReader(lines, delimiter="\t")
        names = list(reader.fieldnames or [])
        rows = {row["id"]: row for row in reader if row["id"] in ROWS}
    if missing := ROWS.keys() - rows.keys():
        raise ValueError(f"{source}: expected the rows {sorted(ROWS)}, missing {sorted(missing)}")
    with target.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, names, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for name, weights in ROWS.items():
            writer.writerow(rows[name] | {"weights_from": weights})

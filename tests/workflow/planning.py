"""How the workflow is planned in tests."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = ("Snakefile", "environment.yml", "data/registry.tsv")
FOLDERS = ("config", "data/backbones", "data/reference", "notebooks", "profiles", "workflow")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def tool(name: str) -> str:
    """Return the path of a command of the environment the tests run in."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name


def job_counts(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Return the table of planned jobs from the output of a dry run."""
    text = done.stdout + done.stderr
    table = re.search(r"Job stats:\n.*\n-+ +-+\n((?:\w+ +\d+\n)+)", text)
    assert table, text
    return {name: int(count) for name, count in (line.split() for line in table[1].splitlines())}

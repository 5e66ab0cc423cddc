"""How the workflow is planned in tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = ("Snakefile", "environment.yml", "data/registry.tsv")
FOLDERS = ("config", "data/backbones", "data/reference", "notebooks", "profiles", "workflow")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def tool(name: str) -> str:
    """Return the path of a command of the environment the tests run in."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name


def copy_workflow(folder: Path) -> Path:
    """Copy the files that the workflow is planned from, without results."""
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name)
    return folder


def runner(checkout: Path, more: Mapping[str, str] | None = None) -> Run:
    """Return a function that runs snakemake in the checkout, with more variables; a failure shows its output."""

    def run(*arguments: str, fails: bool = False, tools: Path | None = None) -> subprocess.CompletedProcess[str]:
        folders = [str(tools)] if tools else []
        env = {**os.environ, "PATH": ":".join([*folders, str(Path(sys.executable).parent), os.environ["PATH"]])}
        env |= more or {}
        call = [tool("snakemake"), *arguments]
        done = subprocess.run(call, cwd=checkout, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done

    return run


def job_counts(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Return the table of planned jobs from the output of a dry run."""
    text = done.stdout + done.stderr
    table = re.search(r"Job stats:\n.*\n-+ +-+\n((?:\w+ +\d+\n)+)", text)
    assert table, text
    return {name: int(count) for name, count in (line.split() for line in table[1].splitlines())}

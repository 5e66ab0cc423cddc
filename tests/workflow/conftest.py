"""A fresh checkout to plan in: the developer's own results and records must not matter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from planning import FILES, FOLDERS, ROOT, Run, tool


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that the workflow is planned from, without results."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def snakemake(checkout: Path) -> Run:
    """Run snakemake in the checkout; a failure shows its output."""

    def run(*arguments: str, fails: bool = False, tools: Path | None = None) -> subprocess.CompletedProcess[str]:
        folders = [str(tools)] if tools else []
        env = {**os.environ, "PATH": ":".join([*folders, str(Path(sys.executable).parent), os.environ["PATH"]])}
        call = [tool("snakemake"), *arguments]
        done = subprocess.run(call, cwd=checkout, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done

    return run

"""A fresh clone of the working tree, as a reader would have it, and the commands to run in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCALE = "smoke"


class Clone:
    """A checkout with a git history, where commands run in this environment but with the clone's own package."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def run(self, *command: str, fails: bool = False, timeout: int = 3600) -> str:
        """Run a command and return what it printed; an unexpected exit code shows all of it."""
        env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "src"),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
        text = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, text[-8000:]
        return text

    def snakemake(self, *arguments: str) -> str:
        """Run the workflow at smoke scale."""
        return self.run("snakemake", "--configfile", f"config/scales/{SCALE}.yaml", *arguments)

    def git(self, *arguments: str) -> str:
        """Run git as somebody."""
        return self.run("git", "-c", "user.name=test", "-c", "user.email=test@example.org", *arguments)


def working_files() -> list[str]:
    """Return the files of the working tree that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def copy_tree(folder: Path) -> Clone:
    """Copy the working tree into `folder` and commit it there."""
    for name in working_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    clone = Clone(folder)
    clone.git("init", "-q", "-b", "main")
    clone.git("add", "-A")
    clone.git("commit", "-q", "-m", "state under test")
    return clone

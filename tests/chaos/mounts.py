"""Small and read-only file systems over folders of the sandbox, where this machine allows them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from sandbox import SETTINGS, Sandbox, command

__all__ = ["ReadOnly", "Tmpfs", "allowed", "command", "release", "settings", "shell", "size"]
_MOUNTED: list[Path] = []


def settings() -> list[str]:
    """Return the settings files of the workflow."""
    return SETTINGS


def shell(sandbox: Sandbox, *arguments: str) -> None:
    """Run a command of this environment in the tree; its outcome shows in the next run."""
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(sandbox / "src"),
    }
    subprocess.run(arguments, cwd=sandbox.tree, env=env, capture_output=True, check=False, timeout=120)


@cache
def allowed() -> bool:
    """Tell whether file systems can be mounted here."""
    with TemporaryDirectory() as folder:
        if _do("mount", "-t", "tmpfs", "-o", "size=64k", "none", folder):
            return False
        return not _do("umount", folder)


def _do(*arguments: str) -> int:
    if shutil.which(arguments[0]) is None:
        return 127
    return subprocess.run(arguments, capture_output=True, check=False).returncode


def size(folder: Path) -> int:
    """Return the bytes that a folder takes in whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in folder.rglob("*"))


class Tmpfs:
    """A file system in memory with little room, mounted over a folder whose files it takes over."""

    def __init__(self, folder: Path, room: int) -> None:
        self.folder = folder
        with TemporaryDirectory(dir=folder.parent) as aside:
            shutil.copytree(folder, Path(aside) / "copy", symlinks=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(room, 1 << 16)}", "none", folder], check=True)
            _MOUNTED.append(folder)
            shutil.copytree(Path(aside) / "copy", folder, symlinks=True, dirs_exist_ok=True)

    def widen(self) -> None:
        """Make room."""
        subprocess.run(["mount", "-o", "remount,size=2g", self.folder], check=True)


class ReadOnly:
    """A folder mounted over itself, read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        _MOUNTED.append(folder)
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)

    def undo(self) -> None:
        """Let the folder be written again."""
        subprocess.run(["mount", "-o", "remount,rw,bind", self.folder], check=True)


def release() -> None:
    """Take every mounted file system away."""
    while _MOUNTED:
        subprocess.run(["umount", "-l", _MOUNTED.pop()], check=False)

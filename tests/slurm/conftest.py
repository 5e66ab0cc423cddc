"""A SLURM of one node for the session; installed if need be and allowed, and always taken down."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from lab import PACKAGES, Lab, install, missing


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A running cluster of 2 CPUs and 2 fake GPUs; skips with a reason where there can be none."""
    if missing():
        wanted = f"SLURM is not installed (missing: {', '.join(missing())})"
        if os.geteuid() or shutil.which("apt-get") is None:
            pytest.skip(f"{wanted}; as root on Debian the test installs {' and '.join(PACKAGES)} itself")
        try:
            install()
        except (subprocess.SubprocessError, OSError) as err:
            pytest.skip(f"{wanted}, and its packages cannot be installed here: {err}")
    lab = Lab(tmp_path_factory.mktemp("slurm") / "lab")
    try:
        lab.start()
        yield lab
    finally:
        lab.stop()

"""A fresh checkout to plan in: the developer's own results and records must not matter."""

from __future__ import annotations

from pathlib import Path

import pytest
from planning import Run, copy_workflow, runner


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout without results, which every test leaves without."""
    return copy_workflow(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def snakemake(checkout: Path) -> Run:
    """Run snakemake in the checkout, to plan."""
    return runner(checkout)

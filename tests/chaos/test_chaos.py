"""A few rounds of chaos; `make chaos ROUNDS=100` plays the long run, and goes on where it was stopped."""

from __future__ import annotations

import os

import pytest
from cases import CASES
from driver import play
from jobs import JOBS
from sandbox import Sandbox

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "3"))
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """A clone with a finished run."""
    made = Sandbox(tmp_path_factory.mktemp("chaos") / "box")
    made.prepare()
    return made


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_fault_ends_in_the_same_results_or_a_clear_error(sandbox: Sandbox, number: int) -> None:
    row = play(sandbox, number)
    assert row["verdict"] in {"equal", "mended", "skipped"}, row


def test_every_rule_is_killed_and_its_disk_filled() -> None:
    for fault in ("kill", "full disk"):
        assert {rule for name, _, rule in CASES if name == fault} == JOBS.keys()

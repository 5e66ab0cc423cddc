"""Who made a result: a state with edits is dirty, unless they are the results that a run itself writes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from visiontokens.provenance import stamp


@pytest.mark.parametrize(("edited", "dirty"), [(None, False), ("code.py", True), ("results/mini/metrics.json", False)])
@pytest.mark.parametrize("below", [".", "results"])
def test_edits_make_a_state_dirty_but_results_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: str | None, dirty: bool, below: str
) -> None:
    for name in ("code.py", "results/mini/metrics.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    if edited:
        (tmp_path / edited).write_text("2")
    monkeypatch.chdir(tmp_path / below)
    assert stamp()["dirty"] is dirty

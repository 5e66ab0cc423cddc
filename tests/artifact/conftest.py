"""One run of the whole workflow, shared by the tests of what comes after it."""

from __future__ import annotations

import pytest
from clone import SCALE, Clone, copy_tree


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which `dvc repro` has run the whole workflow at smoke scale."""
    folder = tmp_path_factory.mktemp("artifact") / "clone"
    folder.mkdir()
    clone = copy_tree(folder)
    pipeline = clone / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace("- scale: mini", f"- scale: {SCALE}"))
    clone.git("commit", "-qam", "smoke scale")
    clone.run("dvc", "repro")
    return clone

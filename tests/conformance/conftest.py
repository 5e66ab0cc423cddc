"""Settings for all conformance tests."""

from pathlib import Path

import pytest
import torch
from goldens import ROOT


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the recorded fixtures: `VISIONTOKENS_GOLDEN`, by default the one beside this file."""
    return ROOT


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)

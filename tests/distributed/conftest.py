"""One tiny world for all runs."""

import pytest
from launching import make


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    make(root)
    return root

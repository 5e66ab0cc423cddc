"""A training run killed at any moment and started again ends with the same losses and weights, bit by bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).parents[1] / "unit/tiny_training.py"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    code = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import tiny_training as t, pathlib; "
    code += f"r = pathlib.Path({str(root)!r}); t.make_world(r); t.make_features(r)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())
    return root


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def start(root, run, out):
    command = [sys.executable, str(SCRIPT), str(root), str(run), str(out), "0"]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)


def steps(run):
    path = run / "log.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def comparable(out):
    keep = ("step", "loss", "lr", "tokens", "stage_layer", "stage_stride")
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in keep} for row in rows]


def test_killed_runs_end_like_unbroken_ones(root, tmp_path):
    whole = start(root, tmp_path / "run-whole", tmp_path / "whole")
    assert whole.wait(300) == 0, whole.stderr.read()
    run, out = tmp_path / "run", tmp_path / "out"
    for kill_at in (2, 5, 8):
        process = start(root, run, out)
        deadline = time.monotonic() + 120
        while steps(run) < kill_at and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (out / "record.json").exists()
    last = start(root, run, out)
    assert last.wait(300) == 0, last.stderr.read()
    assert comparable(out) == comparable(tmp_path / "whole")
    expected, found = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", out))
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)


def test_changed_settings_are_refused(root, tmp_path):
    """A run that was stopped half-way does not continue under other settings; the message names them."""
    run, out = tmp_path / "run", tmp_path / "out"
    process = start(root, run, out)
    while steps(run) < 4 and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.wait()
    command = [sys.executable, str(SCRIPT), str(root), str(run), str(out), "1"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert "ResumeError" in done.stderr
    assert "seed: found 0, expected 1" in done.stderr

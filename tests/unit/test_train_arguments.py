"""DeepSpeed's configuration files, and what is refused."""

import importlib.util
import json

import pytest

from visiontokens.train.arguments import deepspeed_config, prepare_deepspeed
from visiontokens.train.processes import StopRequest, from_first, total


@pytest.mark.parametrize("stage", [2, 3])
def test_shipped_configurations_leave_sizes_to_the_settings(request, stage):
    config = deepspeed_config(request.config.rootpath / f"config/deepspeed/zero{stage}.json")
    assert config["zero_optimization"]["stage"] == stage


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"zero_optimization": {}}, "zero_optimization.stage': expected 1, 2 or 3, found None"),
        ({"optimizer": {"type": "Adam"}}, "'optimizer': expected none"),
        ({"train_batch_size": 7}, "'train_batch_size': expected 'auto'"),
    ],
)
def test_configurations_that_contradict_the_settings_are_refused(tmp_path, change, words):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 2}, **change}))
    with pytest.raises(ValueError, match=words) as caught:
        deepspeed_config(path)
    assert str(path) in str(caught.value)


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package deepspeed, found it not installed"):
        prepare_deepspeed(tmp_path / "z.json", "cpu")


def test_a_request_to_stop_is_noted_and_handlers_are_put_back():
    import os
    import signal

    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as request:
        assert not request.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.asked
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_single_process_needs_no_group():
    assert total([1.5, 2], "cpu") == [1.5, 2]
    assert from_first("here") == "here"

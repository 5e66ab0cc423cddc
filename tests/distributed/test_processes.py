"""A run does not depend on the number of its processes, with DeepSpeed or without, stopped or not."""

import importlib.util
import signal
import time

import numpy as np
import pytest
import torch
from launching import ROOT, Job

pytestmark = pytest.mark.slow
BATCHES = {"batch_size": 8, "micro_batch_size": 2, "epochs": 1.3}
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed (extra 'train')"
)
ZERO = [pytest.param(f"config/deepspeed/zero{n}.json", id=f"zero{n}", marks=needs_deepspeed) for n in (2, 3)]


def job(world, tmp_path, name, **options):
    if options.get("deepspeed"):
        options["deepspeed"] = str(ROOT / options["deepspeed"])
    return Job(world, tmp_path / name, **{**BATCHES, **options})


def assert_alike(one, other):
    """Same steps, rates and stages; losses and weights up to the rounding of sums (which Adam amplifies)."""
    for key in ("step", "lr", "stage_layer", "stage_stride"):
        assert [row[key] for row in one.log()] == [row[key] for row in other.log()]
    losses = [[row["loss"] for row in run.log()] for run in (one, other)]
    np.testing.assert_allclose(*losses, rtol=2e-3)
    first, second = one.weights(), other.weights()
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=5e-4, rtol=5e-3, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("experiment", ["none", "staged", "fused", "nested"])
def test_one_two_and_four_processes_agree(world, tmp_path, experiment):
    runs = [job(world, tmp_path, f"p{n}", processes=n, experiment=experiment) for n in (1, 2, 4)]
    for run in runs:
        run.finish()
    for run in runs[1:]:
        assert_alike(runs[0], run)
    if experiment == "staged":
        assert {row["stage_stride"] for row in runs[2].log()} == {4, None}


@pytest.mark.parametrize("experiment", ["staged", "fused", "nested"])
@pytest.mark.parametrize("config", ZERO)
def test_zero_gives_the_losses_and_weights_of_one_process(world, tmp_path, config, experiment):
    plain = job(world, tmp_path, "plain", experiment=experiment)
    shared = job(world, tmp_path, "zero", processes=2, experiment=experiment, deepspeed=config)
    for run in (plain, shared):
        run.finish()
    assert_alike(plain, shared)
    frozen = [name for name in plain.weights() if "vision_tower" in name]
    assert frozen
    assert all(torch.equal(plain.weights()[name], shared.weights()[name]) for name in frozen)


@needs_deepspeed
def test_zero_on_a_single_process_needs_no_launcher(world, tmp_path):
    plain, shared = job(world, tmp_path, "plain"), job(world, tmp_path, "z", deepspeed="config/deepspeed/zero2.json")
    for run in (plain, shared):
        run.finish()
    assert_alike(plain, shared)


@pytest.mark.parametrize("config", [pytest.param(None, id="plain"), *ZERO])
def test_stopped_and_killed_runs_end_like_unbroken_ones(world, tmp_path, config):
    """SIGTERM leaves a checkpoint of the step it met; after SIGKILL the last rolling one is continued."""
    options = {"processes": 2, "experiment": "staged", "epochs": 30, "save_every": 10, "deepspeed": config}
    whole, broken = (job(world, tmp_path, name, **options) for name in ("whole", "broken"))
    whole.finish()
    for number, step in ((signal.SIGTERM, 2), (signal.SIGKILL, 25)):
        process = broken.start()
        deadline = time.monotonic() + 300
        while broken.steps < step and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        if number == signal.SIGKILL:
            broken.kill(process)
        else:
            process.send_signal(number)
        said = broken.said(process)
        assert process.returncode != 0, said
        assert not (broken.out / "record.json").exists()
        if number == signal.SIGTERM:
            assert "stopped on request after step" in said
            assert list(broken.run.glob("checkpoints/checkpoint-*/complete.json"))
    assert "continuing from" in broken.finish()
    assert broken.log() == whole.log()
    assert all(torch.equal(value, whole.weights()[name]) for name, value in broken.weights().items())


def test_another_number_of_processes_is_refused(world, tmp_path):
    first = job(world, tmp_path, "run", processes=2, epochs=30, save_every=2)
    process = first.start()
    while first.steps < 3 and process.poll() is None:
        time.sleep(0.005)
    first.kill(process)
    first.said(process)
    assert "processes: found 2, expected 1" in job(world, tmp_path, "run", epochs=30, save_every=2).finish(fails=True)


def test_a_batch_that_does_not_divide_is_refused(world, tmp_path):
    said = job(world, tmp_path, "three", processes=3).finish(fails=True)
    assert "expected a multiple of micro_batch_size 2 x 3 processes = 6, found 8" in said

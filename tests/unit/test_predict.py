"""A prediction killed, shared out or repeated ends in the bytes of an unbroken one."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prediction_home import BENCHMARKS, arguments, configuration, make_prediction_home
from smoke_world import smoke_world
from tiny_home import weights

from visiontokens.config import load_config
from visiontokens.data.benchmarks import find_benchmark
from visiontokens.evaluate.parts import Share
from visiontokens.evaluate.predict import predict_experiment
from visiontokens.evaluate.predictions import read_predictions
from visiontokens.evaluate.respond import Responder
from visiontokens.provenance import read_json
from visiontokens.seals import SUFFIX

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("prediction_home.py")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_prediction_home(tmp_path_factory.mktemp("home"))


def predict(home, out, share=None, **evaluate):
    return predict_experiment(configuration(home, **evaluate), "none", 0, weights(home), out, share=share)


@pytest.fixture(scope="module")
def whole(home, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    predict(home, out)
    return out


def answers(out):
    return {name: (out / f"{name}.jsonl").read_bytes() for name in BENCHMARKS}


def left(out):
    return sorted(path.name for path in out.iterdir() if path.suffix not in {".jsonl", ".json", SUFFIX})


def counting(monkeypatch, fail_at=None):
    """Note the questions of every batch that is asked; from batch `fail_at` on, die."""
    asked = []
    respond = Responder.respond

    def noted(self, paths, prompts, frames=0, longest=None):
        asked.append(sum(map(len, prompts)))
        if fail_at is not None and len(asked) > fail_at:
            raise KeyboardInterrupt
        return respond(self, paths, prompts, frames, longest)

    monkeypatch.setattr(Responder, "respond", noted)
    return asked


def test_all_questions_are_answered_in_order(whole):
    for name in BENCHMARKS:
        examples = find_benchmark(name).read(smoke_world() / "benchmarks")
        assert len(read_predictions(whole / f"{name}.jsonl", examples)) == len(examples)
    record = read_json(whole / "record.json")
    assert {"weights", "method", "evaluate", "data", "seed", "code", "images", "libraries", "run"} <= set(record)
    assert record["processes"] == 1
    assert left(whole) == []


def test_a_run_that_is_complete_is_not_repeated_unless_a_file_has_changed(home, whole, tmp_path, monkeypatch):
    asked = counting(monkeypatch)
    assert predict(home, whole)
    assert asked == []
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    cut = tmp_path / "pope.jsonl"
    cut.write_bytes(cut.read_bytes()[:-30])
    predict(home, tmp_path)
    assert asked
    assert answers(tmp_path) == answers(whole)


def test_answers_end_where_llava_ends_them(home, tmp_path, monkeypatch):
    limits = {}
    respond = Responder.respond

    def noted(self, paths, prompts, frames=0, longest=None):
        limits[longest] = limits.get(longest, 0) + sum(map(len, prompts))
        return respond(self, paths, prompts, frames, longest)

    monkeypatch.setattr(Responder, "respond", noted)
    predict(home, tmp_path)
    number = {name: len(read_predictions(tmp_path / f"{name}.jsonl")) for name in BENCHMARKS}
    assert limits == {128: number["pope"], 1024: number["scienceqa"]}


@pytest.mark.parametrize("batches", [2, 10])
def test_an_interrupted_run_continues_with_the_batch_it_lost(home, whole, tmp_path, monkeypatch, batches):
    """Also where a workflow removes the files of benchmarks that were complete: their parts are still there."""
    with monkeypatch.context() as patch:
        before = counting(patch, fail_at=batches)
        with pytest.raises(KeyboardInterrupt):
            predict(home, tmp_path)
    assert not (tmp_path / "record.json").exists()
    after = counting(monkeypatch)
    predict(home, tmp_path)
    total = sum(len(read_predictions(whole / f"{name}.jsonl")) for name in BENCHMARKS)
    assert sum(before[:-1]) + sum(after) == total
    assert answers(tmp_path) == answers(whole)
    assert left(tmp_path) == []


def test_shares_of_any_number_give_the_same_files(home, whole, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for index in (2, 0, 1):
        assert not (tmp_path / "record.json").exists()
        assert predict(home, tmp_path, Share(index, 3)) == (index == 1)
    assert "share 2 of 3 is answered, others are not yet" in caplog.text
    assert answers(tmp_path) == answers(whole)
    assert read_json(tmp_path / "record.json")["processes"] == 3
    assert left(tmp_path) == []


def test_a_killed_run_of_two_is_finished_by_one(home, whole, tmp_path, monkeypatch):
    predict(home, tmp_path, Share(1, 2))
    asked = counting(monkeypatch)
    predict(home, tmp_path)
    assert 0 < sum(asked) < sum(len(read_predictions(whole / f"{name}.jsonl")) for name in BENCHMARKS)
    assert answers(tmp_path) == answers(whole)
    assert left(tmp_path) == []


def test_other_settings_start_over(home, whole, tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        counting(patch, fail_at=5)
        with pytest.raises(KeyboardInterrupt):
            predict(home, tmp_path, max_new_tokens=3)
    predict(home, tmp_path)
    assert "made by something else (evaluate: found" in caplog.text
    assert answers(tmp_path) == answers(whole)


def start(home, notes, out, *, processes=1):
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    run = [*(several if processes > 1 else []), str(SCRIPT), str(notes), *map(str, arguments(home, out))]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *run], env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_kill_9_loses_at_most_one_batch(home, whole, tmp_path):
    notes, out = tmp_path / "notes", tmp_path / "out"
    process = start(home, notes, out)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if notes.exists() and len(notes.read_text().splitlines()) > 6:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "record.json").exists()
    process = start(home, notes, out)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert "answers are there, continuing" in said
    asked = list(map(int, notes.read_text().split()))
    total = sum(read_json(out / "record.json")["questions"].values())
    assert total <= sum(asked) <= total + max(asked)
    assert answers(out) == answers(whole)


@pytest.mark.slow
def test_two_processes_of_torchrun_share_the_work(home, whole, tmp_path):
    notes, out = tmp_path / "notes", tmp_path / "out"
    process = start(home, notes, out, processes=2)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert answers(out) == answers(whole)
    record = read_json(out / "record.json")
    assert record["processes"] == 2
    assert sum(map(int, notes.read_text().split())) == sum(record["questions"].values())
    assert left(out) == []


@pytest.mark.parametrize("scale", ["paper", "reviewer"])
def test_official_scales_ask_one_question_at_a_time_and_keep_answers(scale):
    """Half-precision answers change with the questions beside them; half of POPE's questions are asked again."""
    settings = load_config([ROOT / f"config/scales/{scale}.yaml"]).evaluate
    assert settings.batch_size == 1
    assert settings.cache
    assert json.loads(settings.model_dump_json())["max_new_tokens"] == 1024

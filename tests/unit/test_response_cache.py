"""Kept answers: found under everything they depend on, and under nothing else; damage costs time, never an answer."""

import json

import pytest
from prediction_home import BENCHMARKS, configuration, make_prediction_home
from smoke_world import smoke_world
from tiny_home import weights

from visiontokens.data.benchmarks import find_benchmark, subset
from visiontokens.evaluate.cache import ResponseCache, question_key
from visiontokens.evaluate.journal import read_journal
from visiontokens.evaluate.predict import predict_experiment
from visiontokens.evaluate.respond import Responder
from visiontokens.models.build import load_model
from visiontokens.provenance import read_json

WHO = {"weights": "aa", "code": "1"}
KEY, OTHER = "k" * 64, "o" * 64


def put(folder, key=KEY, who=WHO, text=7):
    with ResponseCache(folder, who) as cache:
        cache.put({key: {"ids": [text], "vision_tokens": None}})
    return cache


def get(folder, key=KEY, who=WHO):
    with ResponseCache(folder, who) as cache:
        return cache.get(key)


def test_an_answer_is_found_under_its_own_key_and_identity_only(tmp_path):
    put(tmp_path)
    assert get(tmp_path) == {"ids": [7], "vision_tokens": None}
    assert get(tmp_path, OTHER) is None
    assert get(tmp_path, who={**WHO, "code": "2"}) is None


def test_a_key_stands_for_image_bytes_tokens_and_frames(tmp_path):
    images = [tmp_path / name for name in ("a.png", "b.png", "same.png")]
    for image, content in zip(images, (b"a", b"b", b"a"), strict=True):
        image.write_bytes(content)
    a, b, same = images
    keys = [question_key(a, [1, 2]), question_key(b, [1, 2]), question_key(a, [1, 3]), question_key(a, [1, 2], 8)]
    keys.append(question_key(a, [1, 2], 0, 128))
    assert len({*keys, question_key(None, [1, 2])}) == 6
    assert question_key(same, [1, 2]) == keys[0]


def test_two_processes_write_a_file_each_and_read_both(tmp_path):
    with ResponseCache(tmp_path, WHO) as one, ResponseCache(tmp_path, WHO) as two:
        one.put({KEY: {"ids": [1]}})
        two.put({OTHER: {"ids": [2]}})
        assert one.get(OTHER) is None
        assert (one.hits, one.asked) == (0, 1)
    assert [get(tmp_path, key) for key in (KEY, OTHER)] == [{"ids": [1]}, {"ids": [2]}]
    assert len(list(one.folder.glob("answers-*.jsonl"))) == 2


@pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: raw.replace(b"[8]", b"[9]")])
def test_a_damaged_entry_is_dropped_with_a_warning(tmp_path, caplog, damage):
    put(tmp_path)
    path = put(tmp_path, OTHER, text=8).folder / "answers-0.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    assert get(tmp_path, OTHER) is None
    assert "1 damaged line(s) left out" in caplog.text
    assert get(tmp_path) == {"ids": [7], "vision_tokens": None}
    put(tmp_path, OTHER, text=8)
    assert get(tmp_path, OTHER)["ids"] == [8]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_prediction_home(tmp_path_factory.mktemp("home"))


def predict(home, out, experiment="none", **evaluate):
    config = configuration(home, batch_size=1, cache=True, **evaluate)
    predict_experiment(config, experiment, 0, weights(home), out)
    return {name: (out / f"{name}.jsonl").read_bytes() for name in config.evaluate.benchmarks}


def test_predictions_with_the_cache_are_those_without(home, tmp_path, monkeypatch):
    """A second run asks the model nothing; one of more questions asks for those; equal questions are asked once."""
    monkeypatch.chdir(tmp_path)
    computed = []
    compute = Responder._compute
    monkeypatch.setattr(
        Responder,
        "_compute",
        lambda self, paths, prompts, frames, longest: (
            computed.extend(q for g in prompts for q in g) or compute(self, paths, prompts, frames, longest)
        ),
    )
    few = predict(home, tmp_path / "few", benchmarks=["pope"], limit=18)
    first, total = len(computed), len(few["pope"].splitlines())
    assert 0 < first < total  # the three splits of POPE share their questions with the answer yes
    found = predict(home, tmp_path / "all", limit=36)
    read = {name: find_benchmark(name).read(smoke_world() / "benchmarks") for name in BENCHMARKS}
    examples = [example for some in read.values() for example in subset(some, 36)]
    assert len(computed) == len({(e.image, e.prompt) for e in examples})
    again = predict(home, tmp_path / "again", limit=36)
    assert len(computed) == len({(e.image, e.prompt) for e in examples})
    assert read_json(tmp_path / "again/record.json")["cached"] == {n: len(found[n].splitlines()) for n in BENCHMARKS}
    plain = configuration(home, batch_size=1, limit=36)
    predict_experiment(plain, "none", 0, weights(home), tmp_path / "plain")
    assert found == again == {name: (tmp_path / f"plain/{name}.jsonl").read_bytes() for name in BENCHMARKS}
    assert b"cached" not in found["pope"]


def test_the_count_of_vision_tokens_is_kept_too(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [predict(home, tmp_path / n, "prumerge-test", benchmarks=["pope"]) for n in ("a", "b")]
    assert runs[0] == runs[1]
    assert all("vision_tokens" in json.loads(line)["metadata"] for line in runs[1]["pope"].splitlines())
    assert len(list(tmp_path.glob("results/tiny/cache/*/answers-0.jsonl"))) == 1
    (journal,) = tmp_path.glob("results/tiny/cache/*/answers-0.jsonl")
    assert all(entry["answer"]["vision_tokens"] for entry in read_journal(journal))


def test_a_cache_needs_one_question_at_a_time(home, tmp_path):
    with pytest.raises(ValueError, match="batch_size: expected 1 with cache: true, found 2"):
        configuration(home, batch_size=2, cache=True)
    model = load_model(weights(home))
    with pytest.raises(ValueError, match="batch_size: found 2, expected 1 with a response cache"):
        Responder(model, None, None, tmp_path, batch_size=2, max_new_tokens=1, cache=ResponseCache(tmp_path, WHO))

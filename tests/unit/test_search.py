"""Searching schedules: greedy against brute force, budgets, a real search that is killed and resumed."""

import itertools
import json

import pytest
import torch
from tiny_training import config_of, make_features, make_world

from visiontokens.analyze import search as searching
from visiontokens.analyze.calibration import Calibration, calibration_questions
from visiontokens.analyze.schedules import greedy_schedule, sigmoid_schedule
from visiontokens.compress.base import MethodSpec
from visiontokens.config import load_experiments, searched_rows
from visiontokens.data.encoders import FastEncoder
from visiontokens.evaluate import methods
from visiontokens.evaluate.methods import search_path
from visiontokens.evaluate.predict import experiment_model
from visiontokens.measure.record import measure_all
from visiontokens.models.build import build_model, save_model
from visiontokens.models.processors import load_tokenizer
from visiontokens.provenance import read_json

GRID = [step / 8 for step in range(8, 0, -1)]
ROWS = """gsearch-test\tG\tgsearch\t\tgsearch\t\t\tnone\tmain\t3\t\t
psigmoid-test\tP\tgsearch\t\tpsigmoid\t\t\tnone\tmain\t3\t\t
flops-test\tF\tgsearch\t\tflops\t\t\tnone\tmain\t3\t\t
"""


@pytest.mark.parametrize("need", [[1, 1, 0.5, 0.25], [0.3, 0.3, 0.3, 0.3], [1, 0.8, 0.41, 0.1], [0.9, 0.6, 0.6, 0.2]])
@pytest.mark.parametrize("first", [0, 2])
def test_greedy_is_brute_force_where_the_score_is_monotone(need, first):
    """Four layers, each of which needs a share of the tokens; deeper ones need no more."""
    asked = []

    def score(ratios):
        asked.append(tuple(ratios))
        return -sum(max(0.0, n - r) for n, r in zip(need, ratios, strict=True))

    found = greedy_schedule(score, 4, GRID, floor=0.0, first=first)
    spent = len(set(asked))
    free = itertools.combinations_with_replacement(GRID, 4 - first)
    every = [[1.0] * first + list(tail) for tail in free]
    best = min((r for r in every if score(r) >= 0.0), key=sum)
    assert found == best
    assert spent <= 3 * (4 - first)


def test_the_sigmoid_search_finds_a_good_schedule_at_its_budget():
    """The best of thirty trials is near the best of all candidates, for a score that wants a late and steep drop."""
    from visiontokens.analyze import schedules

    def score(ratios):
        return -sum((r - (1.0 if i < 6 else 0.05)) ** 2 for i, r in enumerate(ratios))

    budget = 6.5
    calls = []
    found = sigmoid_schedule(lambda r: calls.append(r) or score(r), 16, 576, sum, budget, trials=20)
    _, every = schedules._candidates(16, 576, sum, budget, 0)
    values = sorted(map(score, every))
    assert sum(found) * 576 == pytest.approx(round(budget * 576))
    assert score(found) >= values[int(0.95 * len(values))]
    assert len(calls) == 20
    with pytest.raises(ValueError, match="no schedule of 16 layers"):
        sigmoid_schedule(score, 16, 576, sum, 1.9, trials=5)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("search")
    make_world(root)
    make_features(root)
    with (root / "config/experiments.tsv").open("a") as table:
        table.write(ROWS)
    for name, goal in (("gsearch", "{epsilon: 0.01}"), ("psigmoid", "{tokens: 11}"), ("flops", "{flops: 0.95}")):
        text = f"name: gsearch\nparams: {{ratios: searched}}\nsearch: {goal}\n"
        (root / f"config/methods/{name}.yaml").write_text(text)
    save_model(build_model(root / "tower", root / "llm", MethodSpec(), seed=1), root / "weights")
    return root


@pytest.fixture
def config(world, monkeypatch, tmp_path):
    """Settings of a small search; results go to a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    base = config_of(world)
    search = base.search.model_copy(update={"questions": 10, "trials": 8, "grid": 8})
    return base.model_copy(update={"search": search})


def test_a_search_is_found_by_the_jobs_of_its_row(world, config, tmp_path):
    rows = load_experiments(config)
    assert searched_rows(config, rows) == ["gsearch-test", "psigmoid-test", "flops-test"]
    with pytest.raises(FileNotFoundError, match="visiontokens search --experiment gsearch-test"):
        experiment_model(config, "gsearch-test", 0, world / "weights")
    for name in searched_rows(config, rows):
        searching.search(config, name, world / "weights", tmp_path / name, search_path(config, name))
        result = read_json(search_path(config, name))
        model = experiment_model(config, name, 0, world / "weights")
        n, layers = model.geometry.n_vision, model.geometry.llm_layers
        counts = model.compressor.tokens_per_layer(n, layers)
        assert counts == result["chosen"]["tokens"] and counts == sorted(counts, reverse=True)
        assert result["calibration"]["questions"] == len(result["calibration"]["ids"]) == 10
        assert result["all_tokens"]["tokens"] == [n] * layers
        whole, chosen = (result[key]["log_likelihood"] for key in ("all_tokens", "chosen"))
        if name == "gsearch-test":
            assert chosen >= whole - 0.01 * abs(whole)
        elif name == "psigmoid-test":
            assert sum(counts) == 11 * layers
            assert chosen == max(row["log_likelihood"] for row in result["trials"] if sum(row["tokens"]) == 11 * layers)
    measure_all(config, tmp_path / "efficiency")
    record = read_json(tmp_path / "efficiency/psigmoid-test.json")
    assert record["tokens_mean"] == 11
    share = read_json(tmp_path / "efficiency/flops-test.json")["prefill_flops"] / read_json(
        tmp_path / "efficiency/none.json")["prefill_flops"]  # fmt: skip
    assert share == pytest.approx(0.95, abs=0.03)


def test_a_killed_search_continues(world, config, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole.json", tmp_path / "out.json"
    searching.search(config, "psigmoid-test", world / "weights", tmp_path / "a", whole)
    calls = []
    real = Calibration.__call__

    def counted(self):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Calibration, "__call__", counted)
    with pytest.raises(KeyboardInterrupt):
        searching.search(config, "psigmoid-test", world / "weights", tmp_path / "b", out)
    with (tmp_path / "b/trials.jsonl").open("a") as handle:
        handle.write('{"tokens": [16, 1')  # the kill came in the middle of a line
    searching.search(config, "psigmoid-test", world / "weights", tmp_path / "b", out)
    one, two = read_json(whole), read_json(out)
    assert {**one, "run": 0} == {**two, "run": 0}
    assert len(calls) == len(one["trials"]) + 1 + (one["all_tokens"] not in one["trials"])
    again = len(calls)
    more = config.model_copy(update={"search": config.search.model_copy(update={"questions": 9})})
    searching.search(more, "psigmoid-test", world / "weights", tmp_path / "b", out)
    assert len(calls) > again, "scores on other questions are not taken over"
    head = json.loads((tmp_path / "b/trials.jsonl").read_text().splitlines()[0])
    assert set(head) == {"fingerprint"}


def test_a_result_of_another_goal_is_refused(world, config, tmp_path):
    path = search_path(config, "gsearch-test")
    searching.search(config, "gsearch-test", world / "weights", tmp_path / "run", path)
    assert methods.tested_method(config, "gsearch-test", "gsearch").search is None
    with pytest.raises(ValueError, match=r"key 'goal': found .*epsilon.*, expected .*tokens"):
        path.rename(search_path(config, "psigmoid-test"))
        methods.tested_method(config, "psigmoid-test", "psigmoid")
    with pytest.raises(ValueError, match="found no key 'search'"):
        searching.search(config, "none", world / "weights", tmp_path / "run", path)


def test_likelihoods_are_those_of_the_whole_text(world, config):
    """Prompt and answer read in two steps give the loss of reading them at once, question by question."""
    from visiontokens.evaluate.images import level_source
    from visiontokens.evaluate.predict import place_model

    model = place_model(config, world / "weights", MethodSpec())
    encoder = FastEncoder(load_tokenizer([world / "llm"]))
    questions = calibration_questions(config, encoder, model.config.image_token_id)
    assert len({question.id for question in questions}) == 10
    source = level_source(config, model, "train")
    found = Calibration(model, questions, source, pad_id=encoder.pad_id, batch_size=4, precision="fp32")()
    total = 0.0
    for question in questions:
        ids = torch.tensor([question.prompt + question.answer])
        labels = torch.full_like(ids, -100)
        labels[0, len(question.prompt) :] = ids[0, len(question.prompt) :]
        with torch.no_grad():
            loss = model(input_ids=ids, vision_levels=source.get([question.image]), labels=labels).loss
        total -= float(loss) * len(question.answer)
        assert question.answer[-1] == encoder.eos_id
    assert found.log_likelihood == pytest.approx(total / len(questions), rel=1e-4)
    assert 0 <= found.exact_match <= 1

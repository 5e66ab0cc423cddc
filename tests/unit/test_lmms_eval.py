"""Our model in lmms-eval: a local task ends with the answers that our own evaluation gives to the same questions."""

import json
import tomllib
from pathlib import Path

import pytest
import yaml
from prediction_home import configuration, make_prediction_home
from smoke_world import smoke_world
from tiny_home import weights

from visiontokens.data.benchmarks import find_benchmark, subset
from visiontokens.evaluate.predictor import Predictor
from visiontokens.models.build import load_model

ROOT = Path(__file__).parents[2]
FUNCTIONS = """
from PIL import Image


def visual(doc):
    return [Image.open(doc["file"])] if doc["file"] else []


def text(doc):
    return doc["prompt"]


def target(doc):
    return doc["answer"]


def results(doc, answers):
    return {"exact": float(answers[0] == doc["answer"])}
"""


def test_the_entry_point_names_the_manifest():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["lmms_eval.models"] == {"visiontokens": "visiontokens.evaluate.lmms:manifest"}
    text = (ROOT / "src/visiontokens/evaluate/lmms.py").read_text(encoding="utf-8")
    assert "\ndef manifest(" in text
    named = json.dumps([project["dependencies"], project["optional-dependencies"]])
    assert "lmms" not in named + (ROOT / "uv.lock").read_text(encoding="utf-8")


def write_task(folder, documents):
    """Write a task of lmms-eval: questions in a JSON file, images as paths."""
    (folder / "functions.py").write_text(FUNCTIONS)
    (folder / "questions.json").write_text(json.dumps(documents))
    task = {
        "task": "local_pope",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "questions.json")}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "output_type": "generate_until",
        "generation_kwargs": {"max_new_tokens": 4, "temperature": 0, "do_sample": False, "until": ["\n\n"]},
        "metric_list": [{"metric": "exact", "aggregation": "mean", "higher_is_better": True}],
        "metadata": [{"version": 0}],
    }
    lines = [f"{key}: !function functions.{name}" for key, name in
             (("doc_to_visual", "visual"), ("doc_to_text", "text"), ("doc_to_target", "target"),
              ("process_results", "results"))]  # fmt: skip
    (folder / "local_pope.yaml").write_text(yaml.safe_dump(task) + "\n".join(lines) + "\n")


@pytest.mark.slow
def test_a_local_task_gives_our_own_answers(tmp_path, monkeypatch):
    reason = "lmms-eval is not installed (docs/extend.md says how)"
    pytest.importorskip("lmms_eval", reason=reason)
    from lmms_eval import models
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from visiontokens.evaluate.lmms import manifest

    (tmp_path / "home").mkdir()
    home = make_prediction_home(tmp_path / "home")
    benchmarks = {name: find_benchmark(name) for name in ("pope", "scienceqa")}
    read = {name: subset(b.read(smoke_world() / "benchmarks"), 12) for name, b in benchmarks.items()}
    predictor = Predictor.of(configuration(home, batch_size=1), load_model(weights(home)))
    own = [
        (example.question_id, example.prompt, benchmarks[name].image_path(predictor.benchmarks_dir, example), text)
        for name, examples in read.items()
        for batch in predictor.answers(examples, lambda e, b=benchmarks[name]: predictor.feature_path(b, e))
        for example, text in batch
    ]
    assert {bool(image) for _, _, image, _ in own} == {True, False}
    documents = [
        {"id": key, "prompt": prompt, "file": str(image or ""), "answer": text} for key, prompt, image, text in own
    ]
    write_task(tmp_path, documents)
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    if "visiontokens" not in models.MODEL_REGISTRY_V2.list_canonical_model_ids():  # an editable install of before
        models.MODEL_REGISTRY_V2.register_manifest(manifest())
    found = simple_evaluate(
        model="visiontokens",
        model_args=f"pretrained={weights(home)}",
        tasks=["local_pope"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        device="cpu",
        batch_size=1,
        log_samples=True,
    )
    samples = {row["doc"]["id"]: row["filtered_resps"][0] for row in found["samples"]["local_pope"]}
    assert samples == {document["id"]: document["answer"] for document in documents}
    assert found["results"]["local_pope"]["exact,none"] == 1.0

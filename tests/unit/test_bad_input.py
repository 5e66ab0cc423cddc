"""Bad input is refused by name: file, line or key, what was found, what was expected; one line, exit code 2.

Every case goes through the command line, as a user meets it. The parsers' own tests have the finer cases.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_home import make_home, weights
from tiny_training import config_of, make_world

from visiontokens.cli import main
from visiontokens.compress.base import MethodError, MethodSpec

ROOT = Path(__file__).parents[2]
QUESTION = "What color is the circle?"


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def refused(capsys):
    """Run a command that must fail; return its last line on stderr (progress may stand above it)."""

    def run(*arguments):
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1].startswith("visiontokens ")
        assert not any("Traceback" in line for line in lines)
        return lines[-1]

    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"), methods=("none", "stf"))


# -- images ----------------------------------------------------------------------------------------------------------


def test_missing_image(home, tmp_path, refused):
    path = tmp_path / "nothing.png"
    assert f"{path}: no such image" in refused("ask", "--model", weights(home), "--image", path, QUESTION)


def test_truncated_image(home, tmp_path, refused):
    path = tmp_path / "half.png"
    whole = (home / "image.png").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    message = refused("ask", "--model", weights(home), "--image", path, QUESTION)
    assert f"{path}: expected a complete image file, found {len(whole) // 2} bytes" in message


@pytest.fixture
def training(tmp_path):
    """A training setup on image files, and the command that runs it."""
    make_world(tmp_path)
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(config_of(tmp_path, samples=6, epochs=1).model_dump(mode="json")))
    out = ["--run-dir", tmp_path / "run", "--out", tmp_path / "out"]
    return tmp_path, ["train", "--config", settings, "--experiment", "none", "--stage", "tune", *out]


def test_training_never_uses_another_samples_image(training, refused):
    root, command = training
    used = [row["image"] for row in json.loads((root / "data/tune.json").read_text()) if "image" in row]
    for name in used[1:]:
        (root / "data/images" / name).unlink()
    message = refused(*command)
    assert "tune.json" in message
    assert any(f"images/{name}" in message for name in used[1:])
    assert not (root / "out/model.safetensors").exists()


def test_training_stops_at_a_truncated_image(training, refused):
    root, command = training
    for path in (root / "data/images").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    message = refused(*command)
    assert "expected a complete image file, found 60 bytes" in message
    assert str(root / "data/images") in message


def test_malformed_training_file(training, refused):
    root, command = training
    path = root / "data/tune.json"
    text = path.read_text()
    path.write_text(text.replace('"conversations"', "'conversations'", 1).replace("}, {", "},\n{"))
    assert f"{path}:1:" in refused(*command)


# -- names and keys --------------------------------------------------------------------------------------------------


def test_unknown_method(home, tmp_path, refused):
    message = refused("ask", "--model", weights(home), "--image", home / "image.png", "--method", "stff", QUESTION)
    assert "unknown method 'stff' (did you mean 'stf'?); known methods: " in message
    path = tmp_path / "toy.yaml"
    path.write_text("name: stff\n")
    with pytest.raises(MethodError, match=r"toy.yaml: .*unknown method 'stff' \(did you mean 'stf'\?\)"):
        MethodSpec.from_yaml(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: stf\nparams: {windw: 2}\n", "unknown parameter 'windw' (did you mean 'window'?)"),
        ("name: stf\nparams: {window: two}\n", "window: "),
        ("name: stf\nparam: {window: 2}\n", "unknown key 'param' (did you mean 'params'?)"),
        ("- stf\n", "expected a mapping with name and params, found list"),
    ],
)
def test_damaged_method_files(tmp_path, text, message):
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    with pytest.raises(MethodError) as err:
        MethodSpec.from_yaml(path)
    assert str(err.value).startswith(f"{path}: ")
    assert message in str(err.value)


def test_unknown_experiment(training, refused):
    _, command = training
    at = command.index("none")
    message = refused(*command[:at], "nonee", *command[at + 1 :])
    assert "experiments.tsv: expected a trained experiment, found 'nonee'; trained: none, staged" in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("evaluate: {bootstap: 10}\n", "unknown key 'evaluate.bootstap'; did you mean 'evaluate.bootstrap'?"),
        ("trian: {}\n", "unknown key 'trian'; did you mean 'train'?"),
        ("train: {tune: {epochs: many}}\n", "key 'train.tune.epochs': found 'many'"),
        ("evaluate: [vqav2]\n", "key 'evaluate': found ['vqav2']"),
        ("evaluate: {benchmarks: [gq]}\n", "unknown benchmark 'gq'"),
        ("experiments: {only: [stf-mbft]}\n", "unknown experiment 'stf-mbft'"),
        ("seed: [1\n", "not valid YAML"),
    ],
)
def test_settings(tmp_path, refused, settings, message):
    path = tmp_path / "mine.yaml"
    path.write_text(settings)
    found = refused("config", "check", "config/config.yaml", path)
    assert message in found
    assert str(path) in found or "config/" in found


# -- prediction files ------------------------------------------------------------------------------------------------


@pytest.fixture
def scoring(tmp_path):
    """Two VizWiz questions, their predictions, and the command that scores them."""
    ten = [{"answer": "red", "answer_confidence": "yes"}] * 10
    questions = [{"image": f"{i}.jpg", "question": "What color is it?", "answers": ten, "answerable": 1} for i in "ab"]
    official = tmp_path / "data/benchmarks/vizwiz/val.json"
    official.parent.mkdir(parents=True)
    official.write_text(json.dumps(questions))
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"scale: tiny\ndata: {tmp_path}/data\nevaluate: {{benchmarks: [vizwiz], bootstrap: 10}}\n")
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    (predictions / "record.json").write_text("{}")
    command = ["score-run", "--config", settings, "--experiment", "none", "--predictions", predictions]
    return predictions / "vizwiz.jsonl", [*command, "--out", tmp_path / "scores"]


def line(question_id, text="red"):
    return json.dumps({"question_id": question_id, "text": text})


def test_whole_predictions_are_scored(scoring, capsys):
    path, command = scoring
    path.write_text(f"{line('a.jpg')}\n{line('b.jpg', 'blue')}\n")
    assert main([str(argument) for argument in command]) == 0
    assert json.loads((command[-1] / "vizwiz.json").read_text())["value"] == 50


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line("a.jpg")], ": 1 of 2 questions have no answer, the first is question id 'b.jpg'; expected 2"),
        ([line("a.jpg"), line("b.jpg"), line("a.jpg")], ":3: question id 'a.jpg' is answered again (first on line 1)"),
        ([line("a.jpg"), line("c.jpg")], ":2: question id 'c.jpg' is foreign, expected one of the 2 questions"),
        ([line("a.jpg"), line("b.jpg")[:-3]], ":2: not valid JSON"),
        ([line("a.jpg"), "[1]"], ":2: found list, expected an answer object"),
        ([line("a.jpg"), line("b.jpg", None)], ":2: question id 'b.jpg': found text None, expected a string"),
    ],
    ids=["missing", "duplicate", "foreign", "malformed", "no object", "no text"],
)
def test_damaged_predictions(scoring, refused, lines, message):
    path, command = scoring
    path.write_text("\n".join(lines) + "\n")
    assert f"{path}{message}" in refused(*command)
    assert not (command[-1] / "vizwiz.json").exists()


def test_absent_predictions(scoring, refused):
    path, command = scoring
    assert str(path) in refused(*command)


def test_unknown_benchmark_in_scoring(scoring, refused):
    _, command = scoring
    settings = command[2]
    settings.write_text(settings.read_text().replace("[vizwiz]", "[vizwizz]"))
    assert "unknown benchmark 'vizwizz', expected one of vqav2, gqa, vizwiz" in refused(*command)


# -- checkpoints -----------------------------------------------------------------------------------------------------


def test_checkpoint_of_another_method(home, refused):
    ask = ["ask", "--image", home / "image.png", "--method"]
    message = refused(*ask, "none", "--model", weights(home, "stf"), QUESTION)
    assert f"{weights(home, 'stf')}: checkpoint of method 'stf' does not fit method 'none'" in message
    message = refused(*ask, "stf", "--model", weights(home), QUESTION)
    assert "checkpoint of method 'none' does not fit method 'stf'; misshaped: " in message
    assert "multi_modal_projector.linear_1.bias" in message
    assert "found (16,), expected (256,)" in message


def test_no_checkpoint(home, tmp_path, refused):
    message = refused("ask", "--model", tmp_path, "--image", home / "image.png", QUESTION)
    assert f"{tmp_path}: " in message
    assert "not found" in message


def test_a_process_ends_with_one_line_and_code_2(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("evaluate: {bootstap: 10}\n")
    command = [sys.executable, "-m", "visiontokens.cli", "config", "check", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"visiontokens config: {path}: unknown key 'evaluate.bootstap'")
    assert done.stderr.count("\n") == 1

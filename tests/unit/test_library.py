"""`visiontokens.load`: the stock processor and `generate`, any method, a budget in tokens; save, load, push."""

import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from tiny_home import make_home, weights
from tiny_llava import tiny_model
from transformers import AutoProcessor, LlavaForConditionalGeneration

import visiontokens
from visiontokens.cli import main
from visiontokens.compress.base import Geometry, MethodError, MethodSpec, lookup
from visiontokens.compress.budget import fit_budget, mean_tokens
from visiontokens.models.build import CheckpointError
from visiontokens.models.convert import convert
from visiontokens.models.llava import LlavaWithCompressor

LLAVA_7B = Geometry(vision_width=1024, vision_layers=24, grid=(24, 24), llm_width=4096, llm_layers=32)
QUESTIONS = ["What color is the circle?", "Is there a large red square in the image?"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = make_home(tmp_path_factory.mktemp("home"), ("none", "stf_mbtf"))
    convert(weights(root), root / "hub", target="llava-hf", shard_bytes=30_000)
    return root


def generate(model, images, questions):
    """Use the stock processor as its documentation says; return the answers and the logits behind them `[B, T, V]`."""
    prompts = [f"USER: <image>\n{question} ASSISTANT:" for question in questions]
    inputs = model.processor(images=images, text=prompts, padding=True, return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_logits=True)
    new = out.sequences[:, inputs["input_ids"].shape[1] :]
    return model.processor.batch_decode(new, skip_special_tokens=True), torch.stack(out.logits, 1)


def ask(model, images, questions):
    return generate(model, images, questions)[0]


@pytest.mark.parametrize(
    ("method", "budget"),
    [("avgpool", 4), ("vcc", 10), ("fastv", 10), ("random", 10), ("kmeans", 10), ("progressive", 8), ("none", None)],
)
def test_batched_answers_equal_single_ones(home, method, budget):
    model = visiontokens.load(home / "hub", method=method, budget=budget)
    assert budget is None or mean_tokens(model.compressor) == pytest.approx(budget, abs=0.5)
    image = Image.open(home / "image.png")
    images = [image, image.rotate(90)]
    answers, logits = generate(model, images, QUESTIONS)
    for row, (one, question) in enumerate(zip(images, QUESTIONS, strict=True)):
        alone, wanted = generate(model, [one], [question])
        assert alone == answers[row : row + 1]
        torch.testing.assert_close(logits[row, : wanted.shape[1]], wanted[0], atol=1e-5, rtol=1e-4)


def test_without_compression_it_is_the_stock_model(home):
    model = visiontokens.load(str(home / "hub"))
    stock = LlavaForConditionalGeneration.from_pretrained(home / "hub").eval()
    stock.processor = AutoProcessor.from_pretrained(home / "hub")
    images = [Image.open(home / "image.png")] * 2
    assert ask(model, images, QUESTIONS) == ask(stock, images, QUESTIONS)


def test_trained_methods_come_with_their_weights(home):
    model = visiontokens.load(weights(home, "stf_mbtf"), budget=4)
    assert model.method.name == "stf_mbtf"
    assert len(ask(model, [Image.open(home / "image.png")], QUESTIONS[:1])) == 1
    with pytest.raises(MethodError, match="'stf_mbtf' cannot spend 8 vision tokens per layer; it can spend 4"):
        visiontokens.load(weights(home, "stf_mbtf"), budget=8)
    with pytest.raises(CheckpointError, match="'none' does not fit method 'stf_mbtf'"):
        visiontokens.load(home / "hub", method="stf_mbtf")


@pytest.mark.parametrize("name", ["avgpool", "vcc", "random", "kmeans", "fastv", "progressive"])
def test_144_tokens_of_the_7b_model(name):
    spec = fit_budget(name, LLAVA_7B, 144)
    compressor = lookup(name)(lookup(name).Params.model_validate(spec.params), LLAVA_7B)
    assert mean_tokens(compressor) == pytest.approx(144, rel=0.01)


@pytest.mark.parametrize(
    ("name", "budget", "params", "words"),
    [
        ("avgpool", 100, {}, "it can spend 1, 4, 9, 16, 36, 64, 144, 576"),
        ("fastv", 3, {}, r"it can spend 18\.97 to 576; nearest: 18\.97"),
        ("vcc", 144, {"layer": "2/32"}, r"with layer=2/32 .* 126, 171"),
        ("none", 144, {}, "it can spend 576"),
        ("vcc", 0, {}, "expected a number of vision tokens above 0"),
        ("vcc", 144, {"strid": 2}, "did you mean 'stride'"),
        ("avgpol", 144, {}, "did you mean 'avgpool'"),
    ],
)
def test_budgets_that_cannot_be_met(name, budget, params, words):
    with pytest.raises(MethodError, match=words):
        fit_budget(name, LLAVA_7B, budget, params)


def test_the_published_layer_is_kept_where_it_can_be():
    assert fit_budget("fastv", LLAVA_7B, 171).params == {"layer": "2/32", "stride": 4}
    assert fit_budget("vcc", LLAVA_7B, 126, {"layer": "2/32"}).params == {"layer": "2/32", "stride": 6}


def test_a_name_that_is_no_folder_is_fetched_from_the_hub(home, monkeypatch):
    asked = []

    def fetch(repo, **kwargs):
        asked.append((repo, kwargs["revision"], kwargs["allow_patterns"]))
        if repo != "llava-hf/llava-1.5-7b-hf":
            raise OSError("offline")
        return str(home / "hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    model = visiontokens.load("llava-hf/llava-1.5-7b-hf", method="avgpool", budget=4, revision="abc")
    assert model.method == MethodSpec(name="avgpool", params={"window": 2})
    assert asked[0][:2] == ("llava-hf/llava-1.5-7b-hf", "abc")
    assert not [pattern for pattern in asked[0][2] if pattern.endswith((".py", ".bin"))]
    with pytest.raises(FileNotFoundError, match="not fetched from the hub: offline"):
        visiontokens.load("owner/model")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        visiontokens.load("./nowhere/at/all")


def test_save_and_from_pretrained(home, tmp_path):
    model = visiontokens.load(weights(home, "stf_mbtf"))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    back, info = LlavaWithCompressor.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    want = model.state_dict()
    assert {n: torch.equal(v, want[n]) for n, v in back.state_dict().items()} == dict.fromkeys(want, True)
    assert back.method == model.method


def test_push_to_hub_sends_weights_settings_and_card(monkeypatch):
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError

    sent = {}

    def create_repo(self, repo_id, **kwargs):
        return type("Url", (), {"repo_id": repo_id})()

    def create_commit(self, repo_id, operations, **kwargs):
        sent[repo_id] = {o.path_in_repo: o for o in operations}
        return "done"

    def no_card(*args, **kwargs):
        raise EntryNotFoundError("no card yet")

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    monkeypatch.setattr("transformers.utils.hub.ModelCard.load", no_card)
    tiny_model(MethodSpec(name="avgpool")).push_to_hub("someone/small", tags=["visiontokens"])
    assert {"config.json", "model.safetensors", "README.md", "generation_config.json"} <= sent["someone/small"].keys()


def test_ask_from_the_shell(home, capsys):
    command = ["ask", "--model", str(home / "hub"), "--image", str(home / "image.png")]
    assert main([*command, "--method", "avgpool", "--budget", "4", QUESTIONS[0]]) == 0
    assert "4 of 16 vision tokens per layer" in capsys.readouterr().out
    assert main([*command, "--method", "avgpool", "--budget", "5", QUESTIONS[0]]) == 2
    assert "it can spend 1, 4, 16" in capsys.readouterr().err


def test_importing_the_package_is_light():
    code = (
        "import sys, visiontokens; print(visiontokens.__version__, [m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    start = time.process_time()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == "[]"
    assert time.process_time() - start < 1
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = visiontokens.lod

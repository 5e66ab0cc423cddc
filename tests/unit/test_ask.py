"""A model folder is whole: weights, tokenizer and image settings answer a question about an image file."""

import pytest
import torch
from tiny_home import MEAN, STD, make_home, weights

from visiontokens.cli import main
from visiontokens.data.encoders import FastEncoder
from visiontokens.data.images import Preprocessor
from visiontokens.data.miniworld.tokenizer import build_tokenizer
from visiontokens.evaluate.ask import ask
from visiontokens.evaluate.greedy import encode_question
from visiontokens.models.build import load_model, save_model

QUESTION = "What color is the circle?"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


def test_answer_is_the_models_greedy_answer(home):
    image = home / "image.png"
    answer = ask(weights(home), image, QUESTION, max_new_tokens=6)
    tokenizer = build_tokenizer()
    model = load_model(weights(home))
    prompt = encode_question(QUESTION, FastEncoder(tokenizer), model.config.image_token_id, image=True)
    pixels = torch.from_numpy(Preprocessor(16, MEAN, STD)([image]))
    with torch.inference_mode():
        whole = model.prefill(torch.tensor([prompt.prefix + prompt.rest]), pixel_values=pixels)
    assert answer.text.startswith(tokenizer.decode([int(whole.logits[0].argmax())]))
    assert len(tokenizer.tokenize(answer.text)) > 1
    assert (answer.method, answer.full_tokens, answer.tokens_per_layer) == ("none", 16, [16.0] * 4)
    assert 0 < answer.seconds_to_first_token < 60


def test_a_method_at_test_time_replaces_the_models_own(home, tmp_path):
    pooled = tmp_path / "pooled.yaml"
    pooled.write_text("name: avgpool\nparams: {window: 2}\n")
    answer = ask(weights(home), home / "image.png", QUESTION, pooled)
    assert (answer.method, answer.mean_tokens, answer.full_tokens) == ("avgpool", 4, 16)


def test_command_takes_an_experiments_folder(home, capsys):
    code = main(["ask", "--model", str(home / "models/none"), "--image", str(home / "image.png"), QUESTION])
    text, cost = capsys.readouterr().out.splitlines()
    assert code == 0
    assert text == ask(weights(home), home / "image.png", QUESTION).text
    assert cost.startswith("16 of 16 vision tokens per layer, first token after ")
    assert cost.endswith(" ms (none)")


def test_incomplete_folders_are_named(home, tmp_path, capsys):
    save_model(load_model(weights(home)), tmp_path)
    capsys.readouterr()
    assert main(["ask", "--model", str(tmp_path), "--image", str(home / "image.png"), QUESTION]) == 2
    message = capsys.readouterr().err
    assert f"{tmp_path}: preprocessor_config.json not found" in message
    assert message.count("\n") == 1

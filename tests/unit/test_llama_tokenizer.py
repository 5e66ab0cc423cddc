"""Vicuna comes with `tokenizer.model` alone: transformers' tokenizer of it equals SentencePiece itself."""

import json
import shutil
from pathlib import Path

import pytest

from visiontokens.data.encoders import FastEncoder, SentencePieceEncoder
from visiontokens.models.processors import load_tokenizer

pytest.importorskip("google.protobuf")
MODEL = Path(__file__).parents[1] / "conformance/golden/llava_base/tiny_sp.model"
SETTINGS = {
    "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>", "legacy": False,
    "model_max_length": 4096, "pad_token": None, "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>",
}  # fmt: skip


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vicuna")
    shutil.copy(MODEL, folder / "tokenizer.model")
    (folder / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    return FastEncoder(load_tokenizer([folder])), SentencePieceEncoder(folder / "tokenizer.model", legacy=False)


@pytest.mark.parametrize("text", ["a chat", "\nWhat is this? ASSISTANT:", "USER: What is it? ASSISTANT: A cat.</s>"])
def test_ids_and_special_tokens_are_those_of_the_model_file(encoders, text):
    fast, plain = encoders
    assert fast.encode(text).ids == plain.encode(text).ids
    assert (fast.bos_id, fast.eos_id) == (plain.bos_id, plain.eos_id)

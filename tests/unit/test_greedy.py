"""Shared prefixes give the answers of one question at a time."""

import pytest
import torch
from transformers import CLIPVisionModel, LlamaForCausalLM

from visiontokens.compress.base import MethodSpec
from visiontokens.data.encoders import FastEncoder
from visiontokens.data.miniworld.tokenizer import build_tokenizer
from visiontokens.evaluate.greedy import Greedy, Prompt, encode_question
from visiontokens.models.build import build_model
from visiontokens.models.tiny import SMOKE_LLM, SMOKE_TOWER, llm_config, tower_config

QUESTIONS = [
    ["Is there a red square in the image?", "What color is the circle?"],
    ["How many blue objects are there?"],
    ["Which row is the red circle in?", "What number is written on the sign?", "Is there a green ring in the image?"],
]
METHODS = [
    MethodSpec(),
    MethodSpec(name="avgpool", params={"window": 2}),
    MethodSpec(name="vcc", params={"layer": "8/32", "stride": 4}),
    MethodSpec(name="progressive"),
    MethodSpec(name="kmeans", params={"layer": "8/32", "stride": 4}),
    MethodSpec(name="random", params={"layer": "8/32", "stride": 4}),
    MethodSpec(name="fastv", params={"layer": "8/32", "stride": 4}),
]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def backbones(tmp_path_factory, tokenizer):
    root = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(0)
    CLIPVisionModel(tower_config(SMOKE_TOWER)).save_pretrained(root / "tower")
    LlamaForCausalLM(llm_config(len(tokenizer), SMOKE_LLM)).save_pretrained(root / "llm")
    tokenizer.save_pretrained(root / "llm")
    return root


def setting(backbones, tokenizer, method):
    model = build_model(backbones / "tower", backbones / "llm", method, seed=1)
    encoder = FastEncoder(tokenizer)
    image_id = model.config.image_token_id
    prompts = [[encode_question(text, encoder, image_id, image=True) for text in group] for group in QUESTIONS]
    pixels = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    return model, encoder, prompts, model.compressor.run_tower(model.model.vision_tower, pixels)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_shared_prefix_equals_one_question_at_a_time(backbones, tokenizer, method):
    model, encoder, prompts, levels = setting(backbones, tokenizer, method)
    greedy = Greedy(model, encoder, max_new_tokens=5)
    together = greedy.answer(levels, prompts)
    for index, group in enumerate(prompts):
        for number, prompt in enumerate(group):
            one = {level: value[index : index + 1] for level, value in levels.items()}
            assert greedy.answer(one, [[prompt]])[0][0] == together[index][number]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_equals_generate(backbones, tokenizer, method):
    model, encoder, prompts, levels = setting(backbones, tokenizer, method)
    prompt = prompts[2][1]
    one = {level: value[2:3] for level, value in levels.items()}
    found = Greedy(model, encoder, max_new_tokens=4).answer(one, [[prompt]])[0][0]
    assert Greedy(model, encoder, 9).answer(one, [[prompt]], longest=4)[0][0] == found
    assert Greedy(model, encoder, 4).answer(one, [[prompt]], longest=9)[0][0] == found
    ids = torch.tensor([prompt.prefix + prompt.rest])
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), vision_levels=one, max_new_tokens=4, do_sample=False,
        eos_token_id=encoder.eos_id, pad_token_id=encoder.pad_id,
    )  # fmt: skip
    expected = out[0, ids.shape[1] :].tolist()
    cut = expected.index(encoder.eos_id) if encoder.eos_id in expected else len(expected)
    assert found == expected[:cut]


@pytest.mark.parametrize("method", [METHODS[2], METHODS[-1]], ids=lambda m: m.name)
@pytest.mark.parametrize("size", [1, 2])
def test_parts_of_a_batch_give_the_same_answers(backbones, tokenizer, monkeypatch, method, size):
    """No forward pass holds more than `batch_size` questions; an image is still read once where the method allows."""
    model, encoder, prompts, levels = setting(backbones, tokenizer, method)
    wanted = Greedy(model, encoder, max_new_tokens=3).answer(levels, prompts)
    prefilled, extended = [], []
    prefill, extend = model.prefill, model.extend
    monkeypatch.setattr(model, "prefill", lambda ids, *a, **k: prefilled.append(len(ids)) or prefill(ids, *a, **k))
    monkeypatch.setattr(model, "extend", lambda s, ids, *a, **k: extended.append(len(ids)) or extend(s, ids, *a, **k))
    assert Greedy(model, encoder, 3, batch_size=size).answer(levels, prompts) == wanted
    assert max(prefilled + extended) == size
    if size == 1:
        assert len(prefilled) == (3 if model.prefix_safe else 6)


def test_query_aware_methods_do_not_share(backbones, tokenizer):
    shares = {
        m.name: Greedy(setting(backbones, tokenizer, m)[0], FastEncoder(tokenizer), 1).shares_prefix for m in METHODS
    }
    assert shares.pop("fastv") is False
    assert all(shares.values())


def test_text_only_questions(backbones, tokenizer):
    model, encoder, *_ = setting(backbones, tokenizer, MethodSpec())
    prompts = [
        encode_question(text, encoder, model.config.image_token_id, image=False)
        for text in ("Is a red?", "a b c d e f?")
    ]
    assert all(not prompt.prefix for prompt in prompts)
    greedy = Greedy(model, encoder, max_new_tokens=3)
    assert greedy.answer(None, [[p] for p in prompts]) == [greedy.answer(None, [[p]])[0] for p in prompts]


def test_prompt_is_cut_behind_the_image(tokenizer):
    encoder = FastEncoder(tokenizer)
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    prompt = encode_question("What color is the circle?", encoder, image_id, image=True)
    assert isinstance(prompt, Prompt)
    assert prompt.prefix[-1] == image_id
    assert tokenizer.decode(prompt.rest).endswith("ASSISTANT:")

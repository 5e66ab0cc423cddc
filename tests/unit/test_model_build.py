"""Joining backbones, seeds, saving, and what is said when a checkpoint does not fit."""

import json

import pytest
import torch
from tiny_llava import pixels, prompt, spec, tiny_config
from transformers import CLIPVisionModel, LlamaForCausalLM

from visiontokens.compress import MethodSpec
from visiontokens.models.build import CheckpointError, build_model, load_model, save_model, vision_levels
from visiontokens.models.convert import from_official, read_official


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    root = tmp_path_factory.mktemp("backbones")
    config = tiny_config()
    torch.manual_seed(0)
    CLIPVisionModel(config.vision_config).save_pretrained(root / "tower")
    LlamaForCausalLM(config.text_config).save_pretrained(root / "llm")
    tokens = {"added_tokens": [{"content": "<image>", "id": 5}], "model": {"vocab": {}}}
    (root / "llm" / "tokenizer.json").write_text(json.dumps(tokens))
    return root / "tower", root / "llm"


def test_backbones_are_joined_and_new_parts_come_from_the_seed(backbones):
    torch.manual_seed(7)
    a, b, c = (build_model(*backbones, spec("stf_mbtf"), seed) for seed in (1, 1, 2))
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1)), "the global generator must not move"
    assert a.config.image_token_id == 5
    assert not a.training
    llm = LlamaForCausalLM.from_pretrained(backbones[1])
    assert torch.equal(a.model.language_model.layers[3].mlp.up_proj.weight, llm.model.layers[3].mlp.up_proj.weight)
    assert a.lm_head.weight is a.model.language_model.embed_tokens.weight
    for name, value in a.state_dict().items():
        new = name.startswith(("compressor", "model.multi_modal_projector"))
        assert torch.equal(value, b.state_dict()[name]), name
        assert torch.equal(value, c.state_dict()[name]) != new, name
    bound = a.compressor.mbtf.linear_1.in_features**-0.5  # torch's default initialisation, as in LLaVA
    weight = a.compressor.mbtf.linear_1.weight
    assert 0.9 * bound < weight.abs().max() <= bound


def test_levels_are_known_without_building(backbones):
    assert vision_levels(spec("none"), backbones[0]) == (3,)
    assert vision_levels(spec("mbtf"), backbones[0]) == (1, 2, 3, 4)


def test_saving_replaces_files_and_leaves_others(backbones, tmp_path):
    model = build_model(*backbones, MethodSpec(), 1)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "record.json").write_text("{}")
    save_model(model, tmp_path / "m")
    save_model(model, tmp_path / "m")
    assert {p.name for p in (tmp_path / "m").iterdir()} >= {"record.json", "config.json", "model.safetensors"}
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    stored = json.loads((tmp_path / "m" / "config.json").read_text())
    assert stored["compressor"] == {"name": "none", "params": {}}


def test_compression_can_be_chosen_at_test_time(backbones, tmp_path):
    save_model(build_model(*backbones, MethodSpec(), 1), tmp_path)
    model = load_model(tmp_path, spec("vcc", layer="2/4", stride=8))
    state = model.prefill(prompt(6).masked_fill(prompt(6) == 63, 5)[None], pixel_values=pixels(1))
    assert state.cache.lengths() == [149, 149, 23, 23]


def test_misfits_name_methods_and_tensors(backbones, tmp_path):
    save_model(build_model(*backbones, spec("mbtf"), 1), tmp_path / "mbtf")
    with pytest.raises(
        CheckpointError, match=r"'mbtf' does not fit method 'none'; left over: compressor\.mbtf\.linear_1"
    ):
        load_model(tmp_path / "mbtf", MethodSpec())
    save_model(build_model(*backbones, MethodSpec(), 1), tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"'none' does not fit method 'mbtf'; missing: compressor\.mbtf"):
        load_model(tmp_path / "none", spec("mbtf"))
    with pytest.raises(CheckpointError, match=r"misshaped: model\.multi_modal_projector\.linear_1"):
        load_model(tmp_path / "none", spec("stf"))
    with pytest.raises(FileNotFoundError, match=r"config\.json not found"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no checkpoint here"):
        build_model(tmp_path / "nowhere", backbones[1], MethodSpec(), 1)


def test_official_files(tmp_path):
    from safetensors.torch import save_file

    assert from_official("model.vision_tower.vision_tower.vision_model.pre_layrnorm.bias") == (
        "model.vision_tower.pre_layrnorm.bias"
    )
    assert from_official("model.image_newline") == "compressor.image_newline"
    assert from_official("model.vision_resampler.weight") is None
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    torch.save({"b": torch.ones(2)}, tmp_path / "b.bin")
    assert set(read_official([tmp_path / "a.safetensors", tmp_path / "b.bin"])) == {"a", "b"}
    with pytest.raises(CheckpointError, match="already read from another file: a"):
        read_official([tmp_path / "a.safetensors"] * 2)
    with pytest.raises(FileNotFoundError, match="no such checkpoint file"):
        read_official([tmp_path / "c.bin"])

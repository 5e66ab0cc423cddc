"""The cost record of whole models: what is declared is what runs."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionModel, LlamaForCausalLM

from visiontokens.compress.base import MethodSpec
from visiontokens.measure.record import cost_record, measure_experiment, timed_prompt
from visiontokens.models.build import build_model
from visiontokens.models.tiny import LlmDims, TowerDims, llm_config, tower_config

TEXT = 12
METHODS = [
    "none", "avgpool", "stf", "stf-mbtf", "vcc-2-8", "vcc-16-4", "vcc-8-8", "progressive", "mod", "proxyv-12",
    "proxyv-12-learned", "voco-2",
]  # fmt: skip


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbones")
    tower = TowerDims(hidden=16, layers=3, heads=2, mlp=32, image_size=32)
    language = LlmDims(hidden=16, layers=4, heads=2, kv_heads=2, mlp=32, max_positions=256)
    CLIPVisionModel(tower_config(tower)).save_pretrained(folder / "tower")
    LlamaForCausalLM(llm_config(40, language)).save_pretrained(folder / "llm")
    return folder


def model_of(backbones, name):
    method = MethodSpec.from_yaml(f"config/methods/{name}.yaml")
    return build_model(backbones / "tower", backbones / "llm", method, seed=0)


@pytest.mark.parametrize("name", METHODS)
def test_declared_flops_are_what_the_counter_sees(backbones, name):
    model = model_of(backbones, name)
    inputs = timed_prompt(model, TEXT)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.prefill(**inputs)
    assert cost_record(model, text_tokens=TEXT)["prefill_flops"] == counter.get_total_flops()


@pytest.mark.parametrize("name", METHODS)
def test_declared_cache_is_the_cache(backbones, name):
    model = model_of(backbones, name)
    cache = model.prefill(**timed_prompt(model, TEXT)).cache
    stored = [layer.keys.nbytes + layer.values.nbytes for layer in cache.layers]
    dropped = TEXT - (cache.lengths()[0] - int(cache.vision[0].sum()))  # text, which the record counts in full
    assert dropped == (TEXT // 5 if name.startswith("voco") else 0)
    declared = cost_record(model, text_tokens=TEXT, bytes_per_value=4)
    token = 2 * 4 * model.config.text_config.num_key_value_heads * model.config.text_config.head_dim
    assert [size - dropped * token for size in declared["kv_bytes_per_layer"]] == stored


def test_what_the_cache_drops_after_prefill_is_not_paid_for_in_decoding(backbones, monkeypatch):
    """Cache bytes and decode FLOPs follow `kv_per_layer`, prefill FLOPs what was alive."""
    model = model_of(backbones, "none")
    before = cost_record(model, text_tokens=TEXT)
    assert before["kv_tokens_per_layer"] == before["tokens_per_layer"]
    image = [2 * 16 * 2 * 64.0] * 4
    assert before["kv_bytes_image"] == sum(image)
    assert before["kv_bytes"] - before["kv_bytes_image"] == 4 * 2 * 16 * 2 * TEXT
    monkeypatch.setattr(type(model.compressor), "kv_per_layer", lambda self, n_vision, n_layers: [1.0] * n_layers)
    after = cost_record(model, text_tokens=TEXT)
    assert (after["prefill_flops"], after["tokens_mean"]) == (before["prefill_flops"], before["tokens_mean"])
    assert after["kv_bytes_image"] == before["kv_bytes_image"] / 64
    assert before["decode_flops"] - after["decode_flops"] == 4 * (4 * 63 * 16)


def test_record_holds_computed_and_measured_cost(backbones):
    full = measure_experiment(model_of(backbones, "none"), text_tokens=TEXT, repeats=3, warmup=1)
    quarter = measure_experiment(model_of(backbones, "avgpool"), text_tokens=TEXT, repeats=3, warmup=1)
    assert full["tokens_per_layer"] == [64.0] * 4
    assert (full["compression_ratio"], quarter["compression_ratio"]) == (1.0, 4.0)
    assert quarter["prefill_flops"] < full["prefill_flops"]
    assert quarter["kv_bytes"] < full["kv_bytes"]
    assert quarter["peak_bytes"] < full["peak_bytes"]
    assert full["prefill_q25_ms"] <= full["prefill_ms"] <= full["prefill_q75_ms"]
    assert full["parameters_compressor"] == 0
    assert full["parameters_connector"] == 16 * 16 + 16 + 16 * 16 + 16
    assert {"device", "dtype", "threads", "peak_method", "stamp"} <= set(full)


def test_timed_prompt_has_one_image_and_the_asked_text(backbones):
    model = model_of(backbones, "none")
    inputs = timed_prompt(model, TEXT)
    ids = inputs["input_ids"][0]
    assert int((ids == model.config.image_token_id).sum()) == 1
    assert len(ids) == TEXT + 1
    with pytest.raises(ValueError, match="at least 2"):
        timed_prompt(model, 1)


def test_measuring_leaves_weights_alone(backbones):
    model = model_of(backbones, "vcc-2-8")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure_experiment(model, text_tokens=TEXT, repeats=2, warmup=0, dtype=torch.bfloat16)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

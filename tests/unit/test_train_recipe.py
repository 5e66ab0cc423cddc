"""The recipe's options: packing, gradient checkpointing, LoRA, and what the log says about speed."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_llava import spec, tiny_model
from tiny_training import config_of, make_features, make_world

from visiontokens.config import LoraSettings
from visiontokens.data.conversation import Tokens
from visiontokens.data.instruct import Collator, Sample
from visiontokens.measure.flops import LlamaShape, prefill_flops
from visiontokens.models.build import load_model
from visiontokens.models.load import Load
from visiontokens.provenance import read_json
from visiontokens.train.loop import arguments
from visiontokens.train.lora import add_lora, merge_lora
from visiontokens.train.records import read_log, speed
from visiontokens.train.speed import peak_flops, step_flops
from visiontokens.train.stages import freeze_for
from visiontokens.train.trainer import train_stage

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    make_world(root)
    make_features(root)
    return root


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """Train one epoch of the tune stage with some settings, each combination once."""
    done = {}

    def train(experiment="none", **tune):
        key = (experiment, *sorted(tune.items()))
        if key not in done:
            out = tmp_path_factory.mktemp("out")
            values = {k: dict(v) if isinstance(v, tuple) else v for k, v in tune.items()}
            config = config_of(root, epochs=1, **values)
            record = train_stage(config, experiment, 0, "tune", run_dir=out / "run", out=out / "model")
            done[key] = read_json(record), read_log(out / "model/log.jsonl"), out / "model"
        return done[key]

    return train


def test_weights_may_be_saved_in_16_bits(run):
    (_, _, whole), (_, _, half) = run(), run(saved_precision="bf16")
    wanted, found = (load_file(folder / "model.safetensors") for folder in (whole, half))
    assert wanted.keys() == found.keys()
    assert all(torch.equal(value.bfloat16(), found[name]) for name, value in wanted.items())
    assert next(load_model(half).parameters()).dtype == torch.float32


@pytest.mark.parametrize("experiment", ["none", "staged"])
@pytest.mark.parametrize("isolate_turns", [True, False])
def test_packed_training_follows_padded_training(run, experiment, isolate_turns):
    settings = {"isolate_turns": isolate_turns, "caption_weight": 0.5}
    padded, packed = (run(experiment, packing=value, **settings) for value in (False, True))
    np.testing.assert_allclose([r["loss"] for r in packed[1]], [r["loss"] for r in padded[1]], rtol=1e-3)
    assert [r["lm_tokens"] for r in packed[1]] == [r["lm_tokens"] for r in padded[1]]
    assert packed[0]["padding"] == 0 < padded[0]["padding"]
    assert packed[0]["run"]["packed"] and not padded[0]["run"]["packed"]


def test_gradient_checkpointing_changes_nothing(run):
    plain, checkpointed = run(), run(gradient_checkpointing=True)
    assert [r["loss"] for r in checkpointed[1]] == [r["loss"] for r in plain[1]]
    a, b = (load_file(found[2] / "model.safetensors") for found in (plain, checkpointed))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_log_and_record_tell_speed_and_kernel(run):
    record, rows, _ = run()
    assert record["run"]["attention"] == "sdpa"
    for row in rows:
        assert row["tokens_per_second"] == pytest.approx(row["lm_tokens"] / row["seconds"], rel=0.02)
        assert 0 < row["mfu"] < 1 and 0 <= row["padding"] < 1
    assert 0 < record["mfu"] < 1
    slots = [
        {"lm_tokens": 10, "padding": 0.5, "seconds": 1.0, "mfu": 0.2},
        {"lm_tokens": 20, "padding": 0.0, "seconds": 3.0, "mfu": 0.4},
    ]
    assert speed(slots) == {"padding": 0.25, "tokens_per_second": 7.5, "mfu": 0.35}
    assert speed([{"loss": 1.0}]) == {}


def test_step_flops_are_three_forwards():
    model, load = tiny_model(spec("avgpool")), Load(layer_tokens=4 * 50, rows=1, images=1)
    shape, extra = LlamaShape.of(model.config.text_config), model.compressor.extra_flops(144)
    forward = prefill_flops(shape, [36] * 4, 14, attention=False, head="last")
    assert step_flops(model, load) == pytest.approx(3 * (forward + extra))
    freeze_for(model, "align")
    assert step_flops(model, load) == pytest.approx(2 * forward + 3 * extra)


def test_peak_is_measured_where_no_data_sheet_is():
    peak = peak_flops(torch.device("cpu"), torch.float32)
    assert 1e8 < peak.flops < 1e14 and peak.source == "measured, float32 matrix product"


def test_packed_batches_keep_order_and_number_samples():
    tokens = [Tokens([1, 5, 6], [-100, 5, 6], [0.0, 1.0, 0.5], [0, 1, 1]), Tokens([1, 7], [1, 7], [1.0, 1.0], [0, 0])]
    batch = Collator(0, None, segments=True, weighted=True, packed=True)([Sample(t, None) for t in tokens])
    assert {key: value.tolist() for key, value in batch.items()} == {
        "input_ids": [[1, 5, 6, 1, 7]],
        "attention_mask": [[1] * 5],
        "labels": [[-100, 5, 6, -100, 7]],
        "document_ids": [[0, 0, 0, 1, 1]],
        "segment_ids": [[0, 1, 1, 0, 0]],
        "loss_weights": [[0.0, 1.0, 0.5, 0.0, 1.0]],
    }


def test_lora_trains_adapters_and_projector_and_leaves_a_plain_checkpoint(run, root):
    record, rows, out = run(lora=(("rank", 4), ("alpha", 8), ("dropout", 0)))
    assert record["run"]["settings"]["lora"] == {"rank": 4, "alpha": 8, "dropout": 0}
    assert np.isfinite([row["loss"] for row in rows]).all()
    trained, backbone = load_file(out / "model.safetensors"), load_file(root / "llm/model.safetensors")
    assert not [name for name in trained if "lora" in name]
    assert load_model(out).method.name == "none"
    for name, moved in (("layers.0.mlp.up_proj", True), ("embed_tokens", False), ("layers.0.input_layernorm", False)):
        mine = next(v for n, v in trained.items() if f"language_model.model.{name}.weight" in n)
        assert torch.equal(mine, backbone[f"model.{name}.weight"]) != moved


LORA = LoraSettings(rank=4, alpha=8, dropout=0.0)


def test_merged_adapters_compute_the_same():
    model = tiny_model()
    before = model(torch.arange(2, 9)[None]).logits
    assert add_lora(model, LORA, seed=1) == 7 * 4
    torch.testing.assert_close(model(torch.arange(2, 9)[None]).logits, before)
    trained = freeze_for(model, "tune")
    assert {n for n in trained if "language_model" in n} == {n for n in trained if "lora_" in n}
    assert [n for n in trained if "multi_modal_projector" in n]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapted = model(torch.arange(2, 9)[None]).logits
    names = dict(tiny_model().named_parameters()).keys()
    merge_lora(model)
    assert dict(model.named_parameters()).keys() == names
    torch.testing.assert_close(model(torch.arange(2, 9)[None]).logits, adapted, atol=1e-5, rtol=1e-4)
    assert (adapted - before).abs().max() > 0.01


def test_gpu_options_reach_the_trainer(root, tmp_path):
    settings = config_of(root, gradient_checkpointing=True, tf32=True).train.tune
    args = arguments(settings, tmp_path, 0, 4, device="cpu")
    assert args.activation_checkpointing and args.tf32 is None
    assert args.activation_checkpointing_kwargs == {"use_reentrant": False, "determinism_check": "none"}

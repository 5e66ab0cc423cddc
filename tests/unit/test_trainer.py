"""Training: what trains, in which stage, with which loss; logs, records and refusals."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_training import COLORS, config_of, make_features, make_world

from visiontokens.models.build import load_model
from visiontokens.provenance import read_json
from visiontokens.train.records import ResumeError, claim, newest_checkpoint, read_log, trim_log
from visiontokens.train.stages import CountedSchedule, freeze_for, load_schedule, official_stage
from visiontokens.train.trainer import staged_method, train_stage
from visiontokens.train.weights import parameter_groups

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    make_world(root)
    make_features(root)
    return root


def train(root, tmp_path, name="x", *, experiment="none", seed=0, stage="tune", init=None, **tune):
    config = config_of(root, **tune)
    out, run = tmp_path / name, tmp_path / f"run-{name}"
    return train_stage(config, experiment, seed, stage, run_dir=run, out=out, init=init)


def weights(path):
    return load_file(path.parent / "model.safetensors")


def changed(before, after):
    return {name for name in after if not torch.equal(before[name], after[name])}


def test_two_stages(root, tmp_path):
    """Align moves the projector only, tune also the language model, nothing the tower; both leave a full record."""
    align = train(root, tmp_path, "align", stage="align")
    first = weights(align)
    tune = train(root, tmp_path, "tune", init=tmp_path / "align")
    second = weights(tune)
    backbone = load_file(root / "llm/model.safetensors")
    name = next(n for n in first if n.endswith("layers.0.mlp.up_proj.weight") and "vision" not in n)
    assert torch.equal(first[name], backbone["model.layers.0.mlp.up_proj.weight"])
    moved = changed(first, second)
    assert name in moved
    assert {n for n in second if "projector" in n} <= moved
    assert not [n for n in moved if "vision_tower" in n]
    record, rows = read_json(tune), read_log(tmp_path / "tune/log.jsonl")
    assert record["steps"] == len(rows) == 12
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert record["loss_last"] == rows[-1]["loss"] < rows[0]["loss"]
    assert record["tokens_seen"] == sum(row["tokens"] for row in rows) > 0
    assert record["run"]["method"]["name"] == "none"
    assert record["parameters"]["trained"] < record["parameters"]["total"]
    assert not (tmp_path / "run-tune/checkpoints").exists()


def test_same_seed_same_weights_and_accumulation_changes_nothing(root, tmp_path):
    one = weights(train(root, tmp_path, "one", epochs=1))
    again = weights(train(root, tmp_path, "again", epochs=1))
    whole = weights(train(root, tmp_path, "whole", epochs=1, micro_batch_size=8))
    other = weights(train(root, tmp_path, "other", seed=1, epochs=1))
    assert not changed(one, again)
    assert changed(one, other)
    for name, value in one.items():
        torch.testing.assert_close(whole[name], value, atol=2e-4, rtol=2e-3)


def test_pixels_and_cached_features_train_alike(root, tmp_path):
    cached = read_log(train(root, tmp_path, "cached", epochs=1).parent / "log.jsonl")
    hidden = root / "data/features"
    shutil.move(hidden, tmp_path / "features")
    try:
        pixels = read_log(train(root, tmp_path, "pixels", epochs=1).parent / "log.jsonl")
    finally:
        shutil.move(tmp_path / "features", hidden)
    np.testing.assert_allclose([r["loss"] for r in pixels], [r["loss"] for r in cached], rtol=2e-3)


def test_loss_is_the_weighted_mean_over_target_tokens(root, tmp_path):
    """The first logged loss equals a plain recomputation from the logits of the start weights."""
    from transformers import AutoTokenizer

    from visiontokens.compress.base import MethodSpec
    from visiontokens.data.encoders import FastEncoder
    from visiontokens.data.features import FeatureStore
    from visiontokens.data.instruct import Collator, FeatureSource, InstructDataset
    from visiontokens.data.sampler import RunSampler
    from visiontokens.models.build import build_model

    rows = json.loads((root / "data/tune.json").read_text())
    for row in rows:
        if "image" in row:
            row["conversations"] += [
                {"from": "human", "value": "Describe the image concisely."},
                {"from": "gpt", "value": f"the image is {next(iter(COLORS))}"},
            ]
    (root / "data/captioned.json").write_text(json.dumps(rows))
    log = read_log(
        train(root, tmp_path, "w", annotations="captioned.json", caption_weight=0.25, epochs=1).parent / "log.jsonl"
    )
    model = build_model(root / "tower", root / "llm", MethodSpec(), 0).train()
    encoder = FastEncoder(AutoTokenizer.from_pretrained(root / "llm"))
    data = InstructDataset(
        root / "data/captioned.json", encoder, model.config.image_token_id, isolate_turns=True, caption_weight=0.25
    )
    batch = list(RunSampler(data.lengths, 8, 0, 1))[:8]
    store = FeatureStore.open(root / "data/features/train", [2])
    total = weight = 0.0
    for index in batch:
        inputs = Collator(3, FeatureSource(store, "images"), segments=True, weighted=True)([data[index]])
        own = inputs.pop("loss_weights")
        for segment in range(1, int(inputs["segment_ids"].max()) + 1):
            keep = (inputs["segment_ids"][0] == 0) | (inputs["segment_ids"][0] == segment)
            turn = {k: v[:, keep] for k, v in inputs.items() if k not in ("segment_ids", "vision_levels")}
            turn |= {"vision_levels": inputs["vision_levels"]} if "vision_levels" in inputs else {}
            labels, scale = turn.pop("labels"), own[:, keep]
            with torch.no_grad():
                logits = model(**turn, loss_only=False).logits[0]
            shift = logits.shape[0] - labels.shape[1]
            for place in torch.nonzero(labels[0] != -100)[:, 0].tolist():
                logp = logits[place + shift - 1].float().log_softmax(-1)[labels[0, place]]
                total -= float(logp) * float(scale[0, place])
                weight += float(scale[0, place])
    assert log[0]["loss"] == pytest.approx(total / weight, rel=1e-4)


def test_staged_training(root, tmp_path):
    """Half of the steps are compressed, the log says so, and what comes out is a plain LLaVA."""
    out = train(root, tmp_path, "staged", experiment="staged", epochs=2)
    rows = read_log(out.parent / "log.jsonl")
    assert [(row["stage_layer"], row["stage_stride"]) for row in rows] == [("8/32", 4)] * 3 + [(None, None)] * 3
    assert load_model(out.parent).method.name == "none"
    plain = read_log(train(root, tmp_path, "plain", epochs=2).parent / "log.jsonl")
    assert rows[0]["loss"] != plain[0]["loss"]


def test_untrained_rows_are_refused(root, tmp_path):
    with pytest.raises(ValueError, match="expected a trained experiment, found 'borrowed'; trained: none, staged"):
        train(root, tmp_path, experiment="borrowed")


def test_batch_must_be_a_multiple(root, tmp_path):
    with pytest.raises(ValueError, match="batch_size: expected a multiple of micro_batch_size 3, found 8"):
        train(root, tmp_path, micro_batch_size=3)


def test_missing_image_names_file_and_image(root, tmp_path):
    rows = json.loads((root / "data/tune.json").read_text())
    rows[0]["image"] = "gone.png"
    (root / "data/broken.json").write_text(json.dumps(rows))
    with pytest.raises(FileNotFoundError, match=r"broken\.json: image 'gone\.png'"):
        train(root, tmp_path, annotations="broken.json")


def test_another_run_in_the_folder_is_refused(tmp_path):
    identity = {"seed": 0, "settings": {"learning_rate": 0.1, "epochs": 1}}
    claim(tmp_path, identity)
    claim(tmp_path, identity)
    with pytest.raises(
        ResumeError, match=r"seed: found 0, expected 1; settings\.learning_rate: found 0\.1, expected 0\.2"
    ):
        claim(tmp_path, {"seed": 1, "settings": {"learning_rate": 0.2, "epochs": 1}})


def test_incomplete_checkpoints_are_not_used(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    for step, complete in ((9, True), (10, True), (11, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if complete:
            (tmp_path / f"checkpoint-{step}/complete.json").write_text("{}")
    assert newest_checkpoint(tmp_path).name == "checkpoint-10"
    assert not (tmp_path / "checkpoint-11").exists()


def test_log_is_cut_at_the_resumed_step(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    trim_log(path, 2)
    assert read_log(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(ValueError, match=r"log\.jsonl:2: not valid JSON"):
        read_log(path)


def schedule(*stages, pivots=()):
    rows = [{"layer": layer, "stride": stride, "until": until} for layer, stride, until in stages]
    return CountedSchedule(stages=rows, pivots=pivots)


def test_steps_and_forwards_are_counted_differently():
    two = [("2/32", 8, 0.5), (0, 1, 1.0)]
    fractions, counted = schedule(*two), schedule(*two, pivots=(3,))
    assert [fractions.stage(step, 8, step * 2).stride for step in range(8)] == [8] * 4 + [1] * 4
    assert [counted.stage(0, 8, forward).stride for forward in range(8)] == [8] * 4 + [1] * 4
    assert [counted.stage(step, 8, 2 * step).stride for step in range(8)] == [8, 8] + [1] * 6


def test_a_pivot_is_a_multiple_not_a_threshold():
    assert [official_stage(n, (4, 2), (8, 4, 2)) for n in range(8)] == [0, 0, 0, 0, 0, 1, 1, 2]


def test_pivots_must_fit():
    with pytest.raises(ValueError, match="expected 1 pivots for 2 stages"):
        schedule(("2/32", 8, 0.5), (0, 1, 1.0), pivots=(3, 6))


PUBLISHED = {  # LLaVolta, Table 1 (exact compression ratios of each stage) and Table 9
    "single": [100.0],
    "two": [556.5, 100.0],
    "three-deeper": [556.5, 177.8, 100.0],
    "three-wider": [556.5, 188.2, 100.0],
    "four-wider-deeper": [556.5, 188.2, 133.3, 100.0],
    "four-deeper-wider": [556.5, 177.8, 133.3, 100.0],
    "last-stage": [825.8, 188.2, 160.0],
    "two-0": [100.0],
    "two-25": [556.5, 100.0],
    "two-50": [556.5, 100.0],
    "two-75": [556.5, 100.0],
    "two-90": [556.5, 100.0],
    "two-100": [556.5],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_schedules(name, request):
    found = load_schedule(name, request.config.rootpath / "config/schedules")
    ratios = []
    for stage in found.stages:
        layer, out = stage.layer.at(32), 576 // stage.stride
        ratios.append(round(100 * 576 * 32 / ((32 - layer) * out + layer * 576), 1) if stage.stride > 1 else 100.0)
    assert ratios == pytest.approx(PUBLISHED[name], abs=0.1)
    if name.startswith("two-") and len(ratios) == 2:
        assert found.stages[0].until == int(name.split("-")[1]) / 100


def test_official_schedule_file_switches_one_forward_late(request):
    found = load_schedule("four-wider-deeper-official", request.config.rootpath / "config/schedules")
    strides = [found.stage(0, 5198, forward).stride for forward in (1300, 1301, 2600, 2601, 3900, 3901)]
    assert strides == [8, 2, 2, 2, 2, 1]
    layers = [str(found.stage(0, 5198, forward).layer) for forward in (2600, 2601)]
    assert layers == ["2/32", "16/32"]


def test_only_staged_methods_take_a_schedule():
    from visiontokens.compress.base import MethodSpec

    assert staged_method(MethodSpec()).name == "vcc"
    with pytest.raises(ValueError, match="method 'avgpool' has no stages"):
        staged_method(MethodSpec(name="avgpool"))


def test_empty_name_is_no_schedule(tmp_path):
    assert load_schedule("", tmp_path) is None
    with pytest.raises(FileNotFoundError):
        load_schedule("nine", tmp_path)


def test_projector_and_compressor_may_learn_at_their_own_rate(root, tmp_path):
    model = load_model(train(root, tmp_path, experiment="none", epochs=1).parent)
    freeze_for(model, "tune")
    groups = parameter_groups(model, 1e-3, 0.1, connector_lr=1e-4)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert rates.pop(id(parameter)) == (1e-4 if "multi_modal_projector" in name else 1e-3)
    assert not rates
    assert {group["lr"] for group in parameter_groups(model, 1e-3, 0.1)} == {1e-3}

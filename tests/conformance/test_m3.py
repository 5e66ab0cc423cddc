"""M3 against numbers from the official code."""

import re

import pytest
import torch
from goldens import golden, model_of
from transformers import LlamaConfig, TrainingArguments

from visiontokens.compress import Geometry, MethodError, MethodSpec
from visiontokens.compress.base import VisionIn
from visiontokens.models.convert import load_official
from visiontokens.train.callbacks import StageSwitch
from visiontokens.train.loop import StageTrainer

G = golden("m3")
SCALES = G.manifest["scales"]
SIDE = round(max(SCALES) ** 0.5)
INPUTS = {"input_ids": G["input_ids"], "attention_mask": torch.ones_like(G["input_ids"])}


def build(**params):
    """The manifest's model with official weights; its projector returns the official image features."""
    width = G.weights["model.mm_projector.0.weight"].shape[1]
    method = MethodSpec(name="m3", params={"scales": SCALES, **params})
    text = LlamaConfig(**G.manifest["config"], pad_token_id=0)
    image, tied = int(G["input_ids"].min()), "lm_head.weight" not in G.weights
    model = model_of(method, text, width=width, side=SIDE, image=image, tied=tied)
    load_official(model, G.weights, only=r"^(?!model\.vision_tower)")  # the tower's weights are not in the fixture
    model.generation_config.eos_token_id = None
    features = G["image_features"]
    model.model.multi_modal_projector.register_forward_hook(lambda module, args, out: features.expand_as(out))
    level = model.compressor.levels[0]
    return model, {level: torch.zeros(len(features), SIDE**2, width)}


@pytest.mark.parametrize("scale", SCALES)
def test_pooling(scale):
    features = G["random_features"]
    geometry = Geometry(features.shape[2], 2, (SIDE, SIDE), features.shape[2], 2)
    method = MethodSpec(name="m3", params={"scale": scale}).build(geometry)
    vision = VisionIn({0: features}, 0, (SIDE, SIDE), [1] * len(features))
    G.close(torch.stack(method.compress(vision, torch.nn.Identity())), f"pooled_{scale}")


@pytest.mark.parametrize("scale", SCALES)
def test_logits_and_loss_of_every_scale(scale):
    """`forward` obeys the scale; the official one ignores it outside training."""
    assert any("ignores the scale" in text for text in G.manifest["behaviours"])
    model, levels = build(scale=scale)
    with torch.no_grad():
        out = model(**INPUTS, vision_levels=levels, labels=G["labels"])
    assert out.logits.shape[1] == G["input_ids"].shape[1] - 1 + scale
    want = G[f"text_logits_{scale}"]
    G.close(out.logits[:, -want.shape[1] :], want)
    G.close(out.loss, G["losses_per_scale"][SCALES.index(scale)])


def test_training_loss_is_the_mean_over_scales(tmp_path):
    model, levels = build()
    trainer = StageTrainer(
        model, TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]), batches=None,
        switch=StageSwitch(model.compressor, None, 1), precision="fp32",
    )  # fmt: skip
    assert [variant["scale"] for variant in model.compressor.variants()] == SCALES
    loss = trainer.training_step(model, {**INPUTS, "vision_levels": levels, "labels": G["labels"]})
    G.close(loss, "training_loss")


@pytest.mark.parametrize("scale", [int(match[1]) for match in G.names(r"gen_(\d+)\.new_ids")])
def test_greedy_decoding(scale):
    model, levels = build(scale=scale)
    want = G[f"gen_{scale}.new_ids"]
    out = model.generate(
        G["input_ids"], vision_levels=levels, max_new_tokens=len(want), do_sample=False, return_dict_in_generate=True,
        output_logits=True,
    )  # fmt: skip
    assert torch.equal(out.sequences[0, -len(want) :], want)
    G.close(torch.cat(out.logits), f"gen_{scale}.step_logits")


def test_scales_that_the_official_code_rounds_are_refused():
    found = {
        int(match[1]): tokens
        for text, tokens in G.manifest["behaviours"].items()
        if (match := re.fullmatch(r"scale (\d+): tokens produced", text))
    }
    rounded = {scale for scale, tokens in found.items() if tokens != scale}
    assert rounded and rounded != found.keys()
    geometry = Geometry(8, 2, (SIDE, SIDE), 8, 2)
    for scale, tokens in found.items():
        spec = MethodSpec(name="m3", params={"scale": scale})
        if scale in rounded:
            with pytest.raises(MethodError, match=f"scale: found {scale}, expected one of "):
                spec.build(geometry)
        else:
            assert spec.build(geometry).n_tokens(SIDE**2) == tokens

"""LLaVA-STF against numbers from the official code."""

import re

import pytest
import torch
from goldens import golden
from transformers import LlavaForConditionalGeneration

from visiontokens.compress import MethodError, MethodSpec
from visiontokens.compress.mbtf import BLOCKS
from visiontokens.compress.stf import fuse_windows
from visiontokens.models.build import CheckpointError
from visiontokens.models.convert import from_official, load_official
from visiontokens.models.splice import PlaceholderError, plan

G = golden("llava_stf")
SPEC = MethodSpec(name="stf_mbtf")


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    return G.model(SPEC, request.param)


@pytest.fixture(scope="module")
def levels(model):
    """Hidden states of the two images whose intermediates the fixture holds."""
    count = G["projected"].shape[0]
    with torch.no_grad():
        return model.compressor.run_tower(model.model.vision_tower, G["pixel_values"][:count])


def _official_levels():
    listed = re.search(r"\[([-\d, ]+)\]", G.manifest["order_of_computation"])[1]
    return [int(x) for x in listed.split(",")]


def test_levels_and_their_order_are_the_official_ones(model, levels):
    order = _official_levels()
    assert [block for (block,) in BLOCKS["all8"]] == order
    for place, block in enumerate(order):
        G.close(levels[model.geometry.level(block)], G["vision_hidden_states"][place][:, 1:])


def test_every_intermediate(model, levels):
    mbtf, grid = model.compressor.mbtf, model.geometry.grid
    with torch.no_grad():
        G.close(mbtf.gather(levels), "mbtf_input_concat")
        fused = mbtf(levels)
        G.close(fused, "mbtf_output")
        windows = fuse_windows(fused, grid, model.compressor.params.window)
        G.close(windows, "fused_2x2")
        G.close(model.model.multi_modal_projector(windows), "projected")
        tokens, _ = model.encode_images(vision_levels=levels)
        G.close(torch.stack(tokens), "projected")


def test_fusion_is_channel_major_and_row_major():
    ramp = G["fusion_ramp_input"]
    side = round(ramp.shape[1] ** 0.5)
    window = round((ramp.shape[1] / G["fusion_ramp_output"].shape[1]) ** 0.5)
    assert torch.equal(fuse_windows(ramp, (side, side), window), G["fusion_ramp_output"])


def test_widths(model):
    widths = G.manifest["widths"]
    mbtf, projector = model.compressor.mbtf, model.model.multi_modal_projector
    for module, name in ((mbtf, "mm_projector_crosslayer"), (projector, "mm_projector")):
        assert [module.linear_1.in_features, module.linear_1.out_features, module.linear_2.out_features] == widths[name]


def test_single_sample_logits_and_greedy_decoding(model):
    ids, pixels = G["a.input_ids"], G["pixel_values"][:1]
    with torch.no_grad():
        G.close(model(input_ids=ids, pixel_values=pixels).logits, "a.logits")
    steps = G["a.generated_ids"].shape[1]
    out = model.generate(
        ids,
        pixel_values=pixels,
        max_new_tokens=steps,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    assert torch.equal(out.sequences[:, ids.shape[1] :], G["a.generated_ids"])
    assert torch.equal(G["a.generated_ids"], G["a.generated_ids_raw"][:, 1:])
    G.close(torch.cat(out.logits), "a.generated_step_logits")


def test_prefill_and_extend_give_the_same_steps(model):
    state = model.prefill(G["a.input_ids"], pixel_values=G["pixel_values"][:1])
    for token, want in zip(G["a.generated_ids"][0], G["a.generated_step_logits"], strict=True):
        G.close(state.logits[0], want)
        assert state.logits.argmax() == token
        _, state = model.extend(state, token.view(1, 1))


def test_padded_batch_loss_and_gradients(model):
    ids, mask, labels = G["b.input_ids"], G["b.attention_mask"], G["b.labels"]
    for parameter in model.model.vision_tower.parameters():
        parameter.requires_grad_(not G.manifest["vision_tower_parameters_without_gradient"])
    images = G["pixel_values"][1 : 1 + len(ids)]
    model.zero_grad()
    out = model(input_ids=ids, attention_mask=mask, pixel_values=images, labels=labels)
    real = G["b.expanded_attention_mask"].bool()
    G.close(out.logits[real], G["b.logits"][real])
    G.close(out.loss, "b.loss")
    out.loss.backward()
    named = dict(model.named_parameters())
    for match in G.names(r"b\.grad\.(.+)"):
        G.close(named[from_official(match[1])].grad, match[0])
    assert all(p.grad is None for p in model.model.vision_tower.parameters())


def test_layout_of_the_padded_batch(model):
    ids, mask = G["b.input_ids"], G["b.attention_mask"]
    count = G["projected"].shape[1]
    layout = plan(ids, mask, model.config.image_token_id, [count] * 2, [model.geometry.n_vision] * 2)
    assert torch.equal(layout.valid.long(), G["b.expanded_attention_mask"].long())
    assert torch.equal(layout.labels(G["b.labels"]), G["b.expanded_labels"])
    with torch.no_grad():
        images, _ = model.encode_images(G["pixel_values"][1:3])
        text = model.get_input_embeddings()(ids.clamp_min(0))
        G.close(layout.embed(text, images), "b.inputs_embeds")


def test_loss_only_training_gives_the_same_loss_and_gradients(model):
    kwargs = {"input_ids": G["b.input_ids"], "attention_mask": G["b.attention_mask"], "labels": G["b.labels"]}
    model.zero_grad()
    out = model(**kwargs, pixel_values=G["pixel_values"][1:3], loss_only=True)
    assert out.logits is None
    G.close(out.loss, "b.loss")
    out.loss.backward()
    G.close(model.lm_head.weight.grad, "b.grad.lm_head.weight")


def test_frames_of_a_video_are_joined(model):
    frames = G["c.logits"].shape[1] - G["a.logits"].shape[1]
    count = 1 + frames // G["projected"].shape[1]
    video = G["pixel_values"][None, :count]
    with torch.no_grad():
        G.close(model(input_ids=G["a.input_ids"], pixel_values=video).logits, "c.logits")


def test_gradients_reach_the_projectors_through_a_video(model):
    """The official batched video path runs under no_grad."""
    model.zero_grad()
    model(input_ids=G["a.input_ids"], pixel_values=G["pixel_values"][None, :2]).logits.sum().backward()
    assert model.compressor.mbtf.linear_1.weight.grad.abs().sum() > 0


def test_text_only_row_consumes_no_image(model):
    """The official code takes one image of the batch for a row without a placeholder."""
    ids, mask = G["e.input_ids"], G["e.attention_mask"]
    real = G["e.expanded_attention_mask"].bool()
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, pixel_values=G["pixel_values"][2:]).logits
        G.close(logits[real], G["e.logits"][real])
        with pytest.raises(PlaceholderError, match="2 images"):
            model(input_ids=ids, attention_mask=mask, pixel_values=G["pixel_values"][1:])


def test_plain_image_batches_run(model):
    """`[B, 3, H, W]`, what training and evaluation loaders pass, fails in the official code."""
    assert any("rank 4" in text and "Error" in what for text, what in G.manifest["behaviours"].items())
    tokens, _ = model.encode_images(G["pixel_values"])
    assert [t.shape for t in tokens] == [G["projected"].shape[1:]] * len(G["pixel_values"])


def test_windows_that_do_not_divide_the_grid_are_refused():
    """The official fusion crops odd grids without a word."""
    with pytest.raises(MethodError, match="does not divide"):
        G.model(MethodSpec(name="stf_mbtf", params={"window": 3}))


def test_checkpoints_must_fit():
    model = G.model(SPEC)
    weights = dict(G.weights)
    name, value = weights.popitem()
    with pytest.raises(CheckpointError, match=f"missing: {re.escape(from_official(name))}"):
        load_official(model, weights)
    with pytest.raises(CheckpointError, match=r"unexpected: model\.surprise"):
        load_official(model, {**G.weights, "model.surprise": value})
    with pytest.raises(CheckpointError, match=f"misshaped: {re.escape(name)}"):
        load_official(model, {**G.weights, name: value.new_zeros(3)})
    with pytest.raises(CheckpointError, match="misshaped"):
        load_official(G.model(SPEC), {**G.weights, "model.mm_projector.0.weight": torch.zeros(32, 16)})


def test_stage_one_adapter_is_all_of_both_projectors():
    keys = G.manifest["behaviours"]["keys saved as the stage-1 adapter"]
    names = re.findall(r"'([^']+)'", keys)
    model = G.model(SPEC)
    pattern = r"^(compressor|model\.multi_modal_projector)\."
    load_official(model, {name: G.weights[name] for name in names}, only=pattern)
    with pytest.raises(CheckpointError, match="missing"):
        load_official(model, {name: G.weights[name] for name in names[1:]}, only=pattern)


def test_saved_weights_come_back(tmp_path):
    from visiontokens.models.build import load_model, save_model

    model = G.model(SPEC)
    save_model(model, tmp_path / "m")
    again = load_model(tmp_path / "m")
    want = model.state_dict()
    assert {k: torch.equal(v, want[k]) for k, v in again.state_dict().items()} == dict.fromkeys(want, True)
    with pytest.raises(RuntimeError):  # a stock model has no place for the wide projector
        LlavaForConditionalGeneration.from_pretrained(tmp_path / "m")

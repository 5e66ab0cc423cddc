import csv

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, CLIPVisionModel

from visiontokens.config import TowerPretrainConfig
from visiontokens.data.miniworld.render import render
from visiontokens.data.miniworld.scenes import Scenes, digit_instances
from visiontokens.models.tiny import SMOKE_LLM, SMOKE_TOWER, TowerDims, image_processor, llm_config, tower_config
from visiontokens.provenance import read_json
from visiontokens.train.backbones.crops import sample_crops
from visiontokens.train.backbones.probe import ATTRIBUTES, probe_targets
from visiontokens.train.backbones.tower import pretrain_tower, save_tower
from visiontokens.train.backbones.vision import (
    CaptionHead,
    PatchHead,
    build_tower,
    caption_bags,
    hidden_states,
    patch_places,
)

TINY = TowerDims(hidden=16, layers=3, heads=2, mlp=32)  # on the world's own 96 px images


@pytest.fixture
def tower() -> CLIPVisionModel:
    torch.manual_seed(0)
    return build_tower(TINY, dense_layers=2).eval()


def test_training_forward_is_the_stock_forward_on_whole_images(tower):
    for layer in tower.encoder.layers:
        torch.nn.init.normal_(layer.mlp.fc2.weight, std=0.2)
    pixels = torch.randn(2, 3, 96, 96)
    ours = hidden_states(tower, pixels)
    tower.set_attn_implementation("sdpa")
    stock = tower(pixels, output_hidden_states=True).hidden_states
    assert len(ours) == len(stock) == 4
    for a, b in zip(ours, stock, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_crop_takes_the_positions_of_its_window(tower):
    pixels = torch.randn(1, 3, 96, 96)
    whole = hidden_states(tower, pixels, depth=0)[0][0, 1:].view(24, 24, -1)
    crop = hidden_states(tower, pixels[..., 20:68, 8:56], corner=(5, 2), depth=0)[0][0, 1:].view(12, 12, -1)
    torch.testing.assert_close(crop, whole[5:17, 2:14])


def test_heads_begin_by_looking_at_a_neighbour_and_the_top_begins_as_the_identity():
    torch.manual_seed(0)
    tower = build_tower(dense_layers=5)
    states = hidden_states(tower, torch.zeros(1, 3, 96, 96))
    torch.testing.assert_close(states[5], states[8])
    attention, x = tower.encoder.layers[0].self_attn, tower.encoder.layers[0].layer_norm1(states[0])
    query, key = (p(x).view(577, 4, 32).transpose(0, 1) for p in (attention.q_proj, attention.k_proj))
    best = (query @ key.transpose(1, 2))[:, 1:, 1:].argmax(-1).view(4, 24, 24)[:, 4:20, 4:20]
    here = torch.arange(576).view(24, 24)[4:20, 4:20]
    for head, step in enumerate((1, -1, 24, -24)):
        assert (best[head] == here + step).float().mean() > 0.9


def test_crops_are_packed_labelled_and_keep_to_their_split():
    crops = sample_crops(40, np.random.default_rng(0), "train")
    assert crops.images.shape == (40, 48, 48, 3) and crops.labels.shape == (40, 5, 12, 12)
    assert (crops.labels[:, 4] > 0).mean() > 0.25  # a whole scene: about 0.02
    again = sample_crops(40, np.random.default_rng(0), "train")
    np.testing.assert_array_equal(crops.images, again.images)
    other = sample_crops(40, np.random.default_rng(0), "test")
    assert not np.array_equal(crops.images, other.images)
    plates = sample_crops(6, np.random.default_rng(1), "train", kinds=(0, 0, 0, 1), side=96)
    assert not plates.labels[:, :4].any() and plates.images.shape == (6, 96, 96, 3)


def test_captions_name_what_is_there_but_neither_digits_nor_textures():
    scenes = Scenes.sample(60, 0, "train")
    words, used, named = caption_bags(scenes)
    assert words.shape == (60, 6, 5) and words.max() == sum(CaptionHead._SIZES) - 1 and words.min() == 0
    np.testing.assert_array_equal(used.sum(1), scenes.present.sum(1) + scenes.plate)
    i, o = np.argwhere(scenes.present)[0]
    assert words[i, o, 0] == scenes.color[i, o] and words[i, o, 3] == 16 + scenes.y[i, o] // 24
    assert named[i, scenes.color[i, o] * 6 + scenes.shape[i, o]] == 1
    texture = {"texture": 1 - scenes.texture, "digits": 9 - scenes.digits}
    changed = Scenes(**{f: texture.get(f, getattr(scenes, f)) for f in scenes.__dataclass_fields__})
    np.testing.assert_array_equal(caption_bags(changed)[0], words)


def test_the_heads_learn_from_perfect_states():
    torch.manual_seed(0)
    labels = torch.from_numpy(sample_crops(4, np.random.default_rng(0), "train").labels).flatten(2).long()
    states = torch.nn.functional.one_hot(labels[:, 4], 16).float()
    head, places = PatchHead(16), patch_places(24, (4, 6), 12, 12)
    optimizer = torch.optim.Adam(head.parameters(), 0.1)
    first, _ = head(states, labels, places)
    for _ in range(60):
        loss, right = head(states, labels, places)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.7 * first and right == 1.0


def test_patch_places_are_centres_in_the_whole_image():
    places = patch_places(4, (1, 2), 2, 2)
    assert places.tolist() == [[-0.25, 0.25], [-0.25, 0.75], [0.25, 0.25], [0.25, 0.75]]


def test_the_place_counts_most_where_something_is_shown():
    torch.manual_seed(0)
    head, states = PatchHead(16), torch.randn(1, 4, 16)
    labels = torch.zeros(1, 5, 4, dtype=torch.long)
    labels[0, 0, 3] = 1
    there, wrong = head.place(head.norm(states))[0].detach(), torch.ones(2)
    losses = [head(states, labels, there + wrong * (torch.arange(4) == k)[:, None])[0].item() for k in (0, 3)]
    exact = head(states, labels, there)[0].item()
    assert exact < losses[0] < losses[1]


def test_probe_targets_are_the_patches_under_the_centres():
    scenes = Scenes.sample(50, 0, "test", plate=1.0)
    targets = probe_targets(scenes)
    assert set(targets) == set(ATTRIBUTES)
    image, patch, color = targets["color"]
    assert len(image) == scenes.present.sum() and patch.max() < 576
    i, o = np.argwhere(scenes.present)[-1]
    assert patch[-1] == scenes.y[i, o] // 4 * 24 + scenes.x[i, o] // 4 and color[-1] == scenes.color[i, o]
    assert sum(len(targets[f"digit_{px}px"][0]) for px in (8, 12, 16)) == scenes.n_digits.sum()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    out = tmp_path_factory.mktemp("tower") / "tower"
    plan = TowerPretrainConfig(
        crop_steps=50, crop_batch=2, packed_steps=2, packed_batch=1, contrastive_steps=3, contrastive_batch=2,
        dense_layers=2, probe_images=40, save_every=25,
    )  # fmt: skip
    pretrain_tower(plan, out, TINY)
    return out


def test_pretraining_learns_and_writes_a_stock_tower(pretrained):
    tower, info = CLIPVisionModel.from_pretrained(pretrained, output_loading_info=True)
    assert not any(info.values()) and tower.dtype == torch.float32
    record = read_json(pretrained / "record.json")
    assert record["losses"][0]["step"] == 50 and record["losses"][0]["loss"] > 0
    assert record["plan"]["crop_steps"] == 50 and record["cpu_seconds"] > 0
    rows = list(csv.DictReader((pretrained / "probe.csv").open()))
    assert len(rows) == 4 * len(ATTRIBUTES) and {r["layer"] for r in rows} == set("0123")
    partial = CLIPVisionModel.from_pretrained(pretrained.with_name("tower.partial"))
    assert not torch.equal(partial.embeddings.patch_embedding.weight, tower.embeddings.patch_embedding.weight)


def test_the_image_processor_makes_the_pixels_of_training(pretrained):
    processor = AutoImageProcessor.from_pretrained(pretrained, backend="pil")
    image = render(Scenes.sample(1, 0, "test"))[0]
    pixels = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    mean, std = (torch.tensor(v) for v in (processor.image_mean, processor.image_std))
    torch.testing.assert_close(pixels[0].permute(1, 2, 0), (torch.from_numpy(image) / 255 - mean) / std)


def test_weights_are_halves_on_disk_and_close_after_loading(tower, tmp_path):
    save_tower(tower, tmp_path, ([0.2] * 3, [0.2] * 3), TINY)
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size < 2.2 * sum(p.numel() for p in tower.parameters()) + 20_000
    loaded = CLIPVisionModel.from_pretrained(tmp_path)
    for name, value in tower.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, atol=2e-3, rtol=1e-3)


def test_tiny_configurations_follow_their_dims():
    assert tower_config(SMOKE_TOWER).image_size == 16 and SMOKE_TOWER.grid == 4
    assert tower_config().num_hidden_layers == 8 and TowerDims().grid == 24
    llm = llm_config(300, SMOKE_LLM, pad=3)
    assert llm.tie_word_embeddings and llm.vocab_size == 300 and llm.rope_parameters["rope_theta"] == 10000.0
    assert image_processor([0.5] * 3, [0.5] * 3, SMOKE_TOWER).crop_size["height"] == 16
    with pytest.raises(ValueError, match="found 15, expected a multiple of patch_size 4"):
        tower_config(TowerDims(image_size=15))


def test_training_and_test_digits_never_meet():
    assert not set(digit_instances("train")) & set(digit_instances("test"))

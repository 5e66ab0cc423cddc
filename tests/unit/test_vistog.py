"""VisToG: what the semantic tokens see, what the patches do not, and who goes to which group."""

import pytest
import torch
from tiny_llava import PATCHES, pixels, spec, tiny_model

from visiontokens.compress.base import VisionIn


@pytest.fixture
def model():
    return tiny_model(spec("vistog", groups=6))


def _vision(model, images):
    levels = model.compressor.run_tower(model.model.vision_tower, images)
    first = {k: levels[k][:, 0] for k in model.compressor.class_levels}
    patches = {k: v[:, 1:] if k in first else v for k, v in levels.items()}
    default = model.geometry.default_level
    return VisionIn(patches, default, model.geometry.grid, [1] * len(images), first, model.model.vision_tower)


def _joint(model, images):
    """Run tower and semantic tokens together under the isolated mask; return all hidden states."""
    tower, group = model.model.vision_tower, model.compressor.semantic
    size = 1 + PATCHES
    mask = torch.ones(1, 1, size + len(group), size + len(group), dtype=torch.bool)
    mask[..., :size, size:] = False
    handle = tower.pre_layrnorm.register_forward_hook(
        lambda _, __, out: torch.cat([out, group.expand(len(out), -1, -1)], 1)
    )
    try:
        return tower(images, output_hidden_states=True, attention_mask=mask).hidden_states
    finally:
        handle.remove()


def test_cached_states_give_what_the_whole_tower_gives(model):
    """Only the semantic tokens run; the image's states are those of the stock tower, whatever the tokens are."""
    images, default = pixels(2), model.geometry.default_level
    model.compressor.semantic.data.mul_(50)
    vision = _vision(model, images)
    with torch.no_grad():
        got, joint = model.compressor.through_tower(vision), _joint(model, images)
        stock = model.model.vision_tower(images, output_hidden_states=True).hidden_states
    torch.testing.assert_close(got, joint[default][:, 1 + PATCHES :], atol=1e-5, rtol=1e-5)
    for level in range(default + 1):
        torch.testing.assert_close(joint[level][:, : 1 + PATCHES], stock[level], atol=1e-5, rtol=1e-5)
        assert torch.equal(vision.levels[level], stock[level][:, 1:]), "bit-identical"


def test_every_patch_goes_to_one_group_or_is_shared_out(model):
    grouping = model.compressor.grouping
    group, patches = torch.randn(2, 6, 16), torch.randn(2, PATCHES, 16)
    hard = grouping.assignment(group, patches)
    assert torch.equal(hard.sum(1), torch.ones(2, PATCHES))
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    grouping.train()
    torch.manual_seed(1)
    drawn = grouping.assignment(group, patches).detach()
    torch.testing.assert_close(drawn.sum(1), torch.ones(2, PATCHES))
    assert not torch.equal(drawn.argmax(1), hard.argmax(1)), "training draws"
    torch.manual_seed(1)
    assert torch.equal(grouping.assignment(group, patches).detach(), drawn), "and repeats with the seed"
    soft = tiny_model(spec("vistog", groups=6, assign="soft")).compressor.grouping.assignment(group, patches).detach()
    torch.testing.assert_close(soft.sum(1), torch.ones(2, PATCHES))
    assert float(soft.max()) < 1


def test_patches_may_come_in_any_order(model):
    group, patches = torch.randn(1, 6, 16), torch.randn(1, PATCHES, 16)
    moved = patches[:, torch.randperm(PATCHES)]
    torch.testing.assert_close(
        model.compressor.grouping(group, patches), model.compressor.grouping(group, moved), atol=1e-5, rtol=1e-5
    )


def test_semantic_tokens_learn_through_the_frozen_tower(model):
    model.model.vision_tower.requires_grad_(False)
    model.train().compressor.grouping.requires_grad_(False)
    tokens = model.encode_images(pixels(1))[0][0]
    tokens.square().sum().backward()
    grad = model.compressor.semantic.grad
    assert grad is not None
    assert bool((grad.abs().sum(-1) > 0).all())

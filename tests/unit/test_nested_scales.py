"""M3: which scales there are, what one step trains, and that one set of weights serves every scale."""

from itertools import pairwise

import pytest
import torch
from tiny_llava import PATCHES, SIDE, pad, pixels, prompt, spec, tiny_model
from transformers import TrainingArguments

from visiontokens.compress import Geometry, MethodError
from visiontokens.compress.base import VisionIn
from visiontokens.compress.budget import fit_budget
from visiontokens.compress.m3 import nested_scales, valid_scales
from visiontokens.models.build import load_model, save_model
from visiontokens.train.callbacks import StageSwitch
from visiontokens.train.loop import StageTrainer

ROWS = [prompt(9, at=3, seed=1), prompt(6, at=2, seed=2)]


def batch():
    ids, mask = pad(ROWS)
    return {
        "input_ids": ids, "attention_mask": mask, "pixel_values": pixels(2), "labels": ids.masked_fill(mask == 0, -100),
    }  # fmt: skip


def trainer_of(model, path):
    return StageTrainer(
        model, TrainingArguments(str(path), use_cpu=True, report_to=[]), batches=None,
        switch=StageSwitch(model.compressor, None, 1), precision="fp32",
    )  # fmt: skip


@pytest.mark.parametrize("grid", [(24, 24), (12, 12), (27, 27), (8, 12), (7, 7), (1, 1)])
def test_scales_are_the_grids_own(grid):
    valid, nested = valid_scales(grid), nested_scales(grid)
    assert list(valid) == sorted(valid)
    for scale, side in valid.items():
        assert grid[0] % side == grid[1] % side == 0 and scale == (grid[0] // side) * (grid[1] // side)
    assert set(nested) <= set(valid) and nested[0] == grid[0] * grid[1] and nested[-1] == min(valid)
    for fine, coarse in pairwise(nested):
        assert valid[coarse] % valid[fine] == 0


def test_scales_of_the_paper():
    assert nested_scales((24, 24)) == (576, 144, 36, 9, 1)
    assert list(valid_scales((24, 24))) == [1, 4, 9, 16, 36, 64, 144, 576]


@pytest.mark.parametrize("params", [{"scale": 100}, {"scales": (1, 100)}])
def test_other_scales_are_refused_with_the_list(params):
    with pytest.raises(MethodError, match="found 100, expected one of 1, 4, 9, 16, 36, 64, 144, 576 on 24x24 patches"):
        spec("m3", **params).build(Geometry(8, 2, (24, 24), 8, 2))


def test_a_coarse_scale_is_the_mean_of_the_finer_one():
    features = torch.randn(2, PATCHES, 8)
    vision, geometry = VisionIn({0: features}, 0, (SIDE, SIDE), [1, 1]), Geometry(8, 2, (SIDE, SIDE), 8, 2)
    fine, coarse = (
        spec("m3", scale=scale).build(geometry).tokens(vision, torch.nn.Identity()) for scale in (PATCHES // 4, 9)
    )
    side = SIDE // 2
    pooled = fine.transpose(1, 2).unflatten(2, (side, side))
    want = torch.nn.functional.avg_pool2d(pooled, side // 3).flatten(2).transpose(1, 2)
    torch.testing.assert_close(coarse, want)


def test_pooling_before_and_after_the_projector_differ():
    """The projector is not linear; with all patches there is nothing to pool."""
    before, after = (tiny_model(spec("m3", scale=9, place=place)) for place in ("before", "after"))
    tokens = [torch.stack(model.encode_images(pixels(1))[0]) for model in (before, after)]
    assert tokens[0].shape == tokens[1].shape
    assert not torch.allclose(*tokens, atol=1e-3)
    for model in (before, after):
        model.compressor.use_variant({"scale": PATCHES})
    torch.testing.assert_close(*[torch.stack(model.encode_images(pixels(1))[0]) for model in (before, after)])


def test_a_step_is_the_mean_of_all_scales_one_graph_at_a_time(tmp_path):
    together, apart = (tiny_model(spec("m3", scale=9)).train() for _ in range(2))
    losses = []
    for variant in together.compressor.variants():
        together.compressor.use_variant(variant)
        losses.append(together(**batch()).loss)
    mean = torch.stack(losses).mean()
    mean.backward()
    trainer = trainer_of(apart, tmp_path)
    backward, syncs = trainer.accelerator.backward, []
    trainer.accelerator.backward = lambda *args, **kwargs: (
        syncs.append(trainer.accelerator.sync_gradients),
        backward(*args, **kwargs),
    )
    torch.testing.assert_close(trainer.training_step(apart, batch()), mean.detach())
    assert syncs == [False] * (len(losses) - 1) + [True]
    assert apart.compressor.scale == 9
    assert trainer.meter.forwards == 1
    scales = nested_scales((SIDE, SIDE))
    text = sum(len(row) - 1 for row in ROWS)
    assert trainer.meter.load.tokens == sum(text + 2 * scale for scale in scales)
    for (name, one), (_, other) in zip(together.named_parameters(), apart.named_parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_one_set_of_weights_serves_every_scale(tmp_path):
    model = tiny_model(spec("m3"))
    save_model(model, tmp_path)
    ids, image = ROWS[0][None], pixels(1)
    for scale in valid_scales((SIDE, SIDE)):
        model.compressor.use_variant({"scale": scale})
        with torch.no_grad():
            want = model(input_ids=ids, pixel_values=image).logits
            got = load_model(tmp_path, spec("m3", scale=scale))(input_ids=ids, pixel_values=image).logits
        assert torch.equal(got, want)


def test_a_budget_is_a_scale():
    geometry = Geometry(8, 2, (24, 24), 8, 2)
    assert fit_budget("m3", geometry, 36).params == {"scale": 36}
    with pytest.raises(MethodError, match="it can spend 1, 4, 9, 16, 36, 64, 144, 576"):
        fit_budget("m3", geometry, 100)

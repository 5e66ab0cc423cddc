"""PruMerge with counts that depend on the image: the contract's promises, and equality with one image at a time."""

import pytest
import torch
from test_contract import (  # noqa: F401 - collected here too, with this file's model
    test_batched_is_single,
    test_generate_is_prefill_and_extend,
    test_gradients_reach_what_trains_and_nothing_else,
    test_saved_and_loaded_is_the_same,
    test_videos_and_images_mix_with_text,
)
from tiny_llava import PATCHES, pixels, prompt, spec, tiny_model

from visiontokens.compress import MethodSpec
from visiontokens.compress.prumerge import PAPER_MEAN, PruMergeParams, merge, select
from visiontokens.evaluate.greedy import Greedy, Prompt

ADAPTIVE = {"plain": {"ratio": "adaptive"}, "plus": {"ratio": "adaptive", "plus": True}}


@pytest.fixture(params=ADAPTIVE)
def model(request):
    model = tiny_model(spec("prumerge", **ADAPTIVE[request.param]))
    block = model.model.vision_tower.encoder.layers[model.geometry.default_level]
    block.self_attn.q_proj.weight.data.mul_(8)  # else no patch of a random tower stands out
    return model


def _random(images=3, patches=36, width=8, seed=0):
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(images, patches, width, generator=draw)
    keys = torch.randn(images, patches, width, generator=draw)
    return features, keys, (3 * torch.randn(images, patches, generator=draw)).softmax(-1)


def _one(x, keys, attention, kept, neighbours):
    """One image, token by token."""
    unit = keys / keys.norm(dim=-1, keepdim=True)
    tokens = []
    for i in kept:
        like = unit @ unit[i]
        near = sorted((j for j in range(len(x)) if j != i), key=lambda j: -float(like[j]))[:neighbours]
        tokens.append(x[i] + sum(attention[j] * x[j] for j in near))
    tokens.append(sum(attention[j] * x[j] for j in range(len(x)) if j not in kept))
    return torch.stack(tokens)


@pytest.mark.parametrize("setting", [*ADAPTIVE.values(), {"ratio": 0.25}, {"ratio": 0.125, "plus": True}])
def test_batches_are_merged_image_by_image(setting):
    params = PruMergeParams(**setting, neighbours=5)
    features, keys, attention = _random()
    kept = select(attention, params)
    merged = merge(features, keys, attention, kept, params.neighbours)
    counts = [kept.index.shape[1]] * 3 if kept.count is None else kept.count.tolist()
    assert kept.count is None or len(set(counts)) > 1
    for image, count in enumerate(counts):
        chosen = kept.index[image, :count].tolist()
        want = _one(features[image], keys[image], attention[image], chosen, params.neighbours)
        torch.testing.assert_close(merged[image, : count + 1], want, atol=1e-5, rtol=1e-5)


def test_the_attended_patches_are_kept():
    _, _, attention = _random(1)
    best = attention[0].topk(9).indices.sort().values
    assert torch.equal(select(attention, PruMergeParams(ratio=0.25)).index[0], best)
    ranked = select(attention, PruMergeParams(ratio=0.25, order="attention")).index[0]
    assert torch.equal(ranked, attention[0].topk(9).indices)


def test_finer_grids_for_images_with_more_outliers():
    """Stride int(int(N / outliers) / 3), as in the released code; the older one had a fourth, from a sixth on."""
    attention = torch.full((2, 144), 1.0)
    attention[0, :2], attention[1, :12] = 9.0, 9.0
    new = select(attention, PruMergeParams(ratio="adaptive", plus=True))
    assert set(new.index[0, : new.count[0]].tolist()) == {0, 1, *range(0, 144, 24)}
    assert set(new.index[1, : new.count[1]].tolist()) == {*range(12), *range(0, 144, 4)}
    old = select(attention, PruMergeParams(ratio="adaptive", plus=True, stride_part=4, start_part=6))
    assert set(old.index[0, : old.count[0]].tolist()) == {0, 1, *range(12, 144, 18)}


def test_counts_are_recorded_image_by_image(model):
    """The expected number is the paper's; what an answer really cost is counted."""
    n = model.geometry.n_vision
    expected = PAPER_MEAN[model.compressor.params.plus] * n / 576
    assert model.compressor.n_tokens(n) is None
    assert model.compressor.tokens_per_layer(n, 2) == [expected] * 2

    class Ids:
        pad_id, eos_id = 0, -1

    images = model.compressor.run_tower(model.model.vision_tower, pixels(3))
    ids = prompt(6).tolist()
    question = Prompt(tuple(ids[:3]), tuple(ids[3:]))
    want = [len(tokens) for tokens in model.encode_images(vision_levels=images)[0]]
    assert len(set(want)) > 1
    for batch in (0, 1):
        for share in (True, False):
            greedy = Greedy(model, Ids(), 2, batch, share=share)
            greedy.answer(images, [[question, question], [question], [question]])
            assert greedy.image_tokens == dict(enumerate(want))


def test_parameters_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="duplicates: expected plus with a fixed ratio"):
        MethodSpec(name="prumerge", params={"duplicates": True})
    with pytest.raises(ValueError, match="expected: a fixed ratio keeps a fixed number"):
        MethodSpec(name="prumerge", params={"expected": 30})


def test_states_without_the_class_token_are_refused(model):
    level = model.geometry.default_level
    with pytest.raises(ValueError, match=rf"expected shape \(1, {PATCHES + 1}, 16\) \(class token in front\)"):
        model.encode_images(vision_levels={level: torch.zeros(1, PATCHES, 16)})

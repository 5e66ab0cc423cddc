"""VisionZip against a plain reading of its rules, one image at a time."""

import pytest
import torch
from tiny_llava import PATCHES, pixels, spec, tiny_model

from visiontokens.compress import Geometry, MethodError
from visiontokens.compress.base import VisionIn
from visiontokens.compress.budget import fit_budget
from visiontokens.compress.visionzip import VisionZipParams, contextual_tokens


def _one(model, pixels_of_one):
    """Tokens `[M, C]` before the projector from the tower's own attention weights."""
    tower, level = model.model.vision_tower, model.geometry.default_level
    tower.set_attn_implementation("eager")
    with torch.no_grad():
        out = tower(pixels_of_one, output_hidden_states=True, output_attentions=True)
        layer = tower.encoder.layers[level - 1]
        keys = layer.self_attn.k_proj(layer.layer_norm1(out.hidden_states[level - 1]))[0, 1:]
    state, attention = out.hidden_states[level][0], out.attentions[level - 1][0, :, 0, 1:].sum(0)
    dominant, contextual = model.compressor.params.counts(PATCHES)
    best = sorted(attention.topk(dominant - 1).indices.tolist())
    rest = [i for i in range(PATCHES) if i not in best]
    step = len(rest) // contextual
    targets = rest[::step][:contextual]
    metric = keys.unflatten(-1, (model.geometry.vision_heads, -1)).mean(1)
    metric = metric / metric.norm(dim=-1, keepdim=True)
    groups = {target: [] for target in targets}
    for i in rest:
        if i not in groups:
            groups[max(targets, key=lambda target: float(metric[i] @ metric[target]))].append(state[1 + i])
    merged = [state[1 + t] + (torch.stack(g).mean(0) if g else 0) for t, g in groups.items()]
    return torch.stack([state[0], *(state[1 + i] for i in best), *merged])


def test_tokens_are_those_of_the_towers_own_attention():
    model, images = tiny_model(spec("visionzip", dominant=108, contextual=20)), pixels(2)
    model.model.multi_modal_projector = torch.nn.Identity()
    levels = model.compressor.run_tower(model.model.vision_tower, images)
    whole, default = levels, model.geometry.default_level
    vision = VisionIn(
        {k: v[:, 1:] for k, v in whole.items()}, default, model.geometry.grid, [1, 1],
        {k: v[:, 0] for k, v in whole.items()}, model.model.vision_tower,
    )  # fmt: skip
    got = model.compressor.tokens(vision, torch.nn.Identity())
    for image in range(2):
        torch.testing.assert_close(got[image], _one(model, images[[image]]), atol=1e-5, rtol=1e-5)


def test_sum_and_mean_differ_as_documented():
    features, metric = torch.randn(2, 20, 6), torch.randn(2, 20, 3)
    total, mean = (contextual_tokens(features, metric, 4, how) for how in ("sum", "mean"))
    assert not torch.allclose(total, mean)
    alone = contextual_tokens(features[:, :4], metric[:, :4], 4)
    torch.testing.assert_close(alone, features[:, :4])


def test_published_counts_are_those_of_576_patches():
    assert VisionZipParams(dominant=54, contextual=10).counts(576) == (54, 10)
    assert VisionZipParams(dominant=54, contextual=10).counts(144) == (14, 3)
    with pytest.raises(MethodError, match="dominant 500 and contextual 100 are more tokens than the 576 patches"):
        spec("visionzip", dominant=500, contextual=100).build(Geometry(16, 4, (24, 24), 16, 4))


def test_a_budget_gives_the_published_split_and_any_other_one():
    geometry = Geometry(1024, 24, (24, 24), 4096, 32)
    assert fit_budget("visionzip", geometry, 64).params == {"dominant": 54, "contextual": 10}
    other = fit_budget("visionzip", geometry, 300).build(geometry)
    assert abs(other.tokens_per_layer(576, 32)[0] - 300) <= 3


def test_without_class_token_one_more_patch_is_kept():
    images = pixels(1)
    with_class, without = (tiny_model(spec("visionzip", class_token=c)) for c in (True, False))
    a, b = with_class.encode_images(images)[0][0], without.encode_images(images)[0][0]
    assert a.shape == b.shape
    assert not torch.equal(a, b)

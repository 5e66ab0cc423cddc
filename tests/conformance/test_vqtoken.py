"""VQToken against its equations, written out slowly: no numbers of the official code were recorded."""

import math

import pytest
import torch
from torch.nn import functional

from visiontokens.compress import Geometry, MethodSpec
from visiontokens.compress.base import VisionIn
from visiontokens.compress.clustering import lloyd, plus_plus
from visiontokens.compress.codebook import Search, find_clusters

SIDE, WIDTH = 6, 8
N = SIDE * SIDE
GEOMETRY = Geometry(WIDTH, 2, (SIDE, SIDE), WIDTH, 2)


def build(name, **params):
    params = {"codes": 5, **({} if name == "vq_mean" else {"heads": 2}), **params}
    torch.manual_seed(0)
    method = MethodSpec(name=name, params=params).build(GEOMETRY).eval()
    method.reset_parameters()
    return method


def features(frames, seed=0):
    return 3 * torch.randn(frames, N, WIDTH, generator=torch.Generator().manual_seed(seed))


def compress(method, x, frames):
    with torch.no_grad():
        return method.compress(VisionIn({0: x}, 0, (SIDE, SIDE), frames), torch.nn.Identity())


def clusters(x, k, iterations=20, seed=0):
    """Labels of one run `[P, D]`, by functions that have tests of their own."""
    unit = functional.normalize(x, dim=1)[None]
    return lloyd(unit, plus_plus(unit, k, seed), iterations, metric="cosine")[0][0]


def slow_codes(x, label, k, rescale=False):
    codes = []
    for c in range(k):
        members = [row for row, own in zip(x, label.tolist(), strict=True) if own == c]
        mean = sum(row / row.norm() for row in members) / len(members)
        codes.append(mean * (sum(row.norm() for row in members) / len(members) if rescale else 1))
    return torch.stack(codes)


@pytest.mark.parametrize("rescale", [False, True])
def test_codes_are_means_of_normalised_members_over_all_frames(rescale):
    x = features(3)
    [got] = compress(build("vq_mean", rescale=rescale), x, [3])
    run = x.flatten(0, 1)
    torch.testing.assert_close(got, slow_codes(run, clusters(run, 5), 5, rescale))
    norms = got.norm(dim=1)
    assert (norms > 1).all() if rescale else (norms < 1).all()


@pytest.mark.parametrize("name", ["vq_mean", "vq_attn_code", "vq_attn_paper"])
def test_videos_of_different_lengths_in_one_batch(name):
    method, x = build(name), features(13)
    frames = [2, 1, 7, 3]
    got = compress(method, x, frames)
    for run, part in zip(got, x.split(frames), strict=True):
        [want] = compress(method, part, [len(part)])
        torch.testing.assert_close(run, want)
        assert len(run) == (max(len(part), 5) if name == "vq_attn_code" else 5)
        assert method.video_tokens_per_layer(len(part), N, 2) == [float(len(run))] * 2


def test_gradients_go_through_the_means_of_every_token():
    x = features(1).requires_grad_()
    [out] = build("vq_mean").compress(VisionIn({0: x}, 0, (SIDE, SIDE), [1]), torch.nn.Identity())
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * weight).sum().backward()
    label = clusters(x[0].detach(), 5)
    again = x.detach()[0].requires_grad_()
    (slow_codes(again, label, 5) * weight).sum().backward()
    torch.testing.assert_close(x.grad[0], again.grad)
    assert (x.grad[0].abs().sum(1) > 0).all()


def test_the_draw_is_the_methods_own():
    """Same codes whatever the process's generator says, others with another seed."""
    x = features(2)
    torch.manual_seed(1)
    first = compress(build("vq_mean"), x, [1, 1])
    torch.manual_seed(2)
    again = compress(build("vq_mean"), x, [1, 1])
    other = compress(build("vq_mean", seed=1), x, [1, 1])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def attention(module, q, k, v, heads):
    """Multi-head attention from its weights, one query and one head at a time."""
    w, b = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
    q, k, v = (x @ weight.T + bias for x, weight, bias in zip((q, k, v), w, b, strict=True))
    size, out = q.shape[1] // heads, torch.zeros_like(q)
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        for i in range(len(q)):
            score = torch.stack([q[i, part] @ key for key in k[:, part]]) / math.sqrt(size)
            out[i, part] = score.softmax(0) @ v[:, part]
    return out @ module.out_proj.weight.T + module.out_proj.bias


@pytest.mark.parametrize("frames", [1, 3, 7])
def test_attention_of_the_code(frames):
    method, x = build("vq_attn_code"), features(frames)
    [got] = compress(method, x, [frames])
    run = x.flatten(0, 1)
    label = clusters(run, 5)
    codes, layer, length = slow_codes(run, label, 5), method.decoder, max(frames, 5)
    rows = label.view(frames, N).float() @ method.to_query.weight.T + method.to_query.bias
    query = torch.stack([rows[i % frames] for i in range(length)])
    memory = torch.stack([codes[i % 5] for i in range(length)])
    with torch.no_grad():
        query = layer.norm1(query + attention(layer.self_attn, query, query, query, 2))
        query = layer.norm2(query + attention(layer.multihead_attn, query, memory, memory, 2))
        want = layer.norm3(query + layer.linear2(layer.linear1(query).relu()))
    torch.testing.assert_close(got, want, atol=2e-5, rtol=2e-4)
    assert len({tuple(row) for row in got.mul(1e4).round().tolist()}) == frames  # T different tokens, repeated


def test_attention_of_the_paper():
    method, x = build("vq_attn_paper"), features(2)
    [got] = compress(method, x, [2])
    run = x.flatten(0, 1)
    label = clusters(run, 5)
    codes, place = slow_codes(run, label, 5), method.place
    held = torch.zeros(5, N)
    for frame in label.view(2, N).tolist():
        for p, k in enumerate(frame):
            held[k, p] += 1 / 2
    with torch.no_grad():
        value = functional.gelu(held @ place[0].weight.T + place[0].bias) @ place[2].weight.T + place[2].bias
        want = attention(method.attention, codes, codes, value, 2)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=2e-4)


def planted(k, per=20, seed=0):
    """`k` tight groups of directions that are far from each other."""
    axes = torch.eye(32)[:k].repeat(per, 1)
    noise = torch.randn(axes.shape, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(axes + 0.001 * noise, dim=1)


@pytest.mark.parametrize("k", [13, 16, 20, 31])
def test_the_elbow_is_where_the_groups_are(k):
    """The official index leaves out where the range begins: it finds another number."""
    x = planted(k)[None]
    right, official = (Search(kind, 5, 12, 32, 20, 0) for kind in ("elbow", "elbow_official"))
    assert find_clusters(x, right).count.tolist() == [k]
    assert find_clusters(x, official).count.tolist() == [max(12, k - 13 + 4)]


def test_the_official_range():
    search = Search("elbow_official", 5, 12, 32, 20, 0)
    reach = search.at(torch.arange(len(search.tried) - 2)).tolist()
    assert (min(reach), max(reach)) == (12, 22)
    search = Search("elbow", 5, 12, 32, 20, 0)
    reach = search.at(torch.arange(len(search.tried) - 2)).tolist()
    assert (min(reach), max(reach)) == (13, 31)
    assert search.middle == 22


@pytest.mark.parametrize("name", ["vq_mean", "vq_attn_code", "vq_attn_paper"])
def test_every_run_has_the_codes_of_its_own_elbow(name):
    method = build(name, search="elbow", fewest=3, most=9)
    x = features(6)
    got = compress(method, x, [1, 2, 3])
    assert method.n_tokens(N) is None
    assert method.tokens_per_layer(N, 2) == [6.0, 6.0]
    for run, part in zip(got, x.split([1, 2, 3]), strict=True):
        flat = part.flatten(0, 1)
        unit = functional.normalize(flat, dim=1)
        labels = [clusters(flat, k) for k in range(3, 10)]
        codes = [slow_codes(flat, label, k) for k, label in enumerate(labels, 3)]
        error = [float((unit - code[label]).square().sum()) for code, label in zip(codes, labels, strict=True)]
        bend = [error[i] - 2 * error[i + 1] + error[i + 2] for i in range(len(error) - 2)]
        k = 3 + 1 + bend.index(max(bend))
        assert len(run) == max(k, len(part) if name == "vq_attn_code" else 0)
        if name == "vq_mean":
            torch.testing.assert_close(run, codes[k - 3])


def test_initialisation_of_the_code():
    ours, theirs = (build("vq_attn_code", official_init=flag) for flag in (False, True))
    for name, parameter in theirs.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all()
        elif parameter.ndim == 1:
            assert (parameter.abs() <= 0.01).all() and parameter.abs().sum() > 0
            assert (dict(ours.named_parameters())[name] == 1).all()


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("vq_mean", {"codes": N + 1}, f"codes: found {N + 1}, expected at most the image's {N} tokens"),
        ("vq_mean", {"search": "elbow", "most": N + 1}, f"most: found {N + 1}, expected at most"),
        ("vq_mean", {"search": "elbow", "fewest": 12, "most": 13}, "expected at least fewest"),
        ("vq_attn_code", {"heads": 3}, "heads: found 3, expected a divisor of the width 8"),
    ],
)
def test_settings_that_cannot_work_are_refused(name, params, message):
    with pytest.raises(ValueError, match=message):
        MethodSpec(name=name, params=params).build(GEOMETRY)

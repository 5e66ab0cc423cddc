"""The alternatives at LLaVolta's compression ratio: what each keeps, and that declared counts are true."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visiontokens.compress.base import Geometry, MethodSpec
from visiontokens.compress.kmeans import assign
from visiontokens.compress.sequence import Seq

GEOMETRY = Geometry(vision_width=8, vision_layers=8, grid=(4, 4), llm_width=8, llm_layers=8)


def sequence(rows=2, before=3, after=4, h=None):
    """`rows` prompts of text, one 4x4 image, text."""
    n, size = GEOMETRY.n_vision, before + GEOMETRY.n_vision + after
    pos = torch.arange(size).expand(rows, -1).clone()
    vis = (pos >= before) & (pos < before + n)
    h = torch.randn(rows, size, 8, generator=torch.Generator().manual_seed(0)) if h is None else h
    row = torch.arange(rows)[:, None]
    return Seq(h=h, pos=pos, src=pos.clone(), image=torch.where(vis, row, -1), rank=torch.where(vis, pos - before, 0))


def shorten(name, params, seq, train=False):
    method = MethodSpec(name=name, params=params).build(GEOMETRY).train(train)
    for index in range(GEOMETRY.llm_layers):
        seq = method.before_layer(index, seq, None)
    return method, seq


@pytest.mark.parametrize("name", ["random", "kmeans", "progressive"])
def test_counts_are_as_declared(name):
    params = {} if name == "progressive" else {"layer": "8/32", "stride": 4}
    method = MethodSpec(name=name, params=params).build(GEOMETRY).eval()
    seq, counts = sequence(), []
    for index in range(8):
        seq = method.before_layer(index, seq, None)
        counts.append(float(seq.vis.sum(1)[0]))
        assert (seq.vis.sum(1) == seq.vis.sum(1)[0]).all()
    assert counts == method.tokens_per_layer(16, 8)
    assert counts[0] == 16 and counts[-1] < 16


@pytest.mark.parametrize("name", ["random", "kmeans", "progressive"])
def test_text_is_untouched(name):
    start = sequence()
    _, seq = shorten(name, {} if name == "progressive" else {"layer": "8/32", "stride": 4}, start)
    for b in range(2):
        assert torch.equal(seq.h[b][~seq.vis[b]], start.h[b][~start.vis[b]])
        assert torch.equal(seq.pos[b][~seq.vis[b]], start.pos[b][~start.vis[b]])


def test_random_is_one_draw_at_test_time_and_fresh_in_training():
    params = {"layer": "8/32", "stride": 4}
    _, a = shorten("random", params, sequence())
    _, b = shorten("random", params, sequence())
    assert torch.equal(a.src, b.src)
    assert torch.equal(a.src[0], a.src[1])
    torch.manual_seed(0)
    draws = {tuple(shorten("random", params, sequence(), train=True)[1].src[0].tolist()) for _ in range(8)}
    assert len(draws) > 1


def test_kmeans_finds_separate_clusters():
    seq = sequence(rows=1)
    corners = torch.eye(4, 8) * 10
    label = torch.tensor([0, 1, 2, 3] * 4)
    seq.h[0, 3:19] = corners[label]
    _, out = shorten("kmeans", {"layer": "8/32", "stride": 4}, seq)
    assert {tuple(row) for row in out.h[0][out.vis[0]].tolist()} == {tuple(row) for row in corners.tolist()}
    assert out.pos[0][out.vis[0]].tolist() == [9, 10, 11, 12]  # floor of the mean of 3+l, 7+l, 11+l, 15+l


@given(st.integers(1, 12), st.integers(0, 1000))
def test_kmeans_uses_every_cluster_of_distinct_rows(k, seed):
    x = torch.randn(24, 5, generator=torch.Generator().manual_seed(seed))
    label = assign(x[None], k, 4)
    assert label.shape == (1, 24)
    assert set(label[0].tolist()) == set(range(k))
    assert torch.equal(label, assign(x[None], k, 4))


def test_progressive_equals_one_pooling_of_the_same_stride():
    start = sequence()
    _, seq = shorten("progressive", {}, start)
    expected = start.h[:, 3:19].unflatten(1, (2, 8)).mean(2)
    assert torch.allclose(seq.h[seq.vis].unflatten(0, (2, 2)), expected, atol=1e-6)
    assert seq.pos[0][seq.vis[0]].tolist() == [6, 14]


def test_progressive_refuses_falling_layers():
    with pytest.raises(ValueError, match="layers must be above 0 and rise"):
        MethodSpec(name="progressive", params={"layers": ["12/32", "4/32"]})


def test_qformer_queries_read_the_image():
    method = MethodSpec(name="qformer", params={"queries": 5, "depth": 1, "heads": 2}).build(GEOMETRY)
    method.reset_parameters()
    from visiontokens.compress.base import VisionIn

    features = torch.randn(2, 16, 8)
    vision = VisionIn({7: features}, 7, (4, 4), [1, 1])
    out = method.tokens(vision, torch.nn.Identity())
    assert out.shape == (2, 5, 8)
    other = method.tokens(VisionIn({7: features.flip(0)}, 7, (4, 4), [1, 1]), torch.nn.Identity())
    assert torch.allclose(out.flip(0), other, atol=1e-6)
    assert not torch.allclose(out[0], out[1])
    assert method.n_tokens(16) == 5

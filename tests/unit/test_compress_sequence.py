"""Shortening a sequence keeps its books: positions, places, padding, segments, masks."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visiontokens.compress import Seq


@st.composite
def sequences(draw):
    """Rows of text and images of several lengths, padded left or right, positions with an offset."""
    rows, size = draw(st.integers(1, 3)), draw(st.integers(2, 12))
    image, ok = torch.full((rows, size), -1), torch.zeros(rows, size, dtype=torch.bool)
    rank = torch.zeros(rows, size, dtype=torch.long)
    for b in range(rows):
        length = draw(st.integers(1, size))
        start = draw(st.sampled_from([0, size - length]))
        ok[b, start : start + length] = True
        at = draw(st.integers(0, length))
        count = draw(st.integers(0, length - at))
        image[b, start + at : start + at + count] = b
        rank[b, start + at : start + at + count] = torch.arange(count)
    pos = (ok.long().cumsum(1) - 1).clamp_min(0) + draw(st.integers(0, 2000))
    h = torch.randn(rows, size, 3, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    seg = torch.where(ok, torch.where(image >= 0, 0, 1), -1)
    src = torch.arange(size).expand(rows, -1)
    return Seq(h, pos, src, image, rank, ok, seg)


@settings(max_examples=80)
@given(sequences(), st.integers(1, 4))
def test_merging_averages_each_group_exactly(seq, stride):
    merged = seq.merge((seq.image < 0) | (seq.rank % stride == 0))
    for b in range(len(seq.pos)):
        groups = []
        for i in torch.nonzero(seq.ok[b])[:, 0].tolist():
            new = seq.image[b, i] < 0 or seq.rank[b, i] % stride == 0
            groups = [*groups, [i]] if new else [*groups[:-1], [*groups[-1], i]]
        real = merged.valid[b]
        assert int(real.sum()) == len(groups)
        for j, group in zip(torch.nonzero(real)[:, 0].tolist(), groups, strict=True):
            torch.testing.assert_close(merged.h[b, j], seq.h[b, group].mean(0))
            assert merged.pos[b, j] == sum(seq.pos[b, group].tolist()) // len(group)
            assert merged.src[b, j] == group[-1]
            assert merged.image[b, j] == seq.image[b, group[-1]]
            assert merged.seg[b, j] == seq.seg[b, group[-1]]
        assert (merged.image[b][~real] == -1).all()


@settings(max_examples=80)
@given(sequences(), st.integers(0, 5))
def test_keeping_preserves_order_and_drops_padding(seq, seed):
    flags = torch.rand(seq.pos.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    flags[:, 0] = True
    kept = seq.keep(flags)
    for b in range(len(seq.pos)):
        want = torch.nonzero(flags[b] & seq.ok[b])[:, 0]
        real = kept.valid[b]
        assert torch.equal(kept.src[b][real], want)
        assert torch.equal(kept.h[b][real], seq.h[b][want])
        assert torch.equal(kept.pos[b][real], seq.pos[b][want])


def test_last_real_token_and_mask_follow():
    place = torch.arange(4)[None]
    ok = torch.tensor([[False, True, True, False]])
    mask = torch.tril(torch.ones(4, 4)).bool()[None, None]
    seq = Seq(torch.zeros(1, 4, 1), place, place, place * 0 - 1, place * 0, ok, mask=mask)
    assert seq.last().tolist() == [2]
    kept = seq.keep(torch.tensor([[True, True, False, True]]))
    assert kept.src.tolist() == [[1]]
    assert kept.mask.tolist() == [[[[True]]]]

"""Kept or renumbered positions: what is closed up, what decoding goes on with, and that nobody else notices."""

import pytest
import torch
from tiny_llava import LAYERS, PATCHES, pad, pixels, prompt, spec, tiny_model

from visiontokens.compress import Seq
from visiontokens.compress.base import PositionParams, methods
from visiontokens.compress.sequence import positions
from visiontokens.models.llama import Prefill
from visiontokens.models.state import VisionCache

CLOSE = {"atol": 3e-5, "rtol": 2e-4}
RENUMBERED = [
    spec("vcc", layer="16/32", stride=4, positions="renumber"),
    spec("random", layer="8/32", stride=5, positions="renumber"),
    spec("kmeans", layer="8/32", stride=6, positions="renumber"),
    spec("progressive", layers=["8/32", "16/32"], positions="renumber"),
]


def test_methods_that_shorten_have_the_switch():
    having = {name for name, cls in methods().items() if issubclass(cls.Params, PositionParams)}
    assert having >= {"fastv", "gsearch", "kmeans", "progressive", "pyramiddrop", "random", "vcc"}


def packed():
    """One row of two samples with two isolated turns each, and one row of a single sample that is padded."""
    doc = torch.tensor([[0] * 9 + [1] * 7, [0] * 12 + [-1] * 4])
    seg = torch.tensor([[0] * 5 + [1] * 2 + [2] * 2 + [0] * 3 + [1] * 2 + [2] * 2, [0] * 6 + [1] * 6 + [-1] * 4])
    ok = doc >= 0
    image = torch.full_like(doc, -1)
    image[0, 1:5], image[0, 9:12], image[1, 2:6] = 0, 1, 2
    place = torch.arange(16).expand(2, -1)
    h = torch.arange(32.0).view(2, 16, 1)
    return Seq(h, positions(ok, seg, doc), place, image, place, ok, seg, doc=doc)


def test_gaps_are_closed_inside_samples_and_turns():
    seq = packed()
    keep = torch.ones_like(seq.ok)
    keep[0, [1, 3, 10]] = keep[1, [2, 5]] = False
    kept, closed = seq.keep(keep), seq.keep(keep, renumber=True)
    assert torch.equal(kept.src, closed.src) and torch.equal(kept.h, closed.h)
    assert torch.equal(kept.pos[0][kept.valid[0]], seq.pos[0][keep[0]])
    assert closed.pos[0][:13].tolist() == [0, 1, 2, 3, 4, 3, 4, 0, 1, 2, 3, 2, 3]
    assert closed.pos[1][:10].tolist() == [*range(10)]
    assert torch.equal(closed.pos[closed.valid], positions(closed.valid, closed.seg, closed.doc)[closed.valid])
    assert closed.shift.tolist() == [3, 2] and kept.shift is None
    again = closed.keep(torch.arange(13) != 1, renumber=True)
    assert again.shift.tolist() == [4, 3]


def test_merged_runs_are_renumbered_too_and_offsets_stay():
    seq = packed()
    seq.pos = seq.pos + 100
    start = (seq.image < 0) | (seq.rank % 2 == 0)
    plain, closed = seq.merge(start), seq.merge(start, renumber=True)
    assert torch.equal(plain.h, closed.h)
    want = positions(closed.valid, closed.seg, closed.doc) + 100
    assert torch.equal(closed.pos[closed.valid], want[closed.valid])


def run(model, seq, cache=None):
    work = Prefill(seq, model.compressor, cache)
    with torch.no_grad():
        return model.model.language_model(work=work).last_hidden_state, work


@pytest.mark.parametrize("left", [False, True])
def test_dropping_before_the_first_layer_is_the_short_prompt(left):
    """States, cache and decoding equal those of a prompt that never held the dropped tokens."""
    model = tiny_model(spec("random", layer="0/32", stride=4, positions="renumber"))
    ids, mask = pad([prompt(9, at=3, seed=1), prompt(6, at=2, seed=2)], left)
    seq, _ = model._splice(ids, mask, model.encode_images(pixels(2)))
    short = model.compressor.before_layer(0, seq, model.model.language_model)
    short.shift = None
    assert torch.equal(short.pos[short.valid], positions(short.valid)[short.valid])
    a, long = run(model, seq, VisionCache())
    model.compressor = spec("none").build(model.geometry)
    b, direct = run(model, short, VisionCache())
    assert torch.equal(a[long.seq.valid], b[direct.seq.valid])
    removed = PATCHES - PATCHES // 4
    assert (long.cache.next_pos - direct.cache.next_pos).tolist() == [removed] * 2
    new = torch.tensor([[5, 6], [7, 8]])
    with torch.no_grad():
        got, want = (model(input_ids=new, past_key_values=work.cache).logits for work in (long, direct))
    torch.testing.assert_close(got, want, **CLOSE)
    assert [layer.keys.shape for layer in long.cache.layers] == [layer.keys.shape for layer in direct.cache.layers]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("method", RENUMBERED, ids=lambda m: m.name)
def test_cached_decoding_is_recomputation(method, left):
    """Also from a prefix that ends with its image, branched, and with rows of different length."""
    model, rows = tiny_model(method), [prompt(4, at=3, seed=1), prompt(3, at=2, seed=2)]
    texts = [prompt(5, None, 5), prompt(3, None, 6), prompt(4, None, 7)]
    state = model.prefill(*pad(rows, left), pixel_values=pixels(2)).select(torch.tensor([1, 0, 1]))
    assert any(shift is not None for shift in state.cache.shifts)
    _, state = model.extend(state, *pad(texts, left))
    _, state = model.extend(state, torch.full((3, 1), 7))
    for i, (row, text) in enumerate(zip([1, 0, 1], texts, strict=True)):
        ids = torch.cat([rows[row], text, torch.tensor([7])])[None]
        with torch.no_grad():
            want = model(input_ids=ids, pixel_values=pixels(2)[[row]]).logits[0, -1]
        torch.testing.assert_close(state.logits[i], want, **CLOSE)
    ids, mask = pad([torch.cat([rows[row], text]) for row, text in zip([1, 0, 1], texts, strict=True)], left=True)
    images = pixels(2)[[1, 0, 1]]
    beams = model.generate(ids, attention_mask=mask, pixel_values=images, max_new_tokens=3, num_beams=2)
    one = model.generate(ids[:1], attention_mask=mask[:1], pixel_values=images[:1], max_new_tokens=3, num_beams=2)
    assert torch.equal(beams[0, -3:], one[0, -3:])


def test_packed_turns_are_single_turns_when_renumbered():
    model = tiny_model(RENUMBERED[0])
    prefix, turns = prompt(5, at=3, seed=3), [prompt(n, at=None, seed=10 + n) for n in (4, 6)]
    ids = torch.cat([prefix, *turns])
    segments = torch.cat([torch.zeros(5, dtype=torch.long), torch.ones(4, dtype=torch.long), torch.full((6,), 2)])
    with torch.no_grad():
        out = model(input_ids=ids[None], segment_ids=segments[None], pixel_values=pixels(1)).logits[0]
        single = [model(input_ids=torch.cat([prefix, t])[None], pixel_values=pixels(1)).logits[0] for t in turns]
    torch.testing.assert_close(out[-10:-6], single[0][-4:], **CLOSE)
    torch.testing.assert_close(out[-6:], single[1][-6:], **CLOSE)


def test_renumbering_changes_what_comes_out_and_keeping_does_not():
    ids, kept = prompt(7)[None], tiny_model(spec("vcc", layer="8/32", stride=4))
    default, closed = tiny_model(spec("vcc", layer="8/32", stride=4, positions="keep")), tiny_model(RENUMBERED[0])
    with torch.no_grad():
        outs = [model(input_ids=ids, pixel_values=pixels(1)).logits for model in (kept, default, closed)]
    assert torch.equal(outs[0], outs[1])
    assert not torch.allclose(outs[0], outs[2], atol=1e-3)
    assert kept.prefill(ids, pixel_values=pixels(1)).cache.shifts == [None] * LAYERS

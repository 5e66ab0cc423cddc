"""Isolated turns packed behind one image equal the same turns one by one; states branch without side effects."""

import pytest
import torch
from tiny_llava import PATCHES, pad, pixels, prompt, spec, tiny_model

from visiontokens.models.masks import FLASH_2, PrefixMask, build_mask

METHODS = [spec("none"), spec("avgpool"), spec("stf_mbtf"), spec("vcc", layer="2/4", stride=4), spec("progressive")]
PREFIX = prompt(5, at=3, seed=3)
TURNS = [prompt(n, at=None, seed=10 + n) for n in (4, 6, 3)]


def _packed(turns, prefix=PREFIX):
    segments = [torch.zeros(len(prefix), dtype=torch.long)]
    segments += [torch.full((len(turn),), t + 1) for t, turn in enumerate(turns)]
    return torch.cat([prefix, *turns]), torch.cat(segments)


def _pad_with(rows, value):
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


@pytest.fixture(scope="module", params=METHODS, ids=lambda m: m.name)
def model(request):
    return tiny_model(request.param)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_turns_equal_single_turns(model, attention):
    model.set_attn_implementation("visiontokens_sdpa" if attention == "sdpa" else "eager")
    other = [prompt(7, at=None, seed=30)]
    rows = [_packed(TURNS), _packed(other), (prompt(6, at=None, seed=31), torch.tensor([0, 0, 1, 1, 2, 2]))]
    ids, segments = _pad_with([r[0] for r in rows], 0), _pad_with([r[1] for r in rows], -1)
    mask = (segments >= 0).long()
    labels = torch.where(segments > 0, ids, -100)
    out = model(
        input_ids=ids, attention_mask=mask, segment_ids=segments, pixel_values=pixels(2), labels=labels, loss_only=True
    )
    total, count = 0.0, 0
    for row, turns, image in ((0, TURNS, 0), (1, other, 1), (2, None, None)):
        prefix = PREFIX if image is not None else rows[2][0][:2]
        for turn in turns or [rows[2][0][2:4], rows[2][0][4:]]:
            one = torch.cat([prefix, turn])[None]
            kwargs = {} if image is None else {"pixel_values": pixels(2)[[image]]}
            target = one.clone()
            target[:, : len(prefix)] = -100
            total += model(input_ids=one, labels=target, **kwargs).loss * len(turn)
            count += len(turn)
        assert row >= 0
    torch.testing.assert_close(out.loss, total / count, atol=2e-5, rtol=1e-4)
    model.set_attn_implementation("visiontokens_sdpa")


def test_one_mask_serves_all_layers_of_a_layout(model, monkeypatch):
    calls = []
    monkeypatch.setattr("visiontokens.models.llama.build_mask", lambda *a: calls.append(1) or build_mask(*a))
    ids, segments = _packed(TURNS)
    model(input_ids=ids[None], segment_ids=segments[None], pixel_values=pixels(1))
    lengths = model.compressor.tokens_per_layer(PATCHES, model.geometry.llm_layers)
    assert len(calls) == len(set(lengths))


def test_shared_prefix_needs_no_mask(model):
    seen = []
    layer = model.model.language_model.layers[-1]
    handle = layer.register_forward_pre_hook(lambda _, a, k: seen.append(k["attention_mask"]), with_kwargs=True)
    ids, segments = _packed(TURNS)
    model(input_ids=ids[None], segment_ids=segments[None], pixel_values=pixels(1))
    rows, mask = pad([ids, ids[:-2]])
    model(input_ids=rows, attention_mask=mask, pixel_values=pixels(2))
    handle.remove()
    tokens = model.compressor.tokens_per_layer(PATCHES, model.geometry.llm_layers)[-1]
    assert isinstance(seen[0], PrefixMask)
    assert seen[0].prefix == tokens + len(PREFIX) - 1
    assert seen[1] is None  # padding on the right costs nothing


def test_a_shared_prefix_may_end_with_its_image(model):
    """The text goes on at the position behind the uncompressed image, wherever its last tokens went."""
    prefix, turn = PREFIX[:4], TURNS[0]
    logits, _ = model.extend(model.prefill(prefix[None], pixel_values=pixels(1)), turn[None])
    with torch.no_grad():
        want = model(input_ids=torch.cat([prefix, turn])[None], pixel_values=pixels(1)).logits[:, -len(turn) :]
    torch.testing.assert_close(logits, want, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("left", [False, True])
def test_states_branch_and_grow(model, left):
    """One prefill per image, three questions from it, then token by token, all as full recomputation gives."""
    short = PREFIX[1:]
    ids, mask = pad([PREFIX, short], left)
    state = model.prefill(ids, mask, pixel_values=pixels(2))
    before = [layer.keys.clone() for layer in state.cache.layers]
    branched = state.expand(torch.tensor([3, 1]))
    questions = [*TURNS, TURNS[1]]
    logits, grown = model.extend(branched, *pad(questions, left))
    only, same = model.extend(branched, *pad(questions, left), last_only=True)
    torch.testing.assert_close(only[:, 0], grown.logits)
    assert torch.equal(same.logits, only[:, 0]) and same.cache.lengths() == grown.cache.lengths()
    step = torch.full((4, 1), 7)
    _, final = model.extend(grown, step)
    final = final.select(torch.tensor([2, 0, 1, 3]))
    order = [2, 0, 1, 3]
    for place, row in enumerate(order):
        prefix, image = (PREFIX, 0) if row < 3 else (short, 1)
        whole = torch.cat([prefix, questions[row], step[row]])[None]
        with torch.no_grad():
            want = model(input_ids=whole, pixel_values=pixels(2)[[image]]).logits[0]
        size = len(questions[row])
        got = logits[row, -size:] if left else logits[row, :size]
        torch.testing.assert_close(got, want[-size - 1 : -1], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(grown.logits[row], want[-2], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(final.logits[place], want[-1], atol=2e-5, rtol=1e-4)
        assert final.next_pos[place] == len(want)
    assert all(torch.equal(a, layer.keys) for a, layer in zip(before, state.cache.layers, strict=True))
    assert len(state) == 2


def test_flash_attention_refuses_what_it_cannot_express(model):
    from visiontokens.compress import Seq

    place = torch.arange(4)[None]
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    seq = Seq(torch.zeros(1, 4, 2), place, place, place - 9, place, mask=mask)
    with pytest.raises(ValueError, match="a method that sets one declares dense_mask"):
        build_mask(seq, FLASH_2)

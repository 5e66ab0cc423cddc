"""Methods that select tokens inside the language model: the shared top-k, PyramidDrop, and G-Search's application."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_llava import IMAGE, LAYERS, PATCHES, pad, pixels, prompt, spec, tiny_model

from visiontokens.compress import MethodSpec
from visiontokens.compress.base import Geometry, MethodError
from visiontokens.compress.images import sizes, slots, top_per_image
from visiontokens.compress.pyramiddrop import attention_row
from visiontokens.compress.ratios import meet_budget, sigmoid_ratios, tokens_kept, whole_tokens
from visiontokens.models.llama import Prefill

CLOSE = {"atol": 1e-6, "rtol": 1e-5}


@st.composite
def batches(draw):
    """Rows that hold zero to three images of different sizes, with text between them."""
    number, rows = 0, []
    for _ in range(draw(st.integers(1, 3))):
        row = [-1]
        for _ in range(draw(st.integers(0, 3))):
            row += [number] * draw(st.integers(1, 6)) + [-1]
            number += 1
        rows.append(row)
    width = max(map(len, rows))
    image = torch.tensor([row + [-1] * (width - len(row)) for row in rows])
    score = torch.rand(image.shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    count = [draw(st.integers(0, int((image == i).sum()))) for i in range(number)]
    return score, image, torch.tensor(count, dtype=torch.long)


@given(batches())
def test_the_best_tokens_of_every_image_are_those_of_each_alone(batch):
    score, image, count = batch
    best, where, real = top_per_image(score, image, count), *slots(image)
    assert sizes(image).tolist() == [int((image == i).sum()) for i in range(len(count))]
    assert not best[image < 0].any()
    for i, k in enumerate(count.tolist()):
        values = score[image == i]
        assert set(values[best[image == i]].tolist()) == set(values.topk(k).values.tolist())
        assert where[i][real[i]].tolist() == (image == i).flatten().nonzero()[:, 0].tolist()


def mixed():
    """A row with two images, a shorter one with one, one with text only."""
    rows = [prompt(9, at=3, seed=1), prompt(6, at=2, seed=2), prompt(5, at=None)]
    rows[0][6] = IMAGE
    return pad(rows)


@pytest.mark.parametrize(
    "method",
    [spec("fastv", layer="16/32", stride=5), spec("pyramiddrop"), spec("gsearch"), spec("kmeans", stride=5)],
    ids=lambda m: m.name,
)
def test_rows_with_several_images_equal_rows_alone(method):
    """Images of a row count and compete on their own."""
    model, (ids, mask) = tiny_model(method), mixed()
    with torch.no_grad():
        together = model(input_ids=ids, attention_mask=mask, pixel_values=pixels(3)).logits
        for row, images in ((0, [0, 1]), (1, [2]), (2, [])):
            size = int(mask[row].sum())
            given = {"pixel_values": pixels(3)[images]} if images else {}
            alone = model(input_ids=ids[row : row + 1, :size], **given).logits[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=3e-5, rtol=2e-4)
    state = model.prefill(ids[:1], mask[:1], pixel_values=pixels(2))
    declared = model.compressor.tokens_per_layer(PATCHES, LAYERS)
    assert state.cache.lengths() == [2 * n + int(mask[0].sum()) - 2 for n in declared]


def test_all_ones_are_the_base_model_bit_for_bit():
    base, same = tiny_model(), tiny_model(spec("gsearch", ratios=[1.0] * LAYERS))
    ids, image = prompt(9)[None], pixels(1)
    a, b = (model.prefill(ids, pixel_values=image) for model in (base, same))
    assert torch.equal(a.logits, b.logits)
    ids, mask = mixed()
    with torch.no_grad():
        a, b = (m(input_ids=ids, attention_mask=mask, pixel_values=pixels(3)).logits for m in (base, same))
    torch.testing.assert_close(a, b, atol=3e-5, rtol=2e-4)


@pytest.mark.parametrize("positions", ["keep", "renumber"])
def test_one_step_is_fastv(positions):
    fastv = tiny_model(spec("fastv", layer="16/32", stride=4, positions=positions))
    step = tiny_model(spec("gsearch", ratios=[1.0, 1.0, 0.25, 0.25], positions=positions))
    ids, mask = mixed()
    with torch.no_grad():
        a, b = (m(input_ids=ids, attention_mask=mask, pixel_values=pixels(3)).logits for m in (fastv, step))
    assert torch.equal(a, b)
    assert fastv.compressor.tokens_per_layer(PATCHES, LAYERS) == step.compressor.tokens_per_layer(PATCHES, LAYERS)
    assert fastv.compressor.extra_flops(PATCHES, 9) == step.compressor.extra_flops(PATCHES, 9)


def test_a_token_that_gsearch_dropped_never_comes_back():
    model, kept = tiny_model(spec("gsearch", ratios=[1.0, 1.0, 0.5, 0.25])), []
    for layer in model.model.language_model.layers:
        layer.register_forward_pre_hook(lambda _, a, k: kept.append(k["position_ids"][0].tolist()), with_kwargs=True)
    model.prefill(prompt(9, at=3)[None], pixel_values=pixels(1))
    assert [len(row) - 8 for row in kept] == [144, 144, 72, 36]
    assert set(kept[3]) < set(kept[2]) < set(kept[1])
    assert all(row == sorted(row) for row in kept)


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([1.0, 0.5, 0.6], "do not rise"),
        ([0.5, 0.5], "start with 1"),
        ([], "start with 1"),
        ([1.0, 0.5, 0.5, 0.5], "first 2 of 4"),
    ],
)
def test_bad_ratios_are_refused(ratios, words):
    with pytest.raises(ValueError, match=words):
        tiny_model(spec("gsearch", ratios=ratios))


def test_ratios_that_were_not_searched_do_not_run():
    model = tiny_model(spec("gsearch", ratios="searched"))
    with pytest.raises(MethodError, match="the ratios are 'searched', but no search result was given"):
        model.prefill(prompt(9)[None], pixel_values=pixels(1))


@given(
    st.integers(4, 40), st.floats(0.5, 200), st.floats(0.01, 0.9), st.floats(0.05, 0.95), st.sampled_from([576, 144, 7])
)
def test_sigmoids_meet_their_budget(layers, k, low, mean, n):
    found = meet_budget(layers, k, low, sum, layers * mean)
    most, least = layers, 2 + (layers - 2) * low
    if found is None:
        assert not least < layers * mean < most - 1e-6
        return
    assert sum(found) == pytest.approx(layers * mean, rel=1e-9)
    assert found[:2] == [1.0, 1.0] and found == sorted(found, reverse=True)
    whole = whole_tokens(found, n)
    counts = [tokens_kept(r, n) for r in whole]
    assert [r * n for r in whole] == pytest.approx(counts) and counts == sorted(counts, reverse=True)
    if low * n >= 1:
        assert abs(sum(counts) - n * sum(found)) <= 0.5 + 1e-6


def test_the_sigmoid_falls_from_one_to_its_floor():
    ratios = sigmoid_ratios(32, 60.0, 0.1, 16.0)
    assert ratios[15] == pytest.approx(0.55) and ratios[2] == pytest.approx(1.0) and ratios[-1] == pytest.approx(0.1)
    assert sigmoid_ratios(32, 1e5, 0.1, 16.5)[15:17] == [1.0, 0.1]


def test_pyramiddrop_asks_what_the_next_layer_would_attend_to():
    """Its scores are the last row of that layer's attention on the same states, whole or with shared keys."""
    for kv_heads in (1, 2):
        model, (ids, mask) = tiny_model(heads=2, kv_heads=kv_heads), mixed()
        seq, _ = model._splice(ids, mask, model.encode_images(pixels(3)))
        lm = model.model.language_model
        got, probe = attention_row(lm, 0, seq), model.compressor.watch(lm, 0, seq)
        with torch.no_grad():
            lm(work=Prefill(seq, model.compressor))
        torch.testing.assert_close(got, probe.weights, **CLOSE)


def test_pyramiddrop_keeps_shares_of_the_original_number_and_renumbers():
    model, kept = tiny_model(spec("pyramiddrop")), []
    for layer in model.model.language_model.layers:
        layer.register_forward_pre_hook(lambda _, a, k: kept.append(k["position_ids"][0].tolist()), with_kwargs=True)
    state = model.prefill(prompt(9, at=3)[None], pixel_values=pixels(1))
    assert [len(row) - 8 for row in kept] == [144, 72, 36, 18]
    assert all(row == list(range(len(row))) for row in kept)
    assert [0 if s is None else int(s) for s in state.cache.shifts] == [0, 72, 108, 126]


def test_pyramiddrops_counts_are_truncated():
    method = MethodSpec(name="pyramiddrop", params={"ratios": [0.7, 0.33, 0.1]}).build(Geometry(8, 8, (4, 4), 8, 8))
    assert method.tokens_per_layer(575, 32) == [575.0] * 8 + [402.0] * 8 + [189.0] * 8 + [57.0] * 8

"""Where patches go: the trace of every method agrees with what the method itself says and computes."""

from __future__ import annotations

import pytest
import torch
from tiny_llava import LAYERS, PATCHES, SIDE, pixels, prompt, spec, tiny_model

from visiontokens.analyze.explorer import layer_record
from visiontokens.analyze.trace import GONE, SPREAD, LayerTrace, destinations, traced

WINDOW = torch.arange(PATCHES).view(SIDE, SIDE)


def trace_of(name, **params):
    """Return the logits of a prefill without and with a trace, the trace, and the model."""
    model = tiny_model(spec(name, **params))
    ids, image = prompt(9)[None], pixels(1)
    with torch.no_grad():
        plain = model.prefill(ids, pixel_values=image).logits
        with traced(model.compressor) as trace:
            watched = model.prefill(ids, pixel_values=image).logits
    return plain, watched, trace, model


def tokens_of(owner):
    return len(set(owner[owner >= 0].tolist()))


@pytest.mark.parametrize("name", ["none", "avgpool", "stf", "stf_mbtf", "vcc", "kmeans", "fastv", "progressive", "mod"])
def test_a_trace_changes_nothing_and_counts_what_the_method_declares(name):
    plain, watched, trace, model = trace_of(name)
    torch.testing.assert_close(plain, watched)
    assert [layer.tokens for layer in trace.layers] == model.compressor.tokens_per_layer(PATCHES, LAYERS)
    assert [tokens_of(layer.owner) for layer in trace.layers] == [layer.tokens for layer in trace.layers]
    assert all(0 < float(layer.attention.sum()) <= 1 + 1e-5 for layer in trace.layers)
    assert not {"compress", "run_layer", "begin"} & set(vars(model.compressor)), "the method is itself again"


def test_windows_are_the_squares_of_patches_that_become_one_token():
    *_, trace, _ = trace_of("avgpool", window=3)
    square = (WINDOW // SIDE // 3) * (SIDE // 3) + WINDOW % SIDE // 3
    assert trace.layers[0].owner.view(SIDE, SIDE).equal(square)


def test_runs_are_joined_before_their_layer_and_not_earlier():
    *_, trace, model = trace_of("vcc", layer="16/32", stride=4)
    cut = model.compressor.layer
    assert trace.layers[cut - 1].owner.equal(torch.arange(PATCHES))
    assert trace.layers[cut].owner.equal(torch.arange(PATCHES) // 4)


def test_dropped_patches_are_gone_and_kept_ones_are_in_order():
    *_, trace, _ = trace_of("fastv", stride=8)
    owner = trace.layers[-1].owner
    assert (owner == GONE).sum() == PATCHES - PATCHES // 8
    assert owner[owner >= 0].tolist() == list(range(PATCHES // 8))


def test_fastv_keeps_the_patches_that_the_traced_attention_prefers():
    *_, trace, model = trace_of("fastv", stride=8)
    before = trace.layers[model.compressor.cut - 1].attention
    kept = set((trace.layers[-1].owner >= 0).nonzero()[:, 0].tolist())
    assert kept == set(before.topk(PATCHES // 8).indices.tolist())


def test_learned_queries_have_no_place():
    *_, trace, _ = trace_of("qformer", queries=6)
    assert trace.entered == 6
    assert (trace.layers[0].owner == SPREAD).all()


def test_what_leaves_no_gradient_is_said_not_to_be_known():
    *_, trace, _ = trace_of("prumerge")
    assert trace.layers[0].owner is None
    assert layer_record(trace.layers[0], {})["map"] is None


def test_a_destination_is_found_where_bits_are_rounded():
    """Half precision leaves three digits; one of 600 rows is named all the same."""
    torch.manual_seed(0)
    inputs = torch.randn(1, 700, 8).requires_grad_()
    owner = torch.randint(0, 600, (700,))
    out = torch.zeros(600, 8, dtype=torch.bfloat16).index_add(0, owner, inputs[0].bfloat16())
    assert destinations(out, [inputs]).equal(owner)


def test_a_record_shares_maps_and_keeps_attention_to_a_part_in_255():
    owner, weights = torch.tensor([0, 0, 1, GONE]), torch.tensor([0.3, 0.1])
    maps: dict[tuple[int, ...], int] = {}
    first, second = (layer_record(LayerTrace(2, owner, weights), maps) for _ in range(2))
    assert maps == {(0, 0, 1, GONE): 0}
    assert first == second == {"tokens": 2, "map": 0, "attention": "/1U=", "peak": 0.3, "total": 0.4}

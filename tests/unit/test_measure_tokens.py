"""Token accounting: the paper's formula, its printed cases, and what must hold for every pool."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visiontokens.measure.tokens import (
    compression_ratio,
    kept_fraction,
    mean_tokens,
    pooled_tokens,
    stage_mean,
    total_tokens,
)

strides = st.sampled_from([1, 2, 4, 8, 16, 64])


@given(layers=st.integers(1, 40), data=st.data(), stride=strides)
def test_ratio_is_the_papers_formula(layers, data, stride):
    k = data.draw(st.integers(0, layers))
    per_layer = pooled_tokens(576, layers, k, stride)
    out = 576 // stride
    assert len(per_layer) == layers
    assert compression_ratio(per_layer, 576) == pytest.approx(layers * 576 / ((layers - k) * out + k * 576))
    assert kept_fraction(per_layer, 576) * compression_ratio(per_layer, 576) == pytest.approx(1)


@given(layers=st.integers(2, 40), data=st.data(), stride=st.sampled_from([2, 4, 8]))
def test_deeper_and_wider_keep_more(layers, data, stride):
    k = data.draw(st.integers(0, layers - 1))
    here = total_tokens(pooled_tokens(576, layers, k, stride))
    assert total_tokens(pooled_tokens(576, layers, k + 1, stride)) > here
    assert total_tokens(pooled_tokens(576, layers, k, 2 * stride)) < here


def test_mean_is_one_layers_share():
    assert mean_tokens([576, 576, 72, 72]) == 324


def test_stage_mean_weights_stages():
    equal = stage_mean([(2, 8), (0, 1)], [1, 1], 576, 32)
    assert equal == 10872
    assert stage_mean([(2, 8), (0, 1)], [1, 3], 576, 32) == pytest.approx(14652)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: pooled_tokens(576, 8, 9, 2), "layer: found 9"),
        (lambda: pooled_tokens(576, 8, 2, 0), "stride: found 0"),
        (lambda: mean_tokens([]), "found none"),
        (lambda: compression_ratio([0.0], 576), "at least one"),
        (lambda: stage_mean([(2, 8)], [1, 1], 576, 32), "expected 1"),
    ],
)
def test_errors_name_what_was_found(call, named):
    with pytest.raises(ValueError, match=named):
        call()

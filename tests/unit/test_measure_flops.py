"""Analytic FLOPs equal PyTorch's own counter exactly, where that counter sees attention."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from visiontokens.measure.flops import (
    VICUNA_7B,
    LlamaShape,
    decode_flops,
    kv_bytes,
    llavolta_tflops,
    mlp_flops,
    prefill_flops,
)
from visiontokens.measure.tokens import pooled_tokens

PROMPT = 29


@pytest.fixture(params=[4, 2], ids=["multi-head", "grouped-query"])
def llama(request):
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=request.param,
        intermediate_size=48,
        vocab_size=50,
    )
    return LlamaForCausalLM(config).eval()


def counted(call) -> int:
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize(("head", "keep"), [("all", 0), ("last", 1)])
def test_prefill_equals_the_counter(llama, head, keep):
    ids = torch.arange(PROMPT)[None]
    shape = LlamaShape.of(llama.config)
    expected = counted(lambda: llama(ids, logits_to_keep=keep))
    assert prefill_flops(shape, [20] * 3, PROMPT - 20, head=head) == expected


def test_decode_equals_the_counter(llama):
    with torch.no_grad():
        cache = llama(torch.arange(PROMPT)[None], use_cache=True).past_key_values
    expected = counted(lambda: llama(torch.tensor([[1]]), past_key_values=cache))
    assert decode_flops(LlamaShape.of(llama.config), [20] * 3, PROMPT - 20) == expected


def test_cache_bytes_are_the_caches(llama):
    with torch.no_grad():
        cache = llama(torch.arange(PROMPT)[None], use_cache=True).past_key_values
    stored = [layer.keys.nbytes + layer.values.nbytes for layer in cache.layers]
    assert kv_bytes(LlamaShape.of(llama.config), [20] * 3, PROMPT - 20, bytes_per_value=4) == stored


def test_layers_are_counted_with_their_own_tokens(llama):
    shape = LlamaShape.of(llama.config)
    full, half = [20, 20, 20], [20, 10, 10]
    saved = prefill_flops(shape, full, 9) - prefill_flops(shape, half, 9)
    linear = 2 * 10 * shape.layer_flops
    scores = 2 * 4 * shape.hidden * (29 * 29 - 19 * 19)
    assert saved == linear + scores
    assert prefill_flops(shape, full, 9, attention=False) - prefill_flops(shape, half, 9, attention=False) == linear


def test_slope_of_the_published_law_is_a_7b_layer():
    pooled = pooled_tokens(576, 32, 2, 8)
    ours = prefill_flops(VICUNA_7B, pooled, 0, attention=False, head="none") / 1e12
    assert ours == pytest.approx(llavolta_tflops(sum(pooled)) - llavolta_tflops(0), rel=1e-5)


def test_projectors_of_the_papers():
    assert mlp_flops([1024, 4096, 4096], 576) == pytest.approx(24.2e9, rel=2e-3)
    fusion = mlp_flops([8192, 4096, 1024], 576) + mlp_flops([4096, 16384, 4096], 144)
    assert fusion == pytest.approx(82.1e9, rel=2e-3)


def test_wrong_number_of_layers_is_refused():
    with pytest.raises(ValueError, match="found 2 numbers, expected 32"):
        prefill_flops(VICUNA_7B, [1, 2], 3)

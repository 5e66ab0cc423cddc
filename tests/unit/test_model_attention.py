"""Attention in blocks on CPUs equals torch's kernel, values and gradients."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from visiontokens.models import attention
from visiontokens.models.attention import blocked_attention, vision_sdpa
from visiontokens.models.masks import PrefixMask

BATCH, HEADS, WIDTH = 2, 3, 8


def draw(size, *, seed=0):
    torch.manual_seed(seed)
    return [torch.randn(BATCH, HEADS, size, WIDTH, requires_grad=True) for _ in range(3)]


def masks(size, prefix):
    """Return a `PrefixMask` of random visibility behind the prefix, and the same as one mask over everything."""
    seen = torch.ones(size, size, dtype=torch.bool).tril().expand(BATCH, 1, -1, -1).clone()
    seen[:, :, prefix:] &= (torch.rand(BATCH, 1, size - prefix, size) < 0.7) | torch.eye(size, dtype=torch.bool)[
        prefix:
    ]
    added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return PrefixMask(prefix, added[:, :, prefix:]), added


@pytest.mark.parametrize("prefix", [None, 5, attention.BLOCK, 2 * attention.BLOCK + 7])
def test_blocks_equal_the_kernel(prefix):
    size = 3 * attention.BLOCK - 5
    ours, theirs = draw(size), draw(size)
    mask, added = (None, None) if prefix is None else masks(size, prefix)
    found = blocked_attention(ours[0] * WIDTH**-0.5, *ours[1:], mask)
    wanted = scaled_dot_product_attention(*theirs, attn_mask=added, is_causal=added is None)
    torch.testing.assert_close(found, wanted)
    weights = torch.randn(found.shape)
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("size", [attention.LONG // 2, attention.LONG + 1])
def test_bfloat16_on_the_cpu_is_close_to_float32(size):
    layer = torch.nn.Module()
    inputs = [x.detach() for x in draw(size)]
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = vision_sdpa(layer, *inputs, None, scaling=WIDTH**-0.5)
    wanted = scaled_dot_product_attention(*inputs, is_causal=True).transpose(1, 2)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found.float(), wanted, atol=0.03, rtol=0.03)

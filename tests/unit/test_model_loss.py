"""The loss in chunks equals the loss over all logits at once, and never holds more than a chunk of them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from visiontokens.models import loss as module
from visiontokens.models.loss import next_token_loss

ROWS, WIDTH, VOCAB = 23, 8, 50


def case(weighted):
    torch.manual_seed(0)
    hidden = torch.randn(2, 20, WIDTH, requires_grad=True)
    head = nn.Linear(WIDTH, VOCAB, bias=False)
    batch, place = torch.randint(2, (ROWS,)), torch.randint(20, (ROWS,))
    weight = torch.rand(ROWS) if weighted else None
    return hidden, head, (batch, place, torch.randint(VOCAB, (ROWS,)), weight)


def whole(hidden, head, rows, items):
    """Plain cross-entropy over all positions."""
    batch, place, target, weight = rows
    each = functional.cross_entropy(head(hidden)[batch, place], target, reduction="none")
    weight = torch.ones(ROWS) if weight is None else weight
    return (each * weight).sum() / (weight.sum() if items is None else items)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("items", [None, 7])
@pytest.mark.parametrize("rows_at_a_time", [1, 5, ROWS, 100])
def test_chunks_equal_the_whole(monkeypatch, weighted, items, rows_at_a_time):
    monkeypatch.setattr(module, "CHUNK", rows_at_a_time * VOCAB)
    results = []
    for function in (next_token_loss, lambda h, r, head, n: whole(h, head, r, n)):
        hidden, head, rows = case(weighted)
        loss = function(hidden, rows, head, items)
        (3 * loss).backward()
        results.append((loss.detach(), hidden.grad, head.weight.grad))
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_logits_exist_a_chunk_at_a_time(monkeypatch, training):
    """The largest tensor with a vocabulary axis, forward and kept for backward, has as many rows as a chunk."""
    monkeypatch.setattr(module, "CHUNK", 4 * VOCAB)
    hidden, head, rows = case(weighted=True)
    sizes, saved = [], []
    head.register_forward_hook(lambda _, args, out: sizes.append(len(out)))
    pack = lambda x: saved.append(tuple(x.shape)) or x  # noqa: E731
    with torch.set_grad_enabled(training), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        next_token_loss(hidden, rows, head)
    assert max(sizes) == 4 and sum(sizes) == ROWS
    assert not [shape for shape in saved if len(shape) == 2 and shape[1] == VOCAB]


def test_bfloat16_autocast_and_a_frozen_output_layer(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 6 * VOCAB)
    hidden, head, rows = case(weighted=True)
    head.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        loss = next_token_loss(hidden, rows, head)
    loss.backward()
    assert loss.dtype == torch.float32 and head.weight.grad is None
    other, frozen, same = case(weighted=True)
    whole(other, frozen, same, None).backward()
    torch.testing.assert_close(hidden.grad, other.grad, atol=5e-3, rtol=5e-2)


def test_no_labels_is_a_zero_that_can_be_differentiated():
    hidden, head, _ = case(weighted=False)
    none = torch.zeros(0, dtype=torch.long)
    loss = next_token_loss(hidden, (none, none, none, None), head)
    loss.backward()
    assert float(loss.detach()) == 0.0

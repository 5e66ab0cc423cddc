"""Peak memory counts live tensors, and only those."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from visiontokens.measure.memory import parameter_bytes, parameter_count, peak_bytes, running_peak

CPU = torch.device("cpu")
MIB = 1 << 20


def test_two_live_tensors_peak_higher_than_two_in_turn():
    def together():
        first = torch.empty(MIB, dtype=torch.uint8)
        second = torch.empty(2 * MIB, dtype=torch.uint8)
        return first, second

    def in_turn():
        first = torch.empty(MIB, dtype=torch.uint8)
        del first
        return torch.empty(2 * MIB, dtype=torch.uint8)

    assert peak_bytes(together, CPU) == 3 * MIB
    assert peak_bytes(in_turn, CPU) == 2 * MIB


def test_what_lives_before_the_call_is_not_counted():
    weights = torch.zeros(4 * MIB, dtype=torch.uint8)
    assert peak_bytes(weights.clone, CPU) == 4 * MIB
    assert peak_bytes(lambda: weights.add_(1), CPU) < MIB


@given(st.lists(st.integers(min_value=0, max_value=1000), min_size=1))
def test_peak_of_nested_allocations_is_their_sum(sizes):
    assert running_peak([*sizes, *(-s for s in reversed(sizes))]) == sum(sizes)


def test_shared_parameters_count_once():
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    tied[1].weight = tied[0].weight
    assert parameter_count(tied) == 16
    assert parameter_bytes(tied) == 64

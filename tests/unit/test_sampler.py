"""Batch order: a permutation, near-even, single-modality, and the same again for the same seed."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from visiontokens.data.sampler import RunSampler, length_grouped, modality_grouped, split_to_even_chunks

# A starved processor must not fail a test.
calm = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
signed = st.lists(st.integers(-200, 200).filter(bool), min_size=1, max_size=60)


@calm
@given(signed, st.integers(1, 5), st.integers(1, 3), st.integers(0, 99))
def test_every_sample_once(lengths, batch, world, seed):
    generator = torch.Generator().manual_seed(seed)
    assert sorted(modality_grouped(lengths, batch, world, generator)) == list(range(len(lengths)))


@calm
@given(st.lists(st.integers(-9, 9).filter(bool), min_size=12, max_size=60), st.integers(2, 4), st.integers(0, 99))
def test_topped_up_batches_are_of_one_kind_and_miss_nothing(lengths, batch, seed):
    if min(sum(x > 0 for x in lengths), sum(x < 0 for x in lengths)) < batch:
        return
    order = modality_grouped(lengths, batch, 1, torch.Generator().manual_seed(seed), top_up=True)
    assert set(order) == set(range(len(lengths)))
    blocks = [order[i : i + batch] for i in range(0, len(order), batch)]
    assert all(len({lengths[i] > 0 for i in block}) == 1 for block in blocks)


def test_megabatches_are_sorted_by_length():
    lengths = [((i * 37) % 50) + 1 for i in range(24)]
    order = length_grouped(lengths, 8, 1, torch.Generator().manual_seed(0))
    for start in range(0, 24, 8):
        block = [lengths[i] for i in order[start : start + 8]]
        assert block == sorted(block, reverse=True)


@calm
@given(st.lists(st.integers(1, 100), min_size=8, max_size=8))
def test_chunks_are_even(lengths):
    lengths.sort(reverse=True)
    chunks = split_to_even_chunks(list(range(8)), lengths, 2)
    assert [len(chunk) for chunk in chunks] == [4, 4]
    assert sorted(chunks[0] + chunks[1]) == list(range(8))


def test_zero_length_is_refused():
    with pytest.raises(ValueError, match="sample 2: expected a length other than 0"):
        modality_grouped([3, -1, 0], 2, 1)


def test_run_order_depends_on_the_seed_alone():
    lengths = [5, -3, 8, 2, -9, 4, 7, 6, 1, -2]
    torch.manual_seed(1)
    first = list(RunSampler(lengths, 4, seed=3, epochs=2))
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    again = list(RunSampler(lengths, 4, seed=3, epochs=2))
    assert first == again
    assert first != list(RunSampler(lengths, 4, seed=4, epochs=2))
    assert first[:10] != first[10:]
    assert sorted(first[:10]) == sorted(first[10:]) == list(range(10))
    torch.random.set_rng_state(state)


def test_building_an_order_draws_nothing_from_the_global_generator():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    RunSampler([1, -2, 3, -4], 2, seed=0, epochs=3)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("epochs", "expected"), [(0.5, 5), (1.0, 10), (1.3, 13), (2.0, 20)])
def test_fractions_of_an_epoch(epochs, expected):
    assert len(RunSampler([1] * 10, 4, seed=0, epochs=epochs)) == expected

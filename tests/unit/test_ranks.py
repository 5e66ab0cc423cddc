"""Who runs which micro-batch: the same steps for any number of processes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visiontokens.data.conversation import IGNORE_INDEX, Tokens
from visiontokens.data.instruct import Sample
from visiontokens.data.ranks import RankBatches, WithFillers, accumulation

sizes = st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 4]), st.integers(1, 3))


@given(sizes, st.integers(1, 40), st.randoms(use_true_random=False))
def test_all_processes_together_run_the_steps_of_one(size, count, random):
    micro, processes, rounds = size
    batch = micro * processes * rounds
    lengths = [random.choice((1, -1)) * random.randint(1, 9) for _ in range(count)]
    order = random.sample(range(count), count)
    alone = list(RankBatches(order, lengths, batch, micro))
    assert [i for chunk in alone for i in chunk] == order
    ranks = [RankBatches(order, lengths, batch, micro, processes=processes, rank=r) for r in range(processes)]
    dealt = [list(rank) for rank in ranks]
    assert {len(rank) for rank in ranks} == {len(chunks) for chunks in dealt} == {len(dealt[0])}
    merged = [[i for i in chunk if i >= 0] for slot in zip(*dealt, strict=True) for chunk in slot]
    assert [chunk for chunk in merged if chunk] == alone


def test_every_process_gets_an_image_if_there_are_any():
    lengths = [5, -3, -4, -2, 9, -7]
    batches = [list(RankBatches(range(6), lengths, 4, 1, processes=2, rank=rank)) for rank in (0, 1)]
    assert batches == [[[0], [2, ~0], [4]], [[1, ~0], [3, ~0], [5, ~0]]]
    assert list(RankBatches(range(6), lengths, 4, 2)) == [[0, 1], [2, 3], [4, 5]]
    text = [list(RankBatches(range(3), [-1, -2, -3], 2, 1, processes=2, rank=rank)) for rank in (0, 1)]
    assert text == [[[0], [2]], [[1], [~0]]]


def test_a_filler_has_no_targets():
    sample = Sample(Tokens([1, 2], [IGNORE_INDEX, 2], [0.0, 1.0], [0, 0]), "a.png")
    data = WithFillers([sample])
    assert data[0] is sample
    assert data[~0] == Sample(Tokens([1, 2], [IGNORE_INDEX] * 2, [0.0, 0.0], [0, 0]), "a.png")


def test_the_global_batch_is_kept_or_refused():
    assert [accumulation(256, 16, n) for n in (1, 2, 8)] == [16, 8, 2]
    with pytest.raises(ValueError, match=r"16 x 3 processes = 48, found 128; .* divides among 1, 2, 4 or 8 processes"):
        accumulation(128, 16, 3)

"""K-Means: against scikit-learn and against the equations written out slowly; padding and order change nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from visiontokens.compress.clustering import FLOOR, evenly_spaced, lloyd, means, plus_plus


def tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(4))
def test_lloyd_is_scikit_learns(seed):
    x = tokens(1, 60, 5, seed=seed)
    first = evenly_spaced(x, 6)
    label, centre = lloyd(x, first, 60)
    want = KMeans(6, init=first[0].numpy(), n_init=1, max_iter=60, tol=0, algorithm="lloyd").fit(x[0].numpy())
    assert label[0].tolist() == want.labels_.tolist()
    np.testing.assert_allclose(centre[0].numpy(), want.cluster_centers_, atol=1e-5)


def slow_plus_plus(x, k, seed):
    """Draw j takes the first token at which the running sum of weights passes u_j times their total."""
    draws = torch.rand(k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
    chosen = []
    for u in draws:
        weight = [min((float((p - c) @ (p - c)) for c in chosen), default=1.0) + FLOOR * bool(chosen) for p in x]
        target, total = u * sum(weight), 0.0
        for p, w in zip(x, weight, strict=True):
            total += w
            if total > target:
                chosen.append(p)
                break
    return np.stack(chosen)


def slow_cosine(x, centre, iterations):
    """Assign by the cosine to each centre, average members, keep the centre of no members."""
    centre = centre.copy()
    for _ in range(iterations):
        label = [max(range(len(centre)), key=lambda k: p @ centre[k] / np.linalg.norm(centre[k])) for p in x]
        for k in range(len(centre)):
            members = [p for p, own in zip(x, label, strict=True) if own == k]
            centre[k] = np.mean(members, 0) if members else centre[k]
    return label, centre


@pytest.mark.parametrize("seed", range(3))
def test_seeding_and_cosine_steps_are_those_of_the_equations(seed):
    x = torch.nn.functional.normalize(tokens(1, 40, 6, seed=seed), dim=2)
    exact = x[0].double().numpy()
    first = plus_plus(x, 7, seed)
    want = slow_plus_plus(exact, 7, seed)
    np.testing.assert_allclose(first[0].numpy(), want, atol=1e-6)
    label, centre = lloyd(x, first, 9, metric="cosine")
    want_label, want_centre = slow_cosine(exact, want, 9)
    assert label[0].tolist() == want_label
    np.testing.assert_allclose(centre[0].numpy(), want_centre, atol=1e-5)


def test_fewer_centres_are_the_first_of_more():
    x = tokens(2, 30, 4)
    assert torch.equal(plus_plus(x, 5, 3), plus_plus(x, 9, 3)[:, :5])
    assert not torch.equal(plus_plus(x, 5, 3), plus_plus(x, 5, 4))


def test_centres_spread_over_separate_groups():
    """Squared distances steer the draws: far groups are all found, which uniform draws would rarely do."""
    groups = torch.eye(8) * 100
    x = (groups.repeat(5, 1) + 0.01 * tokens(40, 8))[None]
    for seed in range(20):
        nearest = torch.cdist(plus_plus(x, 8, seed)[0], groups).argmin(1)
        assert sorted(nearest.tolist()) == list(range(8))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 500), st.sampled_from(["cosine", "euclidean"]), st.sampled_from(["keep", "farthest"]))
def test_padding_changes_nothing(seed, metric, empty):
    sizes = (17, 24, 9)
    runs = [torch.nn.functional.normalize(tokens(n, 5, seed=seed + n), dim=1) for n in sizes]
    x = torch.nn.utils.rnn.pad_sequence(runs, batch_first=True, padding_value=9.0)
    ok = torch.arange(x.shape[1]) < torch.tensor(sizes)[:, None]
    label, centre = lloyd(x, plus_plus(x, 6, seed, ok), 5, ok=ok, metric=metric, empty=empty)
    for row, (n, run) in enumerate(zip(sizes, runs, strict=True)):
        one = lloyd(run[None], plus_plus(run[None], 6, seed), 5, metric=metric, empty=empty)
        assert torch.equal(label[row, :n], one[0][0])
        assert (label[row, n:] == 6).all()
        torch.testing.assert_close(centre[row], one[1][0])


def test_order_of_tokens_does_not_matter():
    x, order = tokens(1, 50, 4), torch.randperm(50, generator=torch.Generator().manual_seed(1))
    first = evenly_spaced(x, 5)
    label, centre = lloyd(x, first, 10)
    shuffled, same = lloyd(x[:, order], first, 10)
    assert torch.equal(shuffled, label[:, order])
    torch.testing.assert_close(same, centre)


def test_stopping_at_rest_changes_nothing():
    x = tokens(3, 40, 4)
    for stopped, whole in zip(
        lloyd(x, evenly_spaced(x, 4), 200, until_fixed=True), lloyd(x, evenly_spaced(x, 4), 200), strict=True
    ):
        assert torch.equal(stopped, whole)


def test_empty_clusters_keep_their_centre_or_take_the_farthest_token():
    x = torch.tensor([[[0.0], [1.0], [9.0], [10.0]]])
    first = torch.tensor([[[1.0], [50.0], [60.0]]])
    label, centre = lloyd(x, first, 1)
    assert label.tolist() == [[0, 0, 0, 0]]
    assert centre.tolist() == [[[5.0], [50.0], [60.0]]]
    label, centre = lloyd(x, first, 1, empty="farthest")
    assert label.tolist() == [[0, 0, 2, 1]]
    assert centre.tolist() == [[[0.5], [10.0], [9.0]]]


def test_means_are_differentiable_and_skip_what_has_no_cluster():
    x = tokens(2, 8, 3).double().requires_grad_()
    label = torch.tensor([[0, 0, 1, 1, 1, 2, 4, 4], [1, 1, 1, 0, 3, 3, 0, 4]])
    mean, size = means(x, label, 4)
    assert size.tolist() == [[2, 3, 1, 0], [2, 3, 0, 2]]
    torch.testing.assert_close(mean[0, 1], x[0, 2:5].mean(0))
    assert (mean[0, 3] == 0).all()
    assert torch.autograd.gradcheck(lambda value: means(value, label, 4)[0], x)
    mean.sum().backward()
    torch.testing.assert_close(x.grad[0, :, 0], torch.tensor([1 / 2, 1 / 2, *[1 / 3] * 3, 1, 0, 0]).double())


def test_autocast_and_gradients_do_not_reach_labels():
    x = tokens(1, 40, 8).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        label, centre = lloyd(x, plus_plus(x, 5, 0), 5)
    want = lloyd(x.detach(), plus_plus(x.detach(), 5, 0), 5)
    assert torch.equal(label, want[0]) and torch.equal(centre, want[1])
    assert not centre.requires_grad

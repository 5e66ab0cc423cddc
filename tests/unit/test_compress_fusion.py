"""Fusion of patches and of tower blocks: layout, equivalences, sizes of the published model."""

import pytest
import torch
from tiny_llava import tiny_config
from torch import nn
from torch.nn.functional import conv2d

from visiontokens.compress import Geometry, MethodError, MethodSpec, VisionIn
from visiontokens.compress.avgpool import pool_grid
from visiontokens.compress.mbtf import BLOCKS
from visiontokens.compress.stf import MIX, fuse_windows, mix_windows
from visiontokens.models.hooked import HookedLlavaModel

PAPER = Geometry(1024, 24, (24, 24), 4096, 32)
SMALL = Geometry(8, 8, (4, 4), 16, 8)


def _numbers(side):
    """Tokens whose two channels are their row and column."""
    return torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).view(1, -1, 2).float()


def _count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_and_flops_at_the_papers_size():
    with torch.device("meta"):
        built = {name: MethodSpec(name=name).build(PAPER) for name in ("none", "mbtf", "stf", "stf_mbtf")}
        for name, want in (("none", 20_979_712), ("mbtf", 20_979_712), ("stf", 134_238_208), ("stf_mbtf", 134_238_208)):
            width_in, hidden, out = built[name].projector_sizes()
            projector = nn.Sequential(nn.Linear(width_in, hidden), nn.Linear(hidden, out))
            assert _count(projector) == want
    assert _count(built["mbtf"]) == _count(built["stf_mbtf"]) == 37_753_856
    assert built["stf_mbtf"].n_tokens(576) == 144
    assert built["none"].extra_flops(576) == pytest.approx(24.2e9, rel=0.005)
    assert built["stf_mbtf"].extra_flops(576) == pytest.approx(82.1e9, rel=0.005)


def test_projector_is_rebuilt_only_when_its_widths_differ():
    assert HookedLlavaModel(tiny_config()).multi_modal_projector.linear_1.weight.shape == (16, 16)
    wide = HookedLlavaModel(tiny_config(), (64, 256, 16)).multi_modal_projector
    assert (wide.linear_1.weight.shape, wide.linear_2.weight.shape) == ((256, 64), (16, 256))


@pytest.mark.parametrize("window", [1, 2, 3, 4, 6])
def test_a_linear_on_fused_windows_is_a_strided_convolution(window):
    torch.manual_seed(0)
    tokens = torch.randn(2, 144, 5)
    weight = torch.randn(7, 5 * window**2)
    got = fuse_windows(tokens, (12, 12), window) @ weight.T
    image = tokens.transpose(1, 2).unflatten(2, (12, 12))
    want = conv2d(image, weight.view(7, 5, window, window), stride=window).flatten(2).transpose(1, 2)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_mixed_windows_use_every_patch_once_and_never_neighbours():
    tokens = _numbers(8)
    mixed = mix_windows(tokens, (8, 8)).view(16, 2, 4)
    places = {(int(r), int(c)) for token in mixed for r, c in token.T}
    assert len(places) == 64
    for token in mixed:
        members = token.T.tolist()
        assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) > 1 for a in members for b in members if a is not b)
    assert sorted(MIX) == list(range(16))
    # Token (0, 0) of the output comes from the first neighbourhood, token (0, 2) from the one to its right.
    assert mixed[0].max() <= 3
    assert mixed[2][1].min() >= 4


def test_average_pooling_is_the_mean_of_each_square():
    pooled = pool_grid(_numbers(6), (6, 6), 3)
    assert pooled[0].tolist() == [[1, 1], [1, 4], [4, 1], [4, 4]]


@pytest.mark.parametrize("fusion", ["concat2x2", "mix4x4", "after_projector", "window_attention"])
@pytest.mark.parametrize("levels", sorted(set(BLOCKS) - {"single"}))
def test_every_ablation_runs_and_learns(fusion, levels):
    method = MethodSpec(name="stf_mbtf", params={"fusion": fusion, "levels": levels}).build(SMALL)
    width_in, hidden, out = method.projector_sizes()
    projector = nn.Sequential(nn.Linear(width_in, hidden), nn.GELU(), nn.Linear(hidden, out))
    states = {level: torch.randn(2, 16, 8) for level in method.levels}
    tokens = method.tokens(VisionIn(states, SMALL.default_level, SMALL.grid, [1, 1]), projector)
    assert tokens.shape == (2, method.n_tokens(16), 16)
    tokens.square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in method.named_parameters() if "in_proj" not in n
    )


def test_windows_must_fit_the_grid():
    for params in ({"window": 3}, {"fusion": "mix4x4", "window": 4}):
        with pytest.raises(MethodError, match="window"):
            MethodSpec(name="stf", params=params).build(SMALL)
    with pytest.raises(MethodError, match="4 does not divide"):
        MethodSpec(name="stf", params={"fusion": "mix4x4"}).build(Geometry(8, 8, (6, 6), 16, 8))

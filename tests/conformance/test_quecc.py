"""QueCC's module against numbers from the official code, from the text embedding on."""

import pytest
import torch
from goldens import golden

from visiontokens.compress import Geometry, MethodError, MethodSpec, VisionIn

G = golden("quecc")
SIZES = G.manifest["config"]
CASES = G.manifest["cases"]
GRID = (SIZES["grid"], SIZES["grid"])
CLIP_L = 24  # blocks: there all levels of the official code are different ones


def _method(window, width=SIZES["embed_dim"], text=SIZES["text_width"], heads=SIZES["heads"], grid=GRID):
    spec = MethodSpec(name="quecc", params={"window": window, "heads": heads})
    return spec.build(Geometry(width, CLIP_L, grid, text, 1))


@pytest.fixture(params=CASES)
def case(request):
    """Return the case's name and the method with the official weights; kernel and stride are one parameter here."""
    name, sizes = request.param, CASES[request.param]
    assert sizes["kernel"] == sizes["stride"]
    method = _method(sizes["kernel"])
    weights = {k.removeprefix(f"{name}."): v for k, v in G.weights.items() if k.startswith(f"{name}.")}
    method.load_state_dict(weights, strict=True)
    return name, method


def _inputs():
    names = ("single_level_features", "multi_level_features", "text_embedding")
    return [G[name].clone().requires_grad_(True) for name in names]


def _output(method, single, multi, text):
    return method.attend(method.query_grid(single, text[:, 0], GRID), multi, GRID)


def test_query_grid(case):
    name, method = case
    single, _, text = _inputs()
    got = method.informed(single, text[:, 0])
    G.close(got.reshape(G[f"{name}.query_grid"].shape), f"{name}.query_grid")


def test_tokens_and_gradients(case):
    name, method = case
    single, multi, text = _inputs()
    out = _output(method, single, multi, text)
    G.close(out, f"{name}.output")
    assert out.shape[1] == CASES[name]["output_tokens"] == method.n_tokens(GRID[0] * GRID[1])
    out.square().sum().backward()
    for key, leaf in (("single", single), ("text", text), ("multi", multi)):
        if f"{name}.grad_{key}" in G.tensors:
            G.close(leaf.grad, f"{name}.grad_{key}")


def test_levels_are_joined_in_the_official_order(case):
    """Features by hidden state become the official concatenation; the default level is the last of the four."""
    _, method = case
    parts = G["multi_level_features"].chunk(len(method.multi), -1)
    vision = VisionIn(dict(zip(method.multi, parts, strict=True)), method.geometry.default_level, GRID, [1, 1])
    vision.query = G["text_embedding"][:, 0]
    want = _output(method, parts[-1], G["multi_level_features"], G["text_embedding"])
    assert torch.equal(method.tokens(vision, torch.nn.Identity()), want)


def test_parameters_at_full_size():
    sizes = G.manifest["behaviours"]["defaults at CLIP-L width"]
    side = round(sizes["tokens"] ** 0.5)
    with torch.device("meta"):
        width = sizes["multi_level_width"] // 4
        method = _method(sizes["kernel"], width, sizes["text_width"], sizes["heads"], (side, side))
    assert sum(p.numel() for p in method.parameters()) == sizes["parameters"]


def test_a_window_that_does_not_divide_is_refused():
    """The official code runs it and pairs queries with keys of other places."""
    known = [key for key in G.manifest["behaviours"] if key.startswith("kernel")]
    kernels = {int(key.split()[1]) for key in known} - {k for k in range(1, GRID[0] + 1) if GRID[0] % k == 0}
    assert kernels
    for kernel in kernels:
        with pytest.raises(MethodError, match="does not divide"):
            _method(kernel)

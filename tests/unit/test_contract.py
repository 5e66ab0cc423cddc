"""What the compressor contract promises, for every registered method; a new one gets these tests for free."""

from pathlib import Path

import pytest
import torch
from tiny_llava import IMAGE, LAYERS, PATCHES, pad, pixels, prompt, spec, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from visiontokens.compress import Geometry, MethodSpec
from visiontokens.compress.base import methods
from visiontokens.models.build import CheckpointError, load_model, save_model
from visiontokens.models.state import VisionCache

CONFIG = Path(__file__).parents[2] / "config" / "methods"
METHODS = methods()
SAFE = [name for name, cls in METHODS.items() if cls.prefix_safe]
CLOSE = {"atol": 3e-5, "rtol": 2e-4}
ROWS = [prompt(9, at=3, seed=1), prompt(6, at=2, seed=2)]


@pytest.fixture(params=METHODS)
def model(request):
    return tiny_model(spec(request.param))


def _run(model, rows, images, left=False, **kwargs):
    ids, mask = pad(rows, left)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, pixel_values=images, **kwargs)


def _batch():
    ids, mask = pad(ROWS)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": pixels(2),
        "labels": ids.masked_fill(mask == 0, -100),
    }


def _noted(run, inside):
    """Return a layer's runner that says in `inside` whether it is at work on a prompt (what is cached is one)."""

    def noted(*args, **kwargs):
        inside.append(any(isinstance(value, VisionCache) for value in args))
        try:
            return run(*args, **kwargs)
        finally:
            inside.pop()

    return noted


def test_declared_tokens_are_those_of_the_prefill_and_of_its_cache(model, monkeypatch):
    length, lm, rows, inside = 9, model.model.language_model, {"k_proj": [], "q_proj": []}, []
    for layer in lm.layers:
        for name, seen in rows.items():
            hook = getattr(layer.self_attn, name).register_forward_hook
            hook(lambda _, args, __, seen=seen: seen.append(args[0].shape[1] - (length - 1)) if any(inside) else None)
    for name in ("_whole", "_some"):  # a method may also rank with a layer's weights, or read the question alone
        monkeypatch.setattr(lm, name, _noted(getattr(lm, name), inside))
    state = model.prefill(prompt(length)[None], pixel_values=pixels(1))
    compressor = model.compressor
    assert rows["k_proj"] == compressor.tokens_per_layer(PATCHES, LAYERS)
    assert rows["q_proj"] == compressor.queries_per_layer(PATCHES, LAYERS)
    assert [int(vision.sum()) for vision in state.cache.vision] == compressor.kv_per_layer(PATCHES, LAYERS)
    text = [n - int(vision.sum()) for n, vision in zip(state.cache.lengths(), state.cache.vision, strict=True)]
    assert all(n <= length - 1 for n in text)  # a method may drop text too
    tokens, patches = model.encode_images(pixels(2))
    assert patches == [PATCHES] * 2
    want = model.compressor.n_tokens(PATCHES)
    assert all(t.shape == (len(t) if want is None else want, 16) for t in tokens)


def test_declared_flops_are_the_measured_ones(model):
    levels = {level: torch.randn(shape) for level, shape in model.compressor.state_shapes(1).items()}
    counter = FlopCounterMode(display=False)
    model.train()  # the fused inference kernels of torch's attention modules are invisible to the counter
    with counter:
        model.encode_images(vision_levels=levels)
    declared = model.compressor.extra_flops(PATCHES)
    inside = len(set(model.compressor.tokens_per_layer(PATCHES, LAYERS))) > 1  # may also work inside the LLM
    measured = counter.get_total_flops()
    attention = any(isinstance(m, torch.nn.MultiheadAttention) for m in model.compressor.modules())
    assert measured <= declared * (1 + 1e-9)
    if not inside and not attention:  # the counter does not see attention scores on the CPU
        assert measured == declared


@pytest.mark.parametrize("name", [n for n, cls in METHODS.items() if cls.identity is not None])
def test_identity_settings_reproduce_the_base_model(name):
    base, same = tiny_model(), tiny_model(spec(name, **METHODS[name].identity))
    a, b = _run(base, ROWS, pixels(2)).logits, _run(same, ROWS, pixels(2)).logits
    torch.testing.assert_close(b, a, **CLOSE)


@pytest.mark.parametrize("left", [False, True])
def test_batched_is_single(model, left):
    images = pixels(2)
    batch = _run(model, ROWS, images, left).logits
    for i, row in enumerate(ROWS):
        one = _run(model, [row], images[[i]]).logits[0]
        got = batch[i, -len(one) :] if left else batch[i, : len(one)]
        torch.testing.assert_close(got, one, **CLOSE)
    ids, mask = pad(ROWS, left=True)
    tokens = model.generate(ids, attention_mask=mask, pixel_values=images, max_new_tokens=4, do_sample=False)
    for i, row in enumerate(ROWS):
        one = model.generate(row[None], pixel_values=images[[i]], max_new_tokens=4, do_sample=False)
        assert torch.equal(tokens[i, -4:], one[0, -4:])


def test_text_without_images_is_plain_text(model):
    ids = prompt(7, at=None)[None]
    with torch.no_grad():
        got, want = model(input_ids=ids).logits, tiny_model()(input_ids=ids).logits
    torch.testing.assert_close(got, want, **CLOSE)


@pytest.mark.parametrize("name", SAFE)
def test_cached_decoding_is_full_recomputation(name):
    model, ids, image = tiny_model(spec(name)), prompt(7), pixels(1)
    state = model.prefill(ids[None, :3], pixel_values=image)  # ends with the image
    _, state = model.extend(state, ids[None, 3:])
    for _ in range(4):
        whole = _run(model, [ids], image).logits[0, -1]
        torch.testing.assert_close(state.logits[0], whole, **CLOSE)
        token = whole.argmax().view(1)
        ids = torch.cat([ids, token])
        _, state = model.extend(state, token[None])


def test_generate_is_prefill_and_extend(model):
    ids, image = prompt(7), pixels(1)
    want = model.generate(ids[None], pixel_values=image, max_new_tokens=5, do_sample=False)[0, -5:]
    state, got = model.prefill(ids[None], pixel_values=image), []
    for _ in range(5):
        got.append(int(state.logits.argmax()))
        _, state = model.extend(state, torch.tensor([[got[-1]]]))
    assert got == want.tolist()


@pytest.mark.parametrize("name", SAFE)
def test_prefix_safe_is_kept(name):
    """What is computed up to the image does not change with the text after it."""
    model = tiny_model(spec(name))
    lengths = model.prefill(prompt(4, at=3)[None], pixel_values=pixels(1)).cache.lengths()
    caches = [
        model.prefill(torch.cat([prompt(4, at=3), prompt(3, None, s)])[None], pixel_values=pixels(1)) for s in (5, 6)
    ]
    for layer, length in enumerate(lengths):
        a, b = (state.cache.layers[layer].keys[:, :, :length] for state in caches)
        torch.testing.assert_close(a, b, **CLOSE)


def test_gradients_reach_what_trains_and_nothing_else(model):
    trained = [*model.compressor.parameters(), *model.model.multi_modal_projector.parameters()]
    model.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    out = model.train()(**_batch())
    assert out.logits is None
    out.loss.backward()
    ours = {id(p) for p in trained}
    for name, parameter in model.named_parameters():
        if id(parameter) in ours:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None, name
    assert sum(float(p.grad.abs().sum()) for p in trained) > 0
    grouped = [p for group in model.compressor.parameter_groups(1e-3) for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in model.compressor.parameters()}


def test_gradient_checkpointing_changes_nothing(model):
    losses, grads = [], []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train().zero_grad()
        torch.manual_seed(0)
        loss = model(**_batch()).loss
        loss.backward()
        losses.append(loss.detach())
        grads.append(model.model.language_model.layers[0].mlp.up_proj.weight.grad.clone())
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(grads[0], grads[1])


def test_bfloat16_and_autocast_run(model):
    batch = _batch()
    with torch.no_grad():
        want = model(**batch).loss
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(**batch).loss
        half = model.to(torch.bfloat16)(**{**batch, "pixel_values": batch["pixel_values"].bfloat16()}).loss
    torch.testing.assert_close(mixed, want, atol=0.3, rtol=0.1)
    torch.testing.assert_close(half.float(), want, atol=0.6, rtol=0.2)


def test_saved_and_loaded_is_the_same(model, tmp_path):
    want = _run(model, ROWS, pixels(2)).logits
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.method == model.method
    assert torch.equal(_run(again, ROWS, pixels(2)).logits, want)


def test_checkpoint_of_another_method_is_refused_by_name(model, tmp_path):
    """Only methods with the same tensors may stand in for each other at test time."""
    save_model(model, tmp_path)
    other = spec("stf_mbtf" if model.method.name != "stf_mbtf" else "mbtf")
    with pytest.raises(CheckpointError, match=f"method '{model.method.name}' does not fit method '{other.name}'"):
        load_model(tmp_path, other)
    fits = not list(model.compressor.parameters()) and model.compressor.projector_sizes() == (16, 16, 16)
    if fits:
        assert load_model(tmp_path, spec("vcc", stride=4)).method.name == "vcc"
    else:
        with pytest.raises(CheckpointError):
            load_model(tmp_path, spec("none"))


def test_stages_come_and_go(model):
    from visiontokens.compress.schedule import Stage

    want = _run(model, ROWS, pixels(2)).logits
    model.compressor.set_stage(Stage(layer="2/32", stride=2, until=0.5))
    model.compressor.set_stage(None)
    assert torch.equal(_run(model, ROWS, pixels(2)).logits, want)


def test_videos_and_images_mix_with_text(model):
    video = pixels(4).unflatten(0, (2, 2))
    ids = torch.stack([prompt(6, at=1), prompt(6, at=4, seed=9)])
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=video, labels=ids.masked_fill(ids == IMAGE, -100))
    assert out.loss.isfinite()
    assert out.logits.isfinite().all()


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda p: p.stem)
def test_method_files_build_at_both_geometries(path):
    method = MethodSpec.from_yaml(path)
    for geometry in (Geometry(128, 8, (24, 24), 128, 8), Geometry(1024, 24, (24, 24), 4096, 32)):
        with torch.device("meta"):
            compressor = method.build(geometry)
        sizes = geometry.n_vision, geometry.llm_layers
        seen, queries, kept = (
            count(*sizes)
            for count in (compressor.tokens_per_layer, compressor.queries_per_layer, compressor.kv_per_layer)
        )
        assert len(seen) == len(queries) == len(kept) == geometry.llm_layers
        assert all(0 < few <= most for few, most in (*zip(queries, seen, strict=True), *zip(kept, seen, strict=True)))
        assert compressor.extra_flops(geometry.n_vision, 64) > 0
        assert all(0 <= level <= geometry.vision_layers for level in compressor.levels)
        assert list(compressor.levels) == sorted(set(compressor.levels))
        assert set(compressor.class_levels) <= set(compressor.levels)

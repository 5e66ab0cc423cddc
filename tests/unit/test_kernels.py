"""The kernel switch: what is chosen and why, and that the chosen kernel computes what SDPA computes."""

import pytest
import torch
from packing import packed, padded, reference_flash, samples
from tiny_llava import pad, pixels, prompt, spec, tiny_model

from visiontokens.compress.base import Compressor
from visiontokens.models import attention, kernels
from visiontokens.models.kernels import IMPLEMENTATIONS, Kernel, choose_kernel, use_kernel
from visiontokens.models.masks import FLASH_2

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CLOSE = {"atol": 3e-5, "rtol": 2e-4}


class Masked(Compressor):
    """A method with a mask of its own."""

    name, dense_mask = "masked", True


@pytest.fixture
def hopper(monkeypatch):
    """A machine with a Hopper GPU and both packages."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(kernels, "flash_functions", lambda name: attention.FlashFunctions(*reference_flash()))


@pytest.fixture
def flash(monkeypatch):
    """Plain torch in place of the flash-attention package."""
    monkeypatch.setattr(attention, "flash_functions", lambda name: attention.FlashFunctions(*reference_flash()))


def test_a_cpu_gets_sdpa_and_is_told_why():
    chosen = choose_kernel("auto", CPU, torch.bfloat16)
    assert chosen == Kernel("sdpa", "flash attention needs a GPU, the device is cpu")


@pytest.mark.parametrize(
    ("capability", "dtype", "method", "name"),
    [
        ((9, 0), torch.bfloat16, Compressor, "flash_attention_3"),
        ((8, 0), torch.float16, Compressor, "flash_attention_2"),
        ((7, 5), torch.float16, Compressor, "sdpa"),
        ((9, 0), torch.float32, Compressor, "sdpa"),
        ((9, 0), torch.bfloat16, Masked, "sdpa"),
    ],
)
def test_device_dtype_and_mask_decide(hopper, monkeypatch, *, capability, dtype, method, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_kernel("auto", CUDA, dtype, method).name == name


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setitem(attention.PACKAGES, FLASH_2, "no_such_package")
    attention.flash_functions.cache_clear()
    chosen = choose_kernel("auto", CUDA, torch.bfloat16)
    assert chosen.name == "sdpa"
    assert "flash_attention_2 cannot be imported (No module named 'no_such_package')" in chosen.reason
    with pytest.raises(ValueError, match=r"flash_attention_2 asked for, but .* cannot be imported"):
        choose_kernel("flash_attention_2", CUDA, torch.bfloat16)


def test_unknown_and_unfit_names_are_refused():
    with pytest.raises(ValueError, match="found 'fast', expected auto, flash_attention_3"):
        choose_kernel("fast", CPU, torch.float32)
    with pytest.raises(ValueError, match="needs a GPU, the device is cpu; use auto or sdpa"):
        choose_kernel("flash_attention_2", CPU, torch.bfloat16)


def test_the_choice_is_set_and_logged(caplog):
    model = tiny_model()
    with caplog.at_level("INFO"):
        use_kernel(model, Kernel("flash_attention_2", "because"))
    assert "attention: flash_attention_2 (because)" in caplog.text
    assert model.model.language_model.config._attn_implementation == FLASH_2
    assert "flash" not in model.model.vision_tower.config._attn_implementation


@pytest.mark.parametrize("name", ["none", "avgpool", "vcc", "fastv", "kmeans"])
@pytest.mark.parametrize("left", [False, True])
def test_flash_prompts_and_answers_equal_sdpa(flash, name, left):
    """Prefill of a padded batch, padded continuation, generation: through the variable-length call."""
    models = tiny_model(spec(name)), tiny_model(spec(name))
    models[1].model.language_model.config._attn_implementation = FLASH_2
    rows = [prompt(9, at=3, seed=1), prompt(6, at=2, seed=2)]
    ids, mask = pad(rows, left)
    more, more_mask = pad([prompt(4, at=None, seed=5), prompt(2, at=None, seed=6)], left)
    results = []
    for model in models:
        state = model.prefill(ids, mask, pixel_values=pixels(2))
        logits, grown = model.extend(state, more, more_mask)
        _, last = model.extend(grown, torch.tensor([[3], [4]]))
        results.append((state.logits, logits[more_mask.bool()], grown.logits, last.logits))
    for found, wanted in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, wanted, **CLOSE)
    tokens = [
        m.generate(
            *pad(rows, True)[:1],
            attention_mask=pad(rows, True)[1],
            pixel_values=pixels(2),
            max_new_tokens=4,
            do_sample=False,
        )
        for m in models
    ]
    assert torch.equal(*tokens)


@pytest.mark.parametrize("turns", [False, True], ids=["causal", "isolated"])
@pytest.mark.parametrize("form", [padded, packed])
def test_flash_training_equals_sdpa(flash, form, turns):
    losses, grads = [], []
    for implementation in (IMPLEMENTATIONS["sdpa"], FLASH_2):
        model = tiny_model(spec("vcc", layer="2/4", stride=4)).train()
        model.model.language_model.config._attn_implementation = implementation
        loss = model(**form(samples(turns), turns), pixel_values=pixels(3)).loss
        loss.backward()
        losses.append(loss.detach())
        grads.append(model.model.language_model.layers[0].self_attn.k_proj.weight.grad)
    torch.testing.assert_close(*losses, **CLOSE)
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["flash_attention_3", "flash_attention_2"])
def test_real_flash_equals_sdpa_on_a_gpu(name):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    try:
        kernel = choose_kernel(name, CUDA, torch.bfloat16)
    except ValueError as err:
        pytest.skip(str(err))
    found = []
    for each in (Kernel("sdpa", "reference"), kernel):
        model = tiny_model(spec("vcc", layer="2/4", stride=4)).train().to(CUDA, torch.bfloat16)
        use_kernel(model, each)
        batch = {key: value.to(CUDA) for key, value in packed(samples(True), True).items()}
        loss = model(**batch, pixel_values=pixels(3).to(CUDA, torch.bfloat16)).loss
        loss.backward()
        found.append((loss.detach(), model.model.language_model.layers[0].mlp.up_proj.weight.grad))
    torch.testing.assert_close(found[1][0], found[0][0], atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(found[1][1], found[0][1], atol=5e-2, rtol=5e-2)

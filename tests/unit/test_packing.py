"""Samples packed into one row train exactly as samples in rows of their own: same loss, same gradients."""

import pytest
import torch
from packing import packed, padded, samples
from tiny_llava import pixels, spec, tiny_model

from visiontokens.compress.base import methods
from visiontokens.compress.schedule import Stage
from visiontokens.models.masks import BlockMask

STOCHASTIC = {"random"}
PACKABLE = [name for name, cls in methods().items() if cls.packable and name not in STOCHASTIC]
STAGES = [Stage(layer="2/32", stride=8, until=0.5), Stage(layer="16/32", stride=4, until=0.7), Stage()]
CASES = [*((name, None) for name in PACKABLE), *(("vcc", stage) for stage in STAGES)]


def run(model, batch):
    """Return the loss and every gradient of one training step."""
    model.train().zero_grad()
    torch.manual_seed(0)  # a method may draw in training
    loss = model(**batch, pixel_values=pixels(3)).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(found, wanted):
    torch.testing.assert_close(found[0], wanted[0], atol=1e-5, rtol=1e-4)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=3e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("turns", [False, True], ids=["causal", "isolated"])
@pytest.mark.parametrize(
    ("name", "stage"), CASES, ids=lambda v: v if isinstance(v, str) else "" if v is None else f"{v.stride}"
)
def test_packed_is_padded(name, stage, turns):
    model, rows = tiny_model(spec(name)), samples(turns)
    model.compressor.set_stage(stage)
    assert_same(run(model, packed(rows, turns)), run(model, padded(rows, turns)))


@pytest.mark.parametrize("turns", [False, True], ids=["causal", "isolated"])
def test_dense_and_blockwise_masks_agree(turns):
    """The eager kernel gets one mask over the whole row, SDPA one per sample."""
    rows = samples(turns)
    blockwise, whole = tiny_model(spec("avgpool")), tiny_model(spec("avgpool"), attention="eager")
    assert_same(run(whole, packed(rows, turns)), run(blockwise, packed(rows, turns)))


def test_other_samples_do_not_matter():
    """Changing one sample leaves the outputs of the others as they were, bit by bit."""
    model, rows = tiny_model(spec("vcc", layer="2/4", stride=4)), samples()
    batch = packed(rows)
    other = {
        **batch,
        "input_ids": torch.where(batch["document_ids"] == 1, batch["input_ids"].flip(1), batch["input_ids"]),
    }
    other["input_ids"][0, 9:13] = torch.tensor([1, 63, 5, 6])
    with torch.no_grad():
        a, b = (model(**x, pixel_values=pixels(3), loss_only=False).logits[0] for x in (batch, other))
    changed = (a != b).any(-1).nonzero()[:, 0]
    assert len(changed) and int(changed.min()) >= 8 + 144 and int(changed.max()) < 8 + 144 + 3 + 144


def test_masks_are_blocks_and_padding_is_gone():
    model, seen = tiny_model(), []
    layer = model.model.language_model.layers[0]
    handle = layer.register_forward_pre_hook(lambda _, a, k: seen.append(k["attention_mask"]), with_kwargs=True)
    rows = samples()
    run(model, packed(rows))
    load = model.load.take()
    run(model, padded(rows))
    handle.remove()
    assert isinstance(seen[0], BlockMask)
    assert [block.stop - block.start for block in seen[0].blocks] == [152, 147, 7, 157]
    assert (load.padding, load.tokens) == (0.0, 152 + 147 + 7 + 157)
    assert model.load.padding == pytest.approx(1 - load.tokens / (4 * 157))


def test_random_draws_anew_for_every_packed_image():
    model = tiny_model(spec("random", layer="2/4", stride=4)).train()
    torch.manual_seed(0)
    kept = []
    layer = model.model.language_model.layers[-1]
    handle = layer.register_forward_pre_hook(lambda _, a, k: kept.append(k["position_ids"]), with_kwargs=True)
    model(**packed(samples()), pixel_values=pixels(3))
    handle.remove()
    assert kept[0].shape[1] == 3 * 36 + 8 + 3 + 7 + 13
    assert not torch.equal(kept[0][0, 3:39] - 3, kept[0][0, 36 + 8 + 1 : 72 + 8 + 1] - 1)


def test_watching_a_packed_row_is_refused():
    model = tiny_model(spec("fastv"))
    assert not model.compressor.packable
    with pytest.raises(ValueError, match="declares packable = False"):
        model(**packed(samples()), pixel_values=pixels(3))

"""Without compression the model is stock LLaVA, and checkpoints go both ways."""

import pytest
import torch
from tiny_llava import IMAGE, PATCHES, pad, pixels, prompt, run_of, tiny_config, tiny_model
from transformers import LlavaForConditionalGeneration

from visiontokens.compress import MethodSpec
from visiontokens.models.build import load_model, save_model
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.models.state import VisionCache


@pytest.fixture(scope="module")
def pair():
    """Our model without compression and a stock one with the same weights."""
    ours = tiny_model()
    stock = LlavaForConditionalGeneration(tiny_config()).eval()
    stock.load_state_dict(ours.state_dict())
    return ours, stock


@pytest.mark.parametrize("left", [None, False, True])
def test_logits_and_loss_are_bit_identical(pair, left):
    ours, stock = pair
    rows = [run_of(prompt(9, seed=1)), run_of(prompt(9 if left is None else 6, seed=2))]
    ids, mask = pad(rows, bool(left))
    kwargs = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels(2)}
    labels = ids.masked_fill((ids == IMAGE) | (mask == 0), -100)
    with torch.no_grad():
        a, b = ours(**kwargs, labels=labels), stock(**kwargs, labels=labels)
    assert torch.equal(a.logits, b.logits)
    assert torch.equal(a.loss, b.loss)
    assert [
        h.equal(g) for h, g in zip(*(m(**kwargs, output_hidden_states=True).hidden_states for m in pair), strict=True)
    ]


@pytest.mark.parametrize("left", [False, True])
def test_one_placeholder_means_the_same_as_a_run(pair, left):
    ours, stock = pair
    rows = [prompt(9, seed=1), prompt(6, at=4, seed=2)]
    ids, mask = pad(rows, left)
    full, full_mask = pad([run_of(row) for row in rows], left)
    images = pixels(2)
    with torch.no_grad():
        got = ours(input_ids=ids, attention_mask=mask, pixel_values=images).logits
        want = stock(input_ids=full, attention_mask=full_mask, pixel_values=images).logits
    torch.testing.assert_close(got[full_mask.bool()], want[full_mask.bool()], atol=1e-5, rtol=1e-4)


def test_vision_levels_replace_pixels(pair):
    ours, _ = pair
    ids, images = prompt(9)[None], pixels(1)
    levels = ours.compressor.run_tower(ours.model.vision_tower, images)
    with torch.no_grad():
        got = ours(input_ids=ids, vision_levels=levels).logits
        want = ours(input_ids=ids, pixel_values=images).logits
    torch.testing.assert_close(got, want)
    with pytest.raises(ValueError, match=r"missing \[3\], given \[1\]"):
        ours(input_ids=ids, vision_levels={1: levels[3]})
    with pytest.raises(ValueError, match="expected shape"):
        ours(input_ids=ids, vision_levels={3: levels[3][:, 1:]})


def test_training_on_labelled_rows_gives_stock_loss_and_gradients(pair):
    ours, stock = pair
    ids, mask = pad([prompt(9, seed=1), prompt(7, seed=2)])
    full, full_mask = pad([run_of(prompt(9, seed=1)), run_of(prompt(7, seed=2))])
    labels = full.masked_fill((full == IMAGE) | (full_mask == 0), -100)
    want = stock(input_ids=full, attention_mask=full_mask, pixel_values=pixels(2), labels=labels)
    want.loss.backward()
    got = ours.train()(
        input_ids=ids, attention_mask=mask, pixel_values=pixels(2), labels=ids.masked_fill(mask == 0, -100)
    )
    got.loss.backward()
    ours.eval()
    assert got.logits is None
    torch.testing.assert_close(got.loss, want.loss, atol=1e-5, rtol=1e-5)
    grads = dict(stock.named_parameters())
    for name, parameter in ours.named_parameters():
        if grads[name].grad is not None:
            torch.testing.assert_close(parameter.grad, grads[name].grad, atol=2e-5, rtol=2e-3, msg=name)


def test_loss_over_several_micro_batches_adds_up(pair):
    ours, _ = pair
    ids = torch.stack([prompt(9, seed=1), prompt(9, seed=2)])
    kwargs = {"input_ids": ids, "pixel_values": pixels(2), "labels": ids, "loss_only": True}
    with torch.no_grad():
        mean = ours(**kwargs).loss
        count = int((ids[:, 1:] != IMAGE).sum())
        torch.testing.assert_close(ours(**kwargs, num_items_in_batch=2 * count).loss, mean / 2)


def test_a_batch_without_labels_has_loss_zero(pair):
    ids = prompt(9)[None]
    loss = pair[0](input_ids=ids, pixel_values=pixels(1), labels=torch.full_like(ids, -100), loss_only=True).loss
    assert loss == 0
    loss.backward()


def test_generation_equals_stock(pair):
    ours, stock = pair
    rows = [prompt(9, seed=1), prompt(6, seed=2)]
    ids, mask = pad(rows, left=True)
    full, full_mask = pad([run_of(row) for row in rows], left=True)
    settings = {"pixel_values": pixels(2), "max_new_tokens": 6, "do_sample": False}
    want = stock.generate(full, attention_mask=full_mask, **settings)[:, -6:]
    for args in ((full, full_mask), (ids, mask)):
        got = ours.generate(args[0], attention_mask=args[1], **settings)
        assert torch.equal(got[:, -6:], want)
        assert torch.equal(got[:, :-6], args[0])
    beams = ours.generate(ids, attention_mask=mask, num_beams=3, **settings)
    assert torch.equal(beams[:, -6:], stock.generate(full, attention_mask=full_mask, num_beams=3, **settings)[:, -6:])


def test_checkpoints_go_to_stock_and_back(tmp_path, pair):
    ours, stock = pair
    save_model(ours, tmp_path / "ours")
    _, info = LlavaForConditionalGeneration.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    stock.save_pretrained(tmp_path / "stock")
    back, info = LlavaWithCompressor.from_pretrained(tmp_path / "stock", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    again = load_model(tmp_path / "stock")
    ids = run_of(prompt(9))[None]
    with torch.no_grad():
        want = stock(input_ids=ids, pixel_values=pixels(1)).logits
        assert torch.equal(back(input_ids=ids, pixel_values=pixels(1)).logits, want)
        assert torch.equal(again(input_ids=ids, pixel_values=pixels(1)).logits, want)
    assert again.method == MethodSpec()


def test_eager_attention_gives_the_same(pair):
    eager = tiny_model(attention="eager")
    ids, mask = pad([prompt(9, seed=1), prompt(6, seed=2)], left=True)
    with torch.no_grad():
        a, b = (m(input_ids=ids, attention_mask=mask, pixel_values=pixels(2)).logits for m in (pair[0], eager))
    real = torch.arange(a.shape[1]) >= a.shape[1] - (mask.sum(1) - 1 + PATCHES)[:, None]
    torch.testing.assert_close(a[real], b[real], atol=1e-4, rtol=1e-3)


def test_cache_refuses_to_be_cropped():
    with pytest.raises(NotImplementedError, match="cannot be cropped"):
        VisionCache().crop(-1)

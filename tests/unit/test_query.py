"""The text vector: which tokens are the question, who sees it, and turns in rows of their own."""

import json

import pytest
import torch
from packing import padded, samples
from tiny_llava import IMAGE, LAYERS, PATCHES, pad, pixels, prompt, spec, tiny_model
from tiny_training import config_of, make_world, tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from visiontokens.compress import Geometry, MethodError
from visiontokens.compress.avgpool import AveragePooling
from visiontokens.compress.base import methods
from visiontokens.compress.tokenpacker import LEVELS, multi_levels
from visiontokens.config import load_config
from visiontokens.data.conversation import Tokens, Turn, encode_with_images, question_prompt, tokenize_isolated
from visiontokens.data.encoders import FastEncoder
from visiontokens.data.images import Preprocessor
from visiontokens.data.instruct import Collator, Sample, unroll
from visiontokens.evaluate.ask import ask
from visiontokens.evaluate.greedy import Greedy, encode_question
from visiontokens.models.build import load_model
from visiontokens.models.query import Prompt, question_marks, questions, text_states
from visiontokens.train.trainer import train_stage

BOS, NEWLINE, MARKER = 1, [7, 8], [9, 10]
MARKS = {"start": NEWLINE, "end": MARKER}
ASKED = [21, 22, 23]
ROWS = {
    "question and answer": ([1, 30, IMAGE, *NEWLINE, *ASKED, *MARKER, 40, 41], ASKED),
    "two turns": ([1, IMAGE, *NEWLINE, *ASKED, *MARKER, 40, 2, 31, 32, *MARKER, 41], ASKED),
    "two images": ([1, IMAGE, *NEWLINE, 50, IMAGE, *NEWLINE, *ASKED, *MARKER], ASKED),
    "run of placeholders": ([1, *[IMAGE] * 5, *NEWLINE, *ASKED], ASKED),
    "no newline": ([1, 30, IMAGE, *ASKED, *MARKER[:1]], [*ASKED, *MARKER[:1]]),
    "nothing behind the image": ([1, 30, IMAGE], []),
    "no image": ([1, *ASKED, *MARKER, 40], None),
}
QUERIED = [name for name, cls in methods().items() if cls.text_query]


def ids_of(rows, left):
    return pad([torch.tensor(row) for row in rows], left)


@pytest.mark.parametrize("left", [False, True])
def test_the_question_is_what_stands_between_image_and_answer(left):
    ids, mask = ids_of([row for row, _ in ROWS.values()], left)
    found, ok, rows = questions(ids, mask, None, image_token=IMAGE, bos=BOS, marks=MARKS)
    wanted = [want for _, want in ROWS.values()]
    assert rows.tolist() == [i for i, want in enumerate(wanted) if want is not None]
    got = [row[keep].tolist() for row, keep in zip(found, ok, strict=True)]
    assert got == [[BOS, *want] for want in wanted if want is not None]


def test_without_marks_the_first_label_ends_the_question():
    row = [1, 30, IMAGE, *ASKED, 40, 41]
    labels = torch.tensor([[-100] * 6 + [40, 41]])
    for given, want in ((labels, ASKED), (None, [*ASKED, 40, 41])):
        found, _, _ = questions(torch.tensor([row]), None, given, image_token=IMAGE, bos=BOS, marks=None)
        assert found.tolist() == [[BOS, *want]]


def test_marks_are_those_of_the_prompt():
    encoder = FastEncoder(tokenizer())
    text = question_prompt("What color is it?", image=True)
    ids = torch.tensor([encode_with_images(text, encoder, 4).ids])
    found, _, _ = questions(ids, None, None, image_token=4, bos=1, marks=question_marks(encoder))
    assert found[0, 1:].tolist() == encoder.encode("What color is it?").ids


def test_the_state_is_the_language_models_own():
    model = tiny_model(spec("quecc"))
    rows = [prompt(5, at=None, seed=1), prompt(3, at=None, seed=2)]
    ids, mask = pad(rows)
    states = text_states(model, ids, mask.bool())
    for row, state in zip(rows, states, strict=True):
        want = model.model.language_model(input_ids=row[None]).last_hidden_state[0, -1]
        torch.testing.assert_close(state, want)


@pytest.mark.parametrize("name", QUERIED)
def test_image_tokens_follow_the_question_and_only_the_question(name):
    model = tiny_model(spec(name))
    model.config.question_marks = MARKS

    def image(row):
        ids = torch.tensor([row])
        with torch.no_grad():
            return model(input_ids=ids, pixel_values=pixels(1)).image_hidden_states

    base = image([1, 30, IMAGE, *NEWLINE, *ASKED, *MARKER, 40])
    assert torch.equal(base, image([1, 31, 32, IMAGE, *NEWLINE, *ASKED, *MARKER, 50, 51]))
    assert not torch.allclose(base, image([1, 30, IMAGE, *NEWLINE, *ASKED[:2], 24, *MARKER, 40]))


@pytest.mark.parametrize("name", QUERIED)
def test_autocast_does_not_cut_the_gradients(name):
    """Weights that autocast cast in the text pass, without gradients, must not serve the pass that trains."""
    ids = prompt(8, at=2)[None]
    model = tiny_model(spec(name)).train()
    labels = torch.where(torch.arange(8) > 5, ids, -100)
    with torch.autocast("cpu", torch.bfloat16):
        model(input_ids=ids, pixel_values=pixels(1), labels=labels).loss.backward()
    missing = [n for n, p in model.model.language_model.layers.named_parameters() if p.grad is None]
    assert not missing


@pytest.mark.parametrize("name", QUERIED)
def test_several_questions_in_one_row_are_refused(name):
    model, rows = tiny_model(spec(name)), samples(turns=True)
    with pytest.raises(ValueError, match="reads one question a row; found 2 isolated turns"):
        model(**padded(rows, turns=True), pixel_values=pixels(3))


@pytest.mark.parametrize("name", ["quecc", "tokenpacker"])
def test_declared_flops_are_the_counted_ones_to_the_last(name):
    """The math kernel shows the attention products to the counter."""
    model, length = tiny_model(spec(name)).train(), 9
    ids = torch.cat([torch.tensor([BOS, IMAGE]), prompt(length, at=None)])[None]
    levels = {level: torch.randn(1, PATCHES, 16) for level in model.compressor.levels}
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        model.encode_images(vision_levels=levels, prompt=Prompt(ids))
    assert counter.get_total_flops() == model.compressor.extra_flops(PATCHES, length)
    assert model.compressor.tokens_per_layer(PATCHES, LAYERS) == [model.compressor.n_tokens(PATCHES)] * LAYERS


class Images:
    """Pixels by name."""

    def check(self, images, where):
        pass

    def load(self, images):
        return {"pixel_values": torch.stack([pixels(1, seed=int(image))[0] for image in images])}


def _conversations():
    """Samples with three, one and two isolated turns, the last without an image; answers weigh differently."""
    encoder = FastEncoder(tokenizer())
    out = []
    for number, (turns, image) in enumerate([(3, True), (1, True), (2, False)]):
        head = "<image>\n" if image else ""
        asked = [Turn(head * (not t) + "What color is it?"[: 9 + 4 * t], "red") for t in range(turns)]
        tokens = tokenize_isolated(asked, encoder, IMAGE, [1.0, 0.3, 0.5][:turns])
        out.append(Sample(tokens, str(number) if image else None))
    return out


def test_unrolled_turns_have_the_loss_of_packed_ones(monkeypatch):
    """A method that gets the question and ignores it: same targets, weights, loss and gradients."""
    model = tiny_model(spec("avgpool")).train()
    found = []
    for unrolled in (False, True):
        monkeypatch.setattr(AveragePooling, "text_query", unrolled)
        batch = Collator(0, Images(), segments=True, weighted=True, unrolled=unrolled)(_conversations())
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        found.append((loss.detach(), grads, float(batch["loss_weights"][:, 1:].sum())))
    (a, a_grads, a_weight), (b, b_grads, b_weight) = found
    torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-5)
    assert a_weight == pytest.approx(b_weight)
    for name, gradient in a_grads.items():
        torch.testing.assert_close(b_grads[name], gradient, atol=3e-5, rtol=1e-3)


def test_unrolled_rows_repeat_an_image_and_load_it_once():
    batch = Collator(0, Images(), unrolled=True)(_conversations())
    assert batch["image_index"].tolist() == [0, 0, 0, 1]
    assert len(batch["pixel_values"]) == 2
    assert len(batch["input_ids"]) == 6 and "segment_ids" not in batch
    assert (batch["input_ids"] == IMAGE).sum(1).tolist() == [1, 1, 1, 1, 0, 0]


def test_unrolling_keeps_every_target_once():
    tokens = Tokens([1, 2, 3, 4, 5], [-100, 2, 3, 4, 5], [0.0, 0.5, 1.0, 2.0, 3.0], [0, 0, 1, 1, 2])
    first, second = unroll(tokens)
    assert (first.ids, first.labels) == ([1, 2, 3, 4], [-100, 2, 3, 4])
    assert (second.ids, second.labels, second.weights) == ([1, 2, 5], [-100, -100, 5], [0.0, 0.0, 3.0])
    assert unroll(first) == [first]


def test_tokenpacker_has_the_official_size():
    geometry = Geometry(1024, 24, (24, 24), 4096, 32)
    with torch.device("meta"):
        method = spec("tokenpacker").build(geometry)
    assert sum(p.numel() for p in method.parameters()) == 15_742_976  # counted in the official module, without its MLP
    assert method.multi == LEVELS


def test_multi_levels_are_cached_in_the_mini_tower():
    config = load_config("config/config.yaml")
    geometry = Geometry(128, 8, (24, 24), 128, 8)
    cached = {geometry.level(level) for level in config.features.levels}
    assert set(multi_levels(geometry)) <= cached
    assert multi_levels(geometry)[-1] == geometry.default_level


def test_a_query_sees_the_patches_of_its_own_cell_only():
    method = spec("tokenpacker", window=4).build(Geometry(16, 4, (8, 8), 16, 4)).eval()
    query, levels = torch.randn(1, 4, 16), torch.randn(1, 64, 64)
    other = levels.clone()
    other[0, 8 * 5 + 6] += 1.0  # row 5, column 6: the last of four cells
    changed = (method.attend(query, levels, (8, 8)) != method.attend(query, other, (8, 8))).any(-1)
    assert changed.tolist() == [[False, False, False, True]]


def test_queries_are_the_features_down_sampled():
    """At window 2 the bilinear value is the mean of the four patches, at window 4 of the inner four."""
    ramp = torch.arange(64.0).view(1, 64, 1).expand(1, 64, 16)
    for window, first in ((2, (0, 1, 8, 9)), (4, (9, 10, 17, 18))):
        method = spec("tokenpacker", window=window).build(Geometry(16, 4, (8, 8), 16, 4))
        method.q_proj = torch.nn.Identity()
        got = method.query_grid(ramp, (8, 8))
        assert got.shape == (1, 64 // window**2, 16)
        assert got[0, 0, 0] == sum(first) / 4


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(MethodError, match="5 heads do not divide the tower's width 16"):
        spec("tokenpacker", heads=5).build(Geometry(16, 4, (8, 8), 16, 4))


def test_trained_saved_and_asked(tmp_path):
    """Both stages run with turns in rows of their own, and the saved model answers like its batched self."""
    make_world(tmp_path, count=20)
    (tmp_path / "config/methods/quecc.yaml").write_text("name: quecc\nparams: {window: 2, heads: 2}\n")
    with (tmp_path / "config/experiments.tsv").open("a") as handle:
        handle.write("quecc\tQueCC\tquecc\t\tquecc\tquecc\t\t\tmain\t1\t\t\n")
    config, align, out = config_of(tmp_path, epochs=1), tmp_path / "align", tmp_path / "out"
    train_stage(config, "quecc", 0, "align", run_dir=tmp_path / "run_align", out=align)
    train_stage(config, "quecc", 0, "tune", run_dir=tmp_path / "run_tune", out=out, init=align)
    before, after = load_model(align), load_model(out)
    assert after.config.question_marks == question_marks(FastEncoder(tokenizer()))
    old = dict(before.compressor.named_parameters())
    moved = [name for name, parameter in after.compressor.named_parameters() if (parameter != old[name]).any()]
    assert "text_projection.0.weight" in moved
    images = [tmp_path / "data/images" / f"{number}.png" for number in (0, 1)]
    asked = ["What color is the image?", "Is it red?"]
    single = [ask(out, image, question, max_new_tokens=4).text for image, question in zip(images, asked, strict=True)]
    encoder, words = FastEncoder(tokenizer()), tokenizer()
    processor = Preprocessor.from_config(json.loads((out / "preprocessor_config.json").read_text()))
    levels = after.compressor.run_tower(after.model.vision_tower, torch.from_numpy(processor(images)))
    prompts = [[encode_question(question, encoder, after.config.image_token_id, image=True)] for question in asked]
    together = Greedy(after, encoder, 4).answer(levels, prompts)
    assert [words.decode(ids[0], skip_special_tokens=True).strip() for ids in together] == single

"""LLaVolta's Visual Context Compressor and stage arithmetic against numbers from the official code."""

import re

import pytest
import torch
from goldens import golden
from torch.nn.functional import avg_pool1d

from visiontokens.compress import MethodError, MethodSpec, Seq
from visiontokens.compress.schedule import PivotsExhausted, Schedule, Stage, official_forward_counting
from visiontokens.models.convert import from_official
from visiontokens.provenance import read_json

G = golden("llavolta")
LAYERS = G.manifest["config"]["language"]["num_hidden_layers"]
SCHEDULES = {k: v for k, v in read_json(G.folder / "schedule.json").items() if isinstance(v, dict)}
CASES = sorted({(int(m[1]), int(m[2])) for m in G.names(r"k(\d+)_s(\d+)\.logits")})
BATCH = {"input_ids": G["input_ids"], "attention_mask": G["attention_mask"]}
REAL = G["expanded_attention_mask"].bool()
IMAGES = G["pixel_values"][: len(REAL)]


def _spec(layer, stride):
    return MethodSpec(name="vcc", params={"layer": f"{layer}/{LAYERS}" if layer >= 0 else layer, "stride": stride})


@pytest.fixture(scope="module")
def model():
    return G.model(_spec(*CASES[0]))


@pytest.fixture
def at(model):
    """Switch the one model to a setting; back to its own afterwards."""

    def switch(layer, stride):
        model.compressor.set_stage(Stage(layer=f"{layer}/{LAYERS}" if layer >= 0 else layer, stride=stride))
        return model

    yield switch
    model.compressor.set_stage(None)


def _watch(model, layer):
    """Record what goes into and comes out of a decoder layer."""
    seen = {}

    def before(_, args, kwargs):
        seen.update(input=args[0], positions=kwargs["position_ids"])

    def after(_, __, output):
        seen["output"] = output

    stock = model.model.language_model.layers[layer]
    handles = [stock.register_forward_pre_hook(before, with_kwargs=True), stock.register_forward_hook(after)]
    return seen, handles


def _short(name):
    """Which slots of a shortened fixture row are real: official positions double as indices of the full row."""
    return REAL.gather(1, G[name])


@pytest.mark.parametrize(("layer", "stride"), CASES)
def test_pooling_case(at, layer, stride):
    case = f"k{layer}_s{stride}"
    model = at(layer, stride)
    model.zero_grad()
    seen, handles = _watch(model, layer)
    earlier, more = _watch(model, layer - 1)
    out = model(**BATCH, pixel_values=IMAGES, labels=G["labels"])
    for handle in handles + more:
        handle.remove()
    ok = _short(f"{case}.position_ids")
    assert torch.equal(seen["positions"][ok], G[f"{case}.position_ids"][ok])
    G.close(earlier["output"][REAL], G[f"{case}.hidden_before_pool"][REAL])
    G.close(seen["output"][ok], G[f"{case}.hidden_after_layer"][ok])
    labels = G["expanded_labels"].gather(1, seen["positions"])
    assert torch.equal(labels[ok], G[f"{case}.gathered_labels"][ok])
    G.close(_survivors(model, out.logits, stride)[ok], G[f"{case}.logits"][ok])
    G.close(out.loss, f"{case}.loss")
    out.loss.backward()
    named = dict(model.named_parameters())
    for match in G.names(rf"{case}\.grad\.(.+)"):
        G.close(named[from_official(f"model.{match[1]}")].grad, match[0])


def _survivors(model, logits, stride):
    """Pick the slots of the full-length logits that a pooled sequence leaves filled, row by row."""
    starts, count = G["image_start_index"], model.geometry.n_vision
    rows = []
    for row, start in zip(logits, starts, strict=True):
        pooled = torch.arange(start + stride - 1, start + count, stride)
        keep = torch.cat([torch.arange(start), pooled, torch.arange(start + count, len(row))])
        empty = torch.ones(len(row), dtype=torch.bool)
        empty[keep] = False
        assert not row[empty].any(), "slots of dropped tokens must hold zeros"
        rows.append(row[keep])
    return torch.stack(rows)


def test_without_pooling(at):
    for model in (at(0, 1), G.model(MethodSpec(name="none"))):
        with torch.no_grad():
            out = model(**BATCH, pixel_values=IMAGES, labels=G["labels"])
        G.close(out.logits[REAL], G["none.logits"][REAL])
        G.close(out.loss, "none.loss")


def test_image_features(model):
    tokens, _ = model.encode_images(G["pixel_values"])
    G.close(torch.stack(tokens), "image_features")


@pytest.mark.parametrize("match", G.names(r"km1_s(\d+)\.logits"), ids=lambda m: m[0])
def test_pooling_before_the_language_model(at, match):
    """Also right after another setting, where the official code trips over stale label indices."""
    at(*CASES[0])(**BATCH, pixel_values=IMAGES, labels=G["labels"])
    stride = int(match[1])
    model = at(-1, stride)
    seen, handles = _watch(model, 0)
    with torch.no_grad():
        out = model(**BATCH, pixel_values=IMAGES, labels=G["labels"])
    for handle in handles:
        handle.remove()
    lengths = G["attention_mask"].sum(1) - 1 + model.geometry.n_vision // stride
    ok = torch.arange(out.logits.shape[1]) < lengths[:, None]
    G.close(out.logits[ok], G[match[0]][ok])
    G.close(out.loss, f"km1_s{stride}.loss")
    want = G[f"km1_s{stride}.position_ids"].expand_as(seen["positions"])
    assert torch.equal(seen["positions"][ok], want[ok])


def test_two_images_in_a_row(at):
    found = re.search(r"images? \((\d+) and (\d+)\), k=(\d+), stride (\d+)", G.manifest["cases"]["two"])
    first, second, layer, stride = map(int, found.groups())
    model = at(layer, stride)
    seen, handles = _watch(model, layer)
    with torch.no_grad():
        out = model(input_ids=G["two.input_ids"], pixel_values=G["pixel_values"][[first, second]])
    for handle in handles:
        handle.remove()
    assert torch.equal(seen["positions"], G["two.position_ids"])
    filled = out.logits.abs().sum(-1)[0] > 0
    G.close(out.logits[:, filled], "two.logits")


@pytest.mark.parametrize("match", G.names(r"gen\.k(\d+)_s(\d+)\.new_ids"), ids=lambda m: m[0])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_cached_greedy_decoding(match, attention):
    layer, stride = int(match[1]), int(match[2])
    model = G.model(_spec(layer, stride), attention)
    ids, image, want = G["gen.input_ids"], G["pixel_values"][:1], G[match[0]]
    steps = match[0].replace("new_ids", "step_logits")
    out = model.generate(
        ids,
        pixel_values=image,
        max_new_tokens=len(want),
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    assert torch.equal(out.sequences[0, ids.shape[1] :], want)
    G.close(torch.cat(out.logits), steps)
    full, few = ids.shape[1] - 1 + model.geometry.n_vision, ids.shape[1] - 1 + model.geometry.n_vision // stride
    grown = len(want) - 1
    assert out.past_key_values.lengths() == [(full if i < layer else few) + grown for i in range(LAYERS)]
    for count in range(len(want)):  # recompute every step from nothing
        with torch.no_grad():
            again = model(input_ids=torch.cat([ids, want[None, :count]], 1), pixel_values=image, logits_to_keep=1)
        G.close(again.logits[0, -1], G[steps][count])


# -- where the official code is wrong and ours is right ------------------------------------------------------------


@pytest.mark.parametrize(("layer", "stride"), CASES)
def test_left_padding_pools_the_image_and_not_its_neighbours(at, layer, stride):
    """Officially the start index is not shifted by the padding on the left."""
    model = at(layer, stride)
    padding = (G["attention_mask"] == 0).sum(1).tolist()
    flip = {k: torch.stack([r.roll(p) for r, p in zip(v, padding, strict=True)]) for k, v in BATCH.items()}
    with torch.no_grad():
        right = model(**BATCH, pixel_values=IMAGES).logits
        left = model(**flip, pixel_values=IMAGES).logits
    for row, shift in enumerate(padding):
        G.close(left[row, shift:], right[row, : right.shape[1] - shift])
    tokens = model.generate(**flip, pixel_values=IMAGES, max_new_tokens=4, do_sample=False)[:, -4:]
    for row in range(len(padding)):
        ids = G["input_ids"][row][G["attention_mask"][row].bool()][None]
        alone = model.generate(ids, pixel_values=IMAGES[[row]], max_new_tokens=4, do_sample=False)[:, -4:]
        assert torch.equal(tokens[row], alone[0])


def _mixed(first):
    """A text-only row and an image row, in either order, padded on the right."""
    text, image = torch.tensor([1, 7, 22, 23, 24, 25]), G["input_ids"][0]
    rows = [text, image] if first == "text" else [image, text]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in rows], batch_first=True)
    return rows, ids, mask


@pytest.mark.parametrize("first", ["text", "image"])
def test_text_only_row_beside_an_image_row(at, first):
    """Officially a mask-size error, or one silent row made of the wrong tokens."""
    assert any("text-only" in text and "Error" in what for text, what in G.manifest["behaviours"].items())
    model = at(*CASES[-1])
    rows, ids, mask = _mixed(first)
    with torch.no_grad():
        both = model(input_ids=ids, attention_mask=mask, pixel_values=G["pixel_values"][:1]).logits
        for number, row in enumerate(rows):
            image = {"pixel_values": G["pixel_values"][:1]} if (row < 0).any() else {}
            alone = model(input_ids=row[None], **image).logits[0]
            G.close(both[number, : len(alone)], alone)


def test_text_only_batch_with_labels(at):
    ids = torch.tensor([[1, 7, 22, 23], [1, 9, 30, 31]])
    out = at(*CASES[0])(input_ids=ids, labels=ids)
    plain = G.model(MethodSpec(name="none"))(input_ids=ids, labels=ids)
    G.close(out.loss, plain.loss)


def test_rows_with_different_numbers_of_images(at):
    model = at(*CASES[-1])
    two, one = G["two.input_ids"][0], G["gen.input_ids"][0]
    with torch.no_grad():
        both = model(input_ids=torch.stack([two, one]), pixel_values=G["pixel_values"]).logits
        first = model(input_ids=two[None], pixel_values=G["pixel_values"][:2]).logits[0]
        second = model(input_ids=one[None], pixel_values=G["pixel_values"][2:]).logits[0]
    G.close(both[0], first)
    G.close(both[1, : len(second)], second)


def test_strides_that_do_not_divide_are_refused(at):
    """Officially the remainder of the image is dropped without a word."""
    with pytest.raises(MethodError, match="does not divide"):
        at(CASES[0][0], 5)


def test_layer_zero_is_refused_with_a_stride():
    """Officially decoding then feeds all generated tokens again at every step."""
    with pytest.raises(ValueError, match="needs layer >= 1"):
        _spec(0, 8)


def _positions(start, count, stride):
    """Pooled positions of an image of `count` tokens that starts at `start`, from our integer arithmetic."""
    pos = torch.arange(start, start + count)[None]
    rank = torch.arange(count)[None]
    seq = Seq(torch.zeros(1, count, 1), pos, pos - start, torch.zeros_like(pos), rank)
    return seq.merge(rank % stride == 0).pos[0]


@pytest.mark.parametrize("match", G.names(r"pool(\d+)\.start(\d+)\.stride(\d+)\.position_ids"), ids=lambda m: m[0])
def test_positions_are_exact_where_float16_rounds(match):
    count, start, stride = (int(match[i]) for i in (1, 2, 3))
    wrong = G.manifest["float16_position_pooling_mismatches_vs_exact_floor_CPU"][f"start{start}_stride{stride}"]
    ours, official = _positions(start, count, stride), G[match[0]]
    assert int((ours != official).sum()) == wrong
    assert torch.equal(ours, torch.arange(start, start + count).view(-1, stride).sum(1) // stride)


def test_float16_pooling_explains_every_counted_difference():
    count = int(G.names(r"pool(\d+)\..*")[0][1])
    for name, wrong in G.manifest["float16_position_pooling_mismatches_vs_exact_floor_CPU"].items():
        start, stride = map(int, re.fullmatch(r"start(\d+)_stride(\d+)", name).groups())
        half = torch.arange(start, start + count).half()[None, None]
        assert int((avg_pool1d(half, stride, stride)[0, 0].long() != _positions(start, count, stride)).sum()) == wrong


# -- stage arithmetic ----------------------------------------------------------------------------------------------


def _counted(entry, forwards):
    return official_forward_counting(entry["strides"], entry["layers"], entry["pivots"], forwards)


@pytest.mark.parametrize("name", [n for n, s in SCHEDULES.items() if "per_forward" in s])
def test_forward_counting_step_by_step(name):
    entry = SCHEDULES[name]
    for got, want in zip(_counted(entry, len(entry["per_forward"])), entry["per_forward"], strict=True):
        assert [got.layer, got.stride] == [want["used_layer"], want["used_stride"]]
        after = [got.next_layer, got.next_stride, got.next_pivot, got.next_counter]
        assert after == [want[f"{key}_after"] for key in ("layer", "stride", "pivot", "counter")]


@pytest.mark.parametrize("name", [n for n, s in SCHEDULES.items() if "stages" in s])
def test_forward_counting_stages(name):
    entry = SCHEDULES[name]
    stages, forward = [], -1
    try:
        for forward, state in enumerate(_counted(entry, entry["forwards_simulated"])):
            if not stages or [state.layer, state.stride] != [stages[-1]["layer"], stages[-1]["stride"]]:
                stages.append({"first_forward": forward, "layer": state.layer, "stride": state.stride})
        assert entry["error"] is None
    except PivotsExhausted as err:
        assert f"forward {entry['error']['forward']}:" in str(err)
        assert forward + 1 == entry["error"]["forward"]
    assert stages == entry["stages"]


def test_a_pivot_of_zero_is_refused():
    assert any("pivot stays 0" in text and "ZeroDivision" in what for text, what in G.manifest["behaviours"].items())
    with pytest.raises(ValueError, match="pivot of 0"):
        list(official_forward_counting([8, 1], [2, 0], [0], 2))


@pytest.mark.parametrize("name", [n for n, s in SCHEDULES.items() if "sequence_length_and_loss_per_forward" in s])
def test_sequence_length_and_loss_at_every_forward(at, name):
    entry = SCHEDULES[name]
    recorded = entry["sequence_length_and_loss_per_forward"]
    for state, (length, loss) in zip(_counted(entry, len(recorded)), recorded, strict=True):
        model = at(state.layer, state.stride)
        seen, handles = _watch(model, LAYERS - 1)
        with torch.no_grad():
            out = model(**BATCH, pixel_values=IMAGES, labels=G["labels"])
        for handle in handles:
            handle.remove()
        assert seen["output"].shape[1] == length
        G.close(out.loss, torch.tensor(loss))


def test_our_stage_depends_on_the_step_alone():
    """Resuming at any step continues the schedule; generating and evaluating do not move it."""
    schedule = Schedule(
        stages=(Stage(layer="2/32", stride=8, until=0.25), Stage(layer="2/32", stride=2, until=0.5),
                Stage(layer="16/32", stride=2, until=0.75), Stage(until=1.0))
    )  # fmt: skip
    total = 5198
    whole = [schedule.index_at(step, total) for step in range(total)]
    resumed = [schedule.index_at(step, total) for step in range(3000, total)]
    assert whole[3000:] == resumed
    assert [whole.count(i) for i in range(4)] == [1300, 1299, 1300, 1299]


def test_generating_and_evaluating_do_not_move_the_stage(at):
    model = at(*CASES[0])
    stage = model.compressor.stage
    model.generate(G["gen.input_ids"], pixel_values=G["pixel_values"][:1], max_new_tokens=5, do_sample=False)
    model(**BATCH, pixel_values=IMAGES)
    assert model.compressor.stage is stage

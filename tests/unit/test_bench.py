"""The benchmark: both sides compute the same thing, run in turns, and the records say where and with what."""

import csv
from dataclasses import replace

import pytest
import torch
from tiny_llava import spec

from visiontokens.compress.base import Compressor
from visiontokens.measure import bench as module
from visiontokens.measure.answers import AnswerLoad, Answers, check_identical
from visiontokens.measure.bench import SIZES, Bench, BenchSize, Pair, in_turns, run_bench
from visiontokens.measure.flops import LlamaShape, prefill_flops
from visiontokens.measure.geometry import around, random_stock
from visiontokens.measure.mixed import IMAGES, mixed_prompts, together
from visiontokens.measure.outside import before_decoder, tower_steps
from visiontokens.models.tiny import TowerDims
from visiontokens.report.bench import COLUMNS, write_bench

CPU = torch.device("cpu")
TINY = BenchSize(
    "tiny", LlamaShape(hidden=32, layers=4, heads=4, kv_heads=4, mlp=64, vocab=90), text_tokens=10, train_text=12,
    train_batch=2, decode_tokens=2, repeats=2, warmup=1,
    tower=TowerDims(hidden=16, layers=4, heads=2, mlp=32, image_size=24, patch_size=2),
    answers=AnswerLoad(images=2, questions=3, front=4, longest=15, new_tokens=3, alone=2, repeats=1, warmup=0),
)  # fmt: skip


@pytest.fixture(scope="module")
def bench():
    return Bench(TINY, CPU, torch.float32)


@pytest.fixture(scope="module")
def plain(bench):
    """Our model without compression."""
    return around(bench.stock, spec("none"))


def test_both_sides_hold_the_same_weights(bench, plain):
    ours = dict(plain.named_parameters())
    for name, parameter in bench.stock.named_parameters():
        assert ours[name].data_ptr() == parameter.data_ptr(), name
    assert not bench.stock.model.language_model.norm.weight.sub(1).any()


def test_stock_side_is_the_stock_forward(bench, plain):
    """Embedding given features equals the stock forward from pixels, and our prefill without compression."""
    pixels = torch.randn(1, 3, 24, 24)
    inputs = bench.inputs(plain, 1, TINY.text_tokens)
    with torch.no_grad():
        states = bench.stock.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        inputs["vision_levels"] = {bench.default_level: states[bench.default_level][:, 1:]}
        ids = bench.widen(inputs["input_ids"], inputs["input_ids"], bench.stock.config.image_token_id)
        wanted = bench.stock(input_ids=ids, pixel_values=pixels).logits[:, -1]
        found = bench.stock(inputs_embeds=bench.embed(inputs), logits_to_keep=1).logits[:, 0]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(plain.prefill(**inputs).logits, wanted, atol=1e-5, rtol=1e-4)


def test_training_sides_have_the_same_loss(bench, plain):
    inputs = bench.inputs(plain, 2, TINY.train_text)
    labels = inputs["input_ids"].clone()
    labels[:, :-6] = -100
    wide = bench.widen(inputs["input_ids"], labels, -100)
    with torch.no_grad():
        wanted = bench.stock(inputs_embeds=bench.embed(inputs), labels=wide).loss
        found = plain.train()(**inputs, labels=labels).loss
    plain.eval()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_ideal_is_the_ratio_of_counted_flops(bench):
    quarter = around(bench.stock, spec("avgpool"))
    full = prefill_flops(TINY.shape, [144.0] * 4, 10) + bench.projector_flops
    assert bench.flops(None, 10, 1) == full
    few = prefill_flops(TINY.shape, [36.0] * 4, 10) + quarter.compressor.extra_flops(144, 10)
    assert bench.flops(quarter, 10, 1) == few


def test_outside_stops_in_front_of_the_decoder_and_leaves_no_hook(bench, plain):
    inputs = bench.inputs(plain, 1, TINY.text_tokens)
    layers = plain.model.language_model.layers
    calls = []
    handle = layers[0].register_forward_hook(lambda *_: calls.append("layer"))
    before_decoder(plain, inputs)()
    assert not calls
    plain.prefill(**inputs)
    handle.remove()
    assert calls == ["layer"]
    with pytest.raises(ValueError, match="holds no image"):
        before_decoder(plain, {"input_ids": inputs["input_ids"][:, :1]})()


@pytest.mark.parametrize("name", ["none", "avgpool", "vcc", "kmeans"])
def test_the_mixed_batch_answers_as_its_prompts_do_alone(bench, name):
    model = around(bench.stock, spec(name))
    rows = mixed_prompts(model, lambda images, text: bench.inputs(model, images, text), TINY.text_tokens)
    assert [int((row["input_ids"] == model.config.image_token_id).sum()) for row in rows] == list(IMAGES)
    batch = together(rows)
    alone = torch.cat([model.prefill(**row).logits for row in rows])
    torch.testing.assert_close(model.prefill(**batch).logits, alone, atol=2e-4, rtol=1e-3)


def test_a_method_in_the_tower_is_timed_there(bench, monkeypatch):
    model, pixels = around(bench.stock, spec("avgpool")), bench.answers.pixels[:1]
    assert tower_steps(model, pixels) is None
    passes = []

    def slower(self, tower, given):
        passes.append("own")
        return Compressor.run_tower(self, tower, given)

    monkeypatch.setattr(type(model.compressor), "run_tower", slower)
    with_method, without = tower_steps(model, pixels)
    assert with_method().keys() == without().keys()
    assert passes == ["own"]


def test_rounds_take_turns_and_are_paired():
    calls = []
    pair = in_turns(lambda: calls.append("o"), lambda: calls.append("s"), CPU, repeats=3, warmup=1)
    assert "".join(calls) == "soossoos" and len(pair.ours) == len(pair.stock) == 3
    assert Pair([1.0, 2.0, 4.0], [2.0, 6.0, 8.0]).speedup == 2.0
    with pytest.raises(ValueError, match="found 0, 1, expected at least 1 and 0"):
        in_turns(list, list, CPU, repeats=0, warmup=1)


@pytest.mark.parametrize("name", ["none", "avgpool", "vcc", "fastv", "stf_mbtf"])
def test_every_record_is_whole(bench, name):
    record = bench.measure(name, spec(name))
    for what in ("prefill", "decode", "train"):
        assert record[f"{what}_ms"] > 0 and record[f"stock_{what}_ms"] > 0
        assert record[f"{what}_share"] == pytest.approx(record[f"{what}_speedup"] / record[f"{what}_ideal"])
    assert record["outside_ms"] > 0 and record["outside_share"] == record["outside_ms"] / record["prefill_ms"]
    assert record["tower_overhead_ms"] == 0 and record["mixed_ms"] > 0 and record["mixed_speedup"] > 0
    assert record["prefill_ideal"] == pytest.approx(1.0) if name == "none" else record["prefill_ideal"] > 1
    assert set(COLUMNS) <= record.keys()
    assert not [p for p in bench.stock.parameters() if p.requires_grad or p.grad is not None]


@pytest.fixture(scope="module")
def answers():
    """Questions for weights that are large enough for answers to depend on all of the prompt."""
    stock = random_stock(TINY.shape, CPU, torch.float32, TINY.tower)
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.mul_(12 if parameter.ndim > 1 else 1)
    return Answers(stock, TINY.answers)


def test_stock_generate_and_the_evaluation_path_answer_alike(answers):
    model = around(answers.stock, spec("none"))
    levels = answers.levels(model)
    found = answers.together(model, levels)
    assert found == answers.by_stock(answers.flat)
    assert {len(answer) for answer in found} == {TINY.answers.new_tokens} and len(found) == 6
    other = {level: values.flip(0) for level, values in levels.items()}
    assert answers.together(model, other) != found, "answers do not depend on the image: their equality says nothing"


@pytest.mark.parametrize("name", ["none", "avgpool", "vcc", "fastv", "kmeans", "stf_mbtf"])
def test_answers_do_not_depend_on_their_neighbours(answers, name):
    model = around(answers.stock, spec(name))
    record = answers.measure(model)
    assert record["answers_identical_fp32"] == 1
    assert record["answers_questions"] == 6 and record["answers_per_image"] == 3
    assert record["answers_s"] > 0 and record["answers_speedup"] > 0 and record["answers_batching"] > 0
    half = record["answers_identical_bf16"]
    assert half is None or 0 <= half <= 1


def test_answers_that_differ_are_an_error(answers, monkeypatch):
    model = around(answers.stock, spec("none"))
    right = answers.together(model, answers.levels(model))
    monkeypatch.setattr(answers, "together", lambda *_: [[0], *right[1:]])
    share = answers.identical(model, answers.levels(model))
    assert share["answers_identical_fp32"] == pytest.approx(5 / 6)
    with pytest.raises(ValueError, match=r"in float32: expected 1, found bad 0\.833$"):
        check_identical([{"method": "bad", **share}, {"method": "half", "answers_identical_fp32": None}])


def test_page_and_csv(bench, tmp_path, monkeypatch):
    monkeypatch.setitem(module.SIZES, "cpu", TINY)
    records = run_bench("cpu", [("none", spec("none")), ("avgpool", spec("avgpool"))], repeats=1)
    page = write_bench(records, tmp_path).read_text()
    with (tmp_path / "tiny.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["method"] for row in rows] == ["none", "avgpool"]
    assert all(row["device"] and row["date"] and "torch" in row["versions"] for row in rows)
    assert "| avgpool" in page and rows[0]["device"] in page and "of ideal" in page


def test_impossible_benchmarks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="found '70b', expected auto, 7b, 13b, cpu"):
        run_bench("70b", [])
    with pytest.raises(ValueError, match="expected at least one method"):
        write_bench([], tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="geometry '7b' needs a GPU"):
            run_bench("7b", [])


def test_shipped_sizes_have_24_by_24_patches():
    assert {size.tower.grid for size in SIZES.values()} == {24}
    assert replace(SIZES["7b"], repeats=3).shape.layer_flops == pytest.approx(404.75e6, rel=1e-4)

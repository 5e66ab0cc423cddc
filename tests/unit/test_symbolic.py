"""Symbolic scenes, packed turns and the mini LLM's pretraining."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from visiontokens.data.miniworld.phrases import LETTER_ANSWER, LETTER_ANSWER_CN, MAY_REFUSE, SHORT_ANSWER
from visiontokens.data.miniworld.scenes import COLORS, SHAPES, Scenes
from visiontokens.data.miniworld.tokenizer import build_tokenizer
from visiontokens.models.tiny import SMOKE_LLM
from visiontokens.train.backbones.llm import Batch, Pretraining, make_batch
from visiontokens.train.backbones.pixels import PixelEmbedding
from visiontokens.train.backbones.plan import MINI_PLAN, Phase, Plan
from visiontokens.train.backbones.reader import SceneReader, grow, new_reader
from visiontokens.train.backbones.symbolic import SymbolicEmbedding, complete, symbolise
from visiontokens.train.backbones.turns import CAPTION, IGNORED, TEXT, Mix, draw_turns, pack

TOWER = Path(__file__).parents[2] / "data/backbones/tower"
PLAN = Plan(
    phases=(
        Phase(4, 2e-3, (4,), layers=2, turns=3, batch_size=4),
        Phase(4, 2e-3, (4, 12), layers=4, turns=3, batch_size=4),
        Phase(2, 1e-3, (12, 24), layers=4, turns=3, batch_size=2, pixels=True),
    ),
    dims=SMOKE_LLM,
    held_out=4,
    precision="fp32",
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes.sample(60, 5, "train", plate=0.9)


@pytest.mark.parametrize("grid", [4, 8, 12, 24])
def test_cells_say_what_is_there(scenes: Scenes, grid: int) -> None:
    chosen = scenes.select(complete(scenes, grid))
    assert len(chosen) > 40
    laid = symbolise(chosen, grid)
    assert laid.grid == grid
    for i, scene in enumerate(chosen):
        shown = {(int(c) - 1, int(s) - 1) for c, s, *_ in laid.objects[i] if c}
        assert shown == {(COLORS.index(o.color), SHAPES.index(o.shape)) for o in scene.objects}
        for obj in scene.objects:
            home = obj.y * grid // 96 * grid + obj.x * grid // 96
            assert laid.objects[i, home, 0] > 0
        assert (laid.digits[i] > 0).any() == (scene.number is not None)


@pytest.mark.parametrize("grid", [4, 8, 12, 24])
def test_digits_read_from_left_to_right(scenes: Scenes, grid: int) -> None:
    laid = symbolise(scenes, grid)
    for i, scene in enumerate(scenes):
        columns: dict[int, list[int]] = {}
        for cell in np.flatnonzero(laid.slots[i]):
            columns.setdefault(int(laid.slots[i, cell]), []).append(int(cell) % grid)
        read = [{int(d) for d in laid.digits[i][laid.slots[i] == slot]} for slot in sorted(columns)]
        assert read == [{1 + int(d)} for d in scene.number or ""]
        middles = [np.mean(columns[slot]) for slot in sorted(columns)]
        assert middles == sorted(set(middles))


def test_blur_takes_out_digits_then_texture_then_shape() -> None:
    sharp = Scenes.sample(200, 6, "train", plate=1.0)
    for sigma, left in ((0.0, (1, 1, 1, 1)), (1.1, (1, 1, 1, 0)), (4.0, (1, 0, 0, 0))):
        laid = symbolise(dataclasses.replace(sharp, blur=np.full(200, sigma, np.float32)), 12)
        assert tuple(int(laid.objects[..., a].any()) for a in range(4)) == left
        legible = sigma < 0.15 * sharp.digit_px
        assert ((laid.digits > 0).any(1) == legible).all()
        assert laid.sign.any(1).all()


def test_grid_must_divide_the_finest(scenes: Scenes) -> None:
    with pytest.raises(ValueError, match="grid: found 5, expected a divisor of 24"):
        symbolise(scenes, 5)


def test_embedding_is_the_sum_of_words_and_codes(tokenizer: PreTrainedTokenizerFast, scenes: Scenes) -> None:
    codes, words = SymbolicEmbedding(tokenizer, 8), torch.randn(len(tokenizer), 8)
    laid = symbolise(scenes, 24)
    cells = codes(laid, words, torch.zeros(len(scenes)))
    i, cell = (int(v) for v in np.argwhere(laid.objects[..., 0] > 0)[0])
    scene = scenes[i]
    obj = next(o for o in scene.objects if COLORS.index(o.color) + 1 == laid.objects[i, cell, 0])
    ids = tokenizer.convert_tokens_to_ids([obj.color, obj.shape, obj.size, obj.texture])
    expected = words[ids].sum(0) + codes.positions(24)[cell]
    torch.testing.assert_close(cells[i, cell], expected)
    ordered = codes(laid, words, torch.ones(len(scenes))) - cells
    assert (ordered.abs().sum(-1) > 0).numpy().tolist() == (laid.slots > 0).tolist()


def test_coarse_positions_are_means_of_fine_ones(tokenizer: PreTrainedTokenizerFast) -> None:
    codes = SymbolicEmbedding(tokenizer, 8)
    fine = codes.positions(24).unflatten(0, (24, 24))
    coarse = codes.positions(4).unflatten(0, (4, 4))
    torch.testing.assert_close(coarse[1, 2], fine[6:12, 12:18].mean((0, 1)))


def _batch(tokenizer: PreTrainedTokenizerFast, turns: int = 4) -> Batch:
    phase = Phase(1, 1e-3, (4,), layers=2, turns=turns, batch_size=3, captioned=0.5)
    return make_batch(tokenizer, PLAN, phase, grid=4, split="train", key=(1, 2))


def _reader(tokenizer: PreTrainedTokenizerFast) -> SceneReader:
    return new_reader(tokenizer, SMOKE_LLM, 2, channels=8)


def _logits(reader: SceneReader, batch: Batch) -> torch.Tensor:
    return reader(reader.look(batch.scenes, batch.grid, batch.ordered), batch.system, batch.packed)


def test_packed_turns_equal_single_turns(tokenizer: PreTrainedTokenizerFast) -> None:
    """The logits of a turn among others are those of the turn alone; text-only turns ignore the scene."""
    torch.manual_seed(0)
    reader = _reader(tokenizer).eval()
    scenes, rng = Scenes.sample(1, 3, "train"), np.random.default_rng(4)
    other = Scenes.sample(1, 4, "train")
    weights = {TEXT: 1.0, "color": 1.0, "exist": 1.0}
    turns = draw_turns(scenes[0], rng, tokenizer, n=6, captioned=True, mix=Mix(weights=weights))
    assert {turn.family for turn in turns} >= {TEXT, CAPTION}
    system, ordered = tokenizer("USER:", return_tensors="pt").input_ids[0], torch.ones(1)
    families = (*weights, CAPTION)

    def logits(seen: Scenes, chosen: list) -> torch.Tensor:
        packed = pack([chosen], families, system=len(system), scene=16, caption_weight=0.3, pad=3)
        with torch.no_grad():
            return reader(reader.look(seen, 4, ordered), system, packed)

    together = logits(scenes, turns).split([len(turn.answer) for turn in turns])
    for turn, among in zip(turns, together, strict=True):
        torch.testing.assert_close(among, logits(scenes, [turn]), atol=1e-5, rtol=1e-4)
        unmoved = torch.allclose(among, logits(other, [turn]), atol=1e-5)
        assert unmoved == (turn.family == TEXT)


def test_packed_attention_equals_the_stock_one(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    reader, batch = _reader(tokenizer), _batch(tokenizer)
    ours = _logits(reader, batch)
    reader.llm.set_attn_implementation("sdpa")
    torch.testing.assert_close(ours, _logits(reader, batch))


def test_labels_are_the_answers_and_nothing_else(tokenizer: PreTrainedTokenizerFast) -> None:
    packed = _batch(tokenizer).packed
    for ids, labels, first in zip(packed.input_ids, packed.labels, packed.first, strict=True):
        starts = [int(place) for place in np.flatnonzero(first >= 0)]
        assert [tokenizer.decode(ids[place]) for place in starts] == ["ASSISTANT:"] * len(starts)
        for place in starts:
            said = labels[place : place + 200].tolist()
            answer = said[: said.index(tokenizer.eos_token_id) + 1]
            assert ids[place + 1 : place + len(answer)].tolist() == answer[:-1]
        assert (labels == tokenizer.eos_token_id).sum() == len(starts)
    assert packed.weights[packed.labels == IGNORED].sum() == 0
    assert {round(w, 2) for w in packed.weights.unique().tolist()} == {0.0, 0.3, 1.0}


def test_instructions_follow_the_kind_of_question(tokenizer: PreTrainedTokenizerFast) -> None:
    rng, seen = np.random.default_rng(0), Counter()
    for scene in Scenes.sample(60, 8, "train"):
        for turn in draw_turns(scene, rng, tokenizer, n=10, captioned=False, mix=Mix(chinese=0.3, choice=0.4)):
            text, answer = tokenizer.decode(turn.prompt), tokenizer.decode(turn.answer[:-1])
            letters = "\nA. " in text
            assert letters == (LETTER_ANSWER in text or LETTER_ANSWER_CN in text)
            assert not letters or answer in "ABCD"
            assert answer != "unanswerable" or MAY_REFUSE in text
            assert text.startswith("\n") == (turn.family != TEXT)
            assert text.endswith("ASSISTANT:")
            seen.update([name for name in (SHORT_ANSWER, LETTER_ANSWER, LETTER_ANSWER_CN, MAY_REFUSE) if name in text])
    assert len(seen) == 4


def test_growing_keeps_the_function(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(1)
    reader, batch = _reader(tokenizer), _batch(tokenizer)
    before = _logits(reader, batch)
    grow(reader, 4)
    assert reader.llm.config.num_hidden_layers == len(reader.llm.model.layers) == 4
    torch.testing.assert_close(_logits(reader, batch), before)
    with pytest.raises(ValueError, match="layers: found 6, expected a multiple of the present 4"):
        grow(reader, 6)


def test_stopped_run_continues_to_the_same_weights(tmp_path: Path) -> None:
    whole = Pretraining(PLAN, tmp_path / "whole", TOWER)
    whole.run(save_every=1)
    broken = Pretraining(PLAN, tmp_path / "broken", TOWER)
    state = tmp_path / "broken" / "state.pt"
    saved = broken.save_state

    def save_then_die(with_optimizer: bool = True) -> None:
        saved(with_optimizer)
        if (broken.phase, broken.step) == (1, 2):
            raise KeyboardInterrupt

    broken.save_state = save_then_die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.run(save_every=1)
    assert state.exists()
    resumed = Pretraining(PLAN, tmp_path / "broken", TOWER)
    assert (resumed.phase, resumed.step) == (1, 2)
    resumed.run(save_every=1)
    for name, value in whole.reader.state_dict().items():
        torch.testing.assert_close(resumed.reader.state_dict()[name], value, msg=name)


def test_export_loads_with_the_auto_classes(tmp_path: Path) -> None:
    run = Pretraining(PLAN, tmp_path / "run", TOWER)
    run.phase = len(PLAN.phases)
    record = run.export(tmp_path / "out")
    model, info = LlamaForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (model.config.vocab_size, model.config.pad_token_id) == (len(tokenizer), tokenizer.pad_token_id)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert set(record["held_out_first_answer_accuracy"]) == {"4x4", "12x12", "12x12 pixels", "24x24 pixels"}
    assert 0 <= record["held_out_first_answer_accuracy"]["4x4"]["mean"] <= 1


def test_pixels_are_averaged_over_windows_after_the_projector() -> None:
    pixels = PixelEmbedding(channels=3, hidden=5)
    features = torch.randn(2, 36, 3)
    cells = pixels(features, 3)
    assert cells.shape == (2, 9, 5)
    block = features.unflatten(1, (6, 6))[1, 2:4, 4:6].flatten(0, 1)
    torch.testing.assert_close(cells[1, 5], pixels.projector(block).mean(0))
    with pytest.raises(ValueError, match="grid: found 4, expected a divisor of 6"):
        pixels(features, 4)


def test_pixel_phases_look_at_the_scene_and_train_the_projector(tmp_path: Path) -> None:
    run = Pretraining(PLAN, tmp_path, TOWER)
    before = run.reader.pixels.projector[0].weight.detach().clone()
    batch = make_batch(run.tokenizer, PLAN, PLAN.phases[2], grid=12, split="train", key=(2, 0))
    seen = run.logits(batch)
    other = dataclasses.replace(batch, scenes=batch.scenes.select(np.array([1, 0])))
    assert not torch.allclose(seen, run.logits(other))
    run.phase = 2
    run.run()
    assert not torch.equal(run.reader.pixels.projector[0].weight, before)


def test_the_shipped_plan_ends_on_long_and_short_grids_of_pixels() -> None:
    assert MINI_PLAN.phases[-1].pixels and set(MINI_PLAN.phases[-1].grids) == {12, 24}

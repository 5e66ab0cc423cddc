"""The papers' sizes from the real modules, without weights: parameters, FLOPs, memory."""

import pytest
import torch

from visiontokens.analyze.reference import reference
from visiontokens.compress import Geometry, MethodSpec
from visiontokens.measure.capacity import BUCKET, activations, capacity, layer_bytes, saved_bytes
from visiontokens.measure.flops import VICUNA_7B, VICUNA_13B, LlamaShape, llavolta_tflops, prefill_flops
from visiontokens.measure.geometry import SHAPES, meta_model
from visiontokens.measure.memory import parameter_count
from visiontokens.measure.tokens import stage_mean, total_tokens
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.report.capacity import capacity_table
from visiontokens.train.stages import load_schedule

GIB = 2**30
LLM = {"7b": 6_738_415_616, "13b": 13_015_864_320}
TOWER = 303_507_456
VOLTA_5 = {"(2,8)": (2, 8), "(2,4)": (2, 4), "(2,2)": (2, 2), "(16,8)": (16, 8), "(16,4)": (16, 4), "(16,2)": (16, 2)}


@pytest.fixture(scope="module")
def models():
    """Return models on the meta device by method file and size, each built once."""
    built: dict[tuple[str, str], LlavaWithCompressor] = {}

    def model(name="none", size="7b"):
        if (name, size) not in built:
            built[name, size] = meta_model(SHAPES[size], MethodSpec.from_yaml(f"config/methods/{name}.yaml"))
        return built[name, size]

    return model


@pytest.mark.parametrize("size", ["7b", "13b"])
def test_backbones_have_their_published_sizes(models, size):
    model = models(size=size)
    assert all(p.device.type == "meta" for p in model.parameters())
    assert parameter_count(model.model.language_model) + parameter_count(model.lm_head) == LLM[size]
    assert parameter_count(model.model.vision_tower) == TOWER


@pytest.mark.parametrize(
    ("name", "size", "projector", "compressor"),
    [
        ("none", "7b", 20_979_712, 0),
        ("mbtf", "7b", 20_979_712, 37_753_856),
        ("stf", "7b", 134_238_208, 0),
        ("stf-mbtf", "7b", 134_238_208, 37_753_856),
        ("none", "13b", 31_467_520, 0),
        ("stf-13b", "13b", 188_769_280, 0),
        ("stf-mbtf-13b", "13b", 188_769_280, 20_976_640),
    ],
)
def test_connectors_have_their_published_sizes(models, name, size, projector, compressor):
    model = models(name, size)
    assert parameter_count(model.model.multi_modal_projector) == projector
    assert parameter_count(model.compressor) == compressor


def test_13b_uses_its_own_widths_and_blocks(models):
    """Width 4 x 5120 and every sixth block, as the path names of the released evaluation scripts say."""
    model = models("stf-mbtf-13b", "13b")
    assert model.compressor.projector_sizes() == (4096, 20480, 5120)
    assert model.compressor.levels == (6, 12, 18, 23)
    assert model.compressor.tokens_per_layer(576, 40) == [144.0] * 40


def test_law_reproduces_all_rows_of_llavoltas_table_5():
    """0.80 + 404.75e-6 x #Tokens, with the tokens of the real method files at 7B."""
    geometry = Geometry(1024, 24, (24, 24), VICUNA_7B.hidden, VICUNA_7B.layers)
    table = reference("volta", "5")
    printed = {(row["row"], row["column"]): row["value"] for _, row in table.iterrows()}
    rows = [*VOLTA_5, "No compression"]
    assert sorted(dict.fromkeys(table["row"])) == sorted(rows)
    for row in rows:
        name = "none" if row == "No compression" else "vcc-{}-{}".format(*VOLTA_5[row])
        compressor = MethodSpec.from_yaml(f"config/methods/{name}.yaml").build(geometry)
        tokens = total_tokens(compressor.tokens_per_layer(576, 32))
        assert tokens == printed[row, "tokens"]
        assert llavolta_tflops(tokens) == pytest.approx(printed[row, "tflops"], abs=0.01)


def test_the_law_is_the_real_modules(models):
    """Its slope is what a 7B layer's matrices cost, and its constant some sixty text tokens with the output head."""
    layer = models().model.language_model.layers[0]
    weights = sum(p.numel() for p in layer.parameters() if p.ndim == 2)
    assert 2 * weights == VICUNA_7B.layer_flops == pytest.approx(404.75e6, rel=1e-4)
    text = prefill_flops(VICUNA_7B, [0.0] * 32, 61, attention=False, head="all") / 1e12
    assert text == pytest.approx(0.80, abs=0.01)
    shape = LlamaShape.of(models(size="13b").config.text_config)
    assert shape == VICUNA_13B


def test_13b_token_counts_follow_its_depth(models):
    """LLaVolta's Table 6 reuses 32-layer counts; 40 layers give 13,500 of 23,040 for deeper-then-wider, 170.7%."""
    schedule = load_schedule("four-deeper-wider-13b", "config/schedules")
    stages = [(stage.layer.at(40), stage.stride) for stage in schedule.stages]
    assert stages == [(2, 8), (16, 8), (16, 2), (0, 1)]
    assert stage_mean(stages, [1, 1, 1, 1], 576, 40) == 13_500
    assert total_tokens(models(size="13b").compressor.tokens_per_layer(576, 40)) == 23_040


def plan(model, **changes):
    settings = {"gpus": 8, "zero": 3, "micro_batch": 16, "text_tokens": 200, "checkpointing": True}
    stage = changes.pop("stage", "tune")
    return capacity(model, stage, **{**settings, **changes})


def test_shards_by_zero_stage(models):
    """Full fine-tuning of 7B needs 16 bytes a trained weight; each ZeRO stage shards one more part of them."""
    model = models()
    everything, trained = parameter_count(model), parameter_count(model) - TOWER
    plans = [plan(model, zero=zero) for zero in range(4)]
    assert [p.weights for p in plans] == [2 * everything] * 3 + [2 * everything / 8]
    assert [p.gradients for p in plans] == [2 * trained] * 2 + [2 * trained / 8] * 2
    assert [p.states for p in plans] == [12 * trained, *[12 * trained / 8] * 3]
    assert [p.buffers for p in plans][:3] == [0, BUCKET, BUCKET]
    assert plans[3].buffers == 2 * 2 * parameter_count(model.model.language_model.layers[0])
    assert all(p.total == sum(vars(p).values()) for p in plans)
    align = plan(model, stage="align", zero=0)
    assert (align.gradients, align.states) == (2 * 20_979_712, 12 * 20_979_712)


def test_the_published_runs_fit_their_gpus(models):
    """LLaVolta trained 7B on eight GPUs of 48 GiB; one GPU of 80 GiB cannot hold full fine-tuning."""
    assert plan(models()).total < 48 * GIB
    assert plan(models(), gpus=1).total > 80 * GIB
    assert plan(models(), checkpointing=False).activations > 5 * plan(models()).activations


def test_compression_shrinks_activations_in_step_with_tokens(models):
    def grow(name):
        return activations(models(name), 4, 56, checkpointing=False)

    full, quarter = grow("none"), grow("avgpool")
    assert quarter / full == pytest.approx((144 + 56) / (576 + 56), rel=0.05)


def test_a_layers_activations_are_what_autograd_keeps(models):
    """Linear in tokens, between the textbook 34 bytes and twice that per token and channel; equal on a real device."""
    layer = models().model.language_model.layers[0]
    one = layer_bytes(layer, 100)
    assert layer_bytes(layer, 300) == pytest.approx(3 * one, rel=1e-3)
    assert 34 < one / 100 / 4096 < 68


def test_saved_bytes_count_storage_once():
    weight = torch.randn(8, 8, requires_grad=True)
    x = torch.randn(4, 8, requires_grad=True)
    assert saved_bytes(lambda: torch.exp(x @ weight), ignore=[weight]) == 4 * (32 + 32)
    assert saved_bytes(lambda: (x @ weight) * x.view(8, 4).view(4, 8), ignore=[weight]) == 4 * (32 + 32)


def test_table_has_a_line_per_stage_and_a_column_per_gpu_count():
    table = capacity_table(sizes=("7b",)).frame
    assert list(table["Stage"]) == ["align", "tune", "tune"] * 2
    numbers = table.loc[table["Stage"] == "tune", ["1 GPU", "2 GPUs", "8 GPUs", "16 GPUs"]].astype(float)
    assert (numbers.diff(axis=1).iloc[:, 1:] < 0).all(axis=None)


def test_impossible_plans_are_refused(models):
    with pytest.raises(ValueError, match=r"found 4, 8, 16, expected 0\.\.3"):
        plan(models(), zero=4)

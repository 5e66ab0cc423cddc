"""Checkpoints in and out: exact both ways in every layout, and refused by name when they are not whole."""

import json
import subprocess
import sys

import pytest
import torch
from checkpoints import clip, official, projector, same, tensors
from safetensors.torch import save_file
from tiny_home import make_home, weights
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from visiontokens.cli import main
from visiontokens.models.build import CheckpointError, load_model, weights_hash
from visiontokens.models.convert import convert
from visiontokens.models.convert.files import PIECE, Checkpoint
from visiontokens.models.convert.plan import expected_shapes
from visiontokens.models.convert.settings import CLIP_L
from visiontokens.models.convert.shards import with_rows, write_safetensors
from visiontokens.provenance import sha256_file

SHARD = 20_000


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"), ("none", "stf_mbtf"))


@pytest.mark.parametrize(("tower", "binary"), [(True, False), (True, True), (False, False)])
def test_llava_goes_to_transformers_and_back_bit_by_bit(home, tmp_path, tower, binary):
    source = official(home, tmp_path / "source", tower=tower, binary=binary)
    towers = clip(home, tmp_path / "clip")
    done = convert(source, tmp_path / "ours", tower=towers, shard_bytes=SHARD)
    assert (done.source_format, done.target_format, done.method.name) == ("llava", "ours", "none")
    assert len(done.files) > 2
    index = json.loads((tmp_path / "ours/model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(done.files)
    stock, info = LlavaForConditionalGeneration.from_pretrained(
        tmp_path / "ours", dtype=torch.float32, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    want = load_model(weights(home)).state_dict()
    for name, value in stock.state_dict().items():
        exact = want[name] if not tower and "vision_tower" in name else want[name].half().float()
        assert torch.equal(value, exact), name
    convert(tmp_path / "ours", tmp_path / "back", target="llava", shard_bytes=SHARD)
    assert same(tensors(tmp_path / "back"), tensors(source))
    assert json.loads((tmp_path / "back/config.json").read_text())["model_type"] == "llava_llama"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("binary", [False, True])
def test_stf_is_told_by_its_crosslayer_keys(home, tmp_path, binary):
    source = official(home, tmp_path / "source", "stf_mbtf", binary=binary)
    assert "crosslayer" not in (source / "config.json").read_text()
    done = convert(source, tmp_path / "ours", tower=clip(home, tmp_path / "clip"))
    assert (done.source_format, done.method.name, done.method.params) == ("stf", "stf_mbtf", {})
    want = load_model(weights(home, "stf_mbtf")).half().state_dict()
    got = load_model(tmp_path / "ours", dtype=torch.float16).state_dict()
    assert {name: torch.equal(value, want[name]) for name, value in got.items()} == dict.fromkeys(want, True)
    convert(tmp_path / "ours", tmp_path / "back", target="stf")
    assert same(tensors(tmp_path / "back"), tensors(source))
    with pytest.raises(CheckpointError, match="'llava' holds method none, found 'stf_mbtf'"):
        convert(tmp_path / "ours", tmp_path / "plain", target="llava")


def test_projectors_alone_join_their_backbones(home, tmp_path):
    file = projector(home, tmp_path / "source")
    towers = clip(home, tmp_path / "clip")
    with pytest.raises(CheckpointError, match="--llm"):
        convert(file, tmp_path / "ours", tower=towers)
    done = convert(file, tmp_path / "ours", tower=towers, llm=home / "llm.gone")
    assert done.source_format == "stf-projector"
    got, want = (load_model(path).state_dict() for path in (tmp_path / "ours", weights(home, "stf_mbtf")))
    for name, value in got.items():
        new = name.startswith(("compressor.", "model.multi_modal_projector."))
        assert torch.equal(value, want[name].bfloat16().float() if new else want[name]), name
    convert(tmp_path / "ours", tmp_path / "back", target="stf-projector")
    assert same(tensors(tmp_path / "back"), tensors(file))


def test_the_hubs_layout_and_our_own(home, tmp_path):
    first = convert(weights(home), tmp_path / "hub", target="llava-hf", shard_bytes=SHARD)
    assert first.source_format == "llava-hf"
    names = tensors(tmp_path / "hub")
    assert {"language_model.model.norm.weight", "vision_tower.vision_model.pre_layrnorm.bias"} <= names.keys()
    convert(tmp_path / "hub", tmp_path / "ours")
    assert same(tensors(tmp_path / "ours"), names)
    convert(tmp_path / "hub", tmp_path / "llava", target="llava")
    convert(tmp_path / "llava", tmp_path / "again", target="llava-hf", tower=home / "tower.gone")
    assert same(tensors(tmp_path / "again"), names)
    own = convert(weights(home, "stf_mbtf"), tmp_path / "own", layout="ours")
    assert own.source_format == "ours"
    convert(tmp_path / "own", tmp_path / "own2")
    assert same(tensors(tmp_path / "own2"), tensors(tmp_path / "own"))


def test_sharded_weights_have_a_hash_of_their_own(home, tmp_path):
    assert weights_hash(weights(home)) == sha256_file(weights(home) / "model.safetensors")
    convert(weights(home), tmp_path / "hub", target="llava-hf", shard_bytes=SHARD)
    before = weights_hash(tmp_path / "hub")
    shard = next((tmp_path / "hub").glob("*-00002-*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    assert weights_hash(tmp_path / "hub") != before


def test_added_rows_are_the_mean_and_are_cut_again(tmp_path):
    old = torch.randn(5, 8)
    save_file({"w": old}, tmp_path / "a.safetensors")
    stored = Checkpoint.open(tmp_path / "a.safetensors").tensors["w"]
    write_safetensors(tmp_path / "b.safetensors", [with_rows("w", stored, 7)])
    grown = tensors(tmp_path / "b.safetensors")["w"]
    assert torch.equal(grown[:5], old)
    torch.testing.assert_close(grown[5:], old.mean(0).expand(2, -1))
    longer = Checkpoint.open(tmp_path / "b.safetensors").tensors["w"]
    write_safetensors(tmp_path / "c.safetensors", [with_rows("w", longer, 5)])
    assert torch.equal(tensors(tmp_path / "c.safetensors")["w"], old)


def edit(folder, change):
    """Rewrite the only shard of a checkpoint."""
    path = next(folder.glob("*-00001-*.safetensors"))
    found = tensors(path)
    change(found)
    save_file(found, path)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(found, path.name)}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("model.norm.weight"), r"missing: model\.norm\.weight \(expected \(16,\)\)"),
        (
            lambda t: t.update({"model.image_newline": torch.ones(3)}),
            r"unexpected: model\.image_newline \(found \(3,\)",
        ),
        (
            lambda t: t.update({"model.mm_projector.2.bias": torch.ones(5)}),
            r"misshaped: model\.mm_projector\.2\.bias \(found \(5,\) in model-00001-of-00001\.safetensors, "
            r"expected \(16,\)\)",
        ),
        (
            lambda t: t.update({"model.layers.9.mlp.up_proj.weight": torch.ones(2)}),
            r"unexpected: model\.layers\.9\.mlp",
        ),
    ],
)
def test_what_does_not_fit_is_named(home, tmp_path, change, words):
    source = official(home, tmp_path / "source", shards=1)
    edit(source, change)
    with pytest.raises(CheckpointError, match=words):
        convert(source, tmp_path / "ours", tower=clip(home, tmp_path / "clip"))
    assert not (tmp_path / "ours").exists()


def test_damaged_and_foreign_files_are_refused(home, tmp_path, capsys):
    source = official(home, tmp_path / "source")
    shard = next(source.glob("*-00002-*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10])
    with pytest.raises(CheckpointError, match=f"{shard.name}: tensor .* is cut short"):
        convert(source, tmp_path / "ours")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"{shard.name}: shard named in .* is missing"):
        convert(source, tmp_path / "ours")
    other = tmp_path / "other"
    other.mkdir()
    save_file({"bert.weight": torch.ones(1)}, other / "model.safetensors")
    assert main(["convert", "--source", str(other), "--out", str(tmp_path / "ours")]) == 2
    assert "no LLaVA checkpoint; it holds bert.weight" in capsys.readouterr().err
    (other / "model.safetensors").unlink()
    torch.save({"model.mm_projector.0.weight": print}, other / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="expected tensors saved by torch"):
        convert(other, tmp_path / "ours")
    with pytest.raises(CheckpointError, match="found layout 'llava-hf', expected 'stf'"):
        convert(weights(home), tmp_path / "ours", layout="stf")
    with pytest.raises(CheckpointError, match="exists already"):
        convert(weights(home), tmp_path)


def test_a_failed_conversion_leaves_nothing(home, tmp_path, monkeypatch):
    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("visiontokens.models.convert.run._write_settings", fail)
    with pytest.raises(OSError, match="disk full"):
        convert(weights(home), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


MEMORY = """
import resource, sys
from pathlib import Path
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
from visiontokens.models.convert.files import PIECE, Stored
from visiontokens.models.convert.names import from_model
from visiontokens.models.convert.plan import expected_shapes
from visiontokens.models.convert.run import _outputs
from visiontokens.models.convert.read import Source
from visiontokens.models.convert.shards import Output, write_shards
from visiontokens.models.convert.files import Checkpoint
from visiontokens.models.convert.names import to_model
from visiontokens.models.convert.plan import by_weight

root, kind = Path(sys.argv[1]), sys.argv[2]
text = LlamaConfig(vocab_size=24000, hidden_size=768, intermediate_size=3072, num_hidden_layers=6)
vision = CLIPVisionConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=1, image_size=28, patch_size=14)
config = LlavaConfig(vision_config=vision, text_config=text)
shapes = expected_shapes(config)
size = 2 * sum(torch.Size(shape).numel() for shape in shapes.values())
if kind == "write":
    (root / "source").mkdir()
    def zeros(shape):
        count = 2 * torch.Size(shape).numel()
        return lambda: iter([b"\\0" * count])
    outputs = [Output(from_model(n, "llava"), torch.float16, s, zeros(s)) for n, s in shapes.items()]
    write_shards(root / "source", outputs, 80 << 20)
elif kind == "pickle":
    tensors = {from_model(n, "llava"): torch.zeros(s, dtype=torch.float16) for n, s in shapes.items()}
    torch.save(tensors, root / "source.bin")
else:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    checkpoint = Checkpoint.open(root / kind)
    given = by_weight(checkpoint, lambda name: to_model(name, "llava"))
    source = Source("llava", given, config, 24000, 24064, 24000)
    (root / f"out-{kind}").mkdir()
    write_shards(root / f"out-{kind}", list(_outputs(source, "ours")), 80 << 20)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    largest = max(stored.size for stored in given.values())
    print(size, grown, largest, PIECE)
"""


@pytest.mark.parametrize(("made", "kind"), [("write", "source"), ("pickle", "source.bin")])
def test_memory_does_not_grow_with_the_checkpoint(tmp_path, made, kind):
    """Peak memory stays at a few pieces (and one tensor of a pickled file), for a checkpoint several times that."""
    numbers = []
    for step in (made, kind):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(tmp_path), step], capture_output=True, text=True, check=True
        )
        numbers = done.stdout.split()
    size, grown, largest, piece = map(int, numbers)
    bound = 5 * piece + (largest if made == "pickle" else 0)
    assert size > 1.5 * bound
    assert grown < bound
    assert len(list((tmp_path / f"out-{kind}").glob("*.safetensors"))) > 1


def test_the_largest_tensor_of_a_7b_model_bounds_its_conversion():
    """What is held at once is a few pieces, and one tensor where the source is pickled."""
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**CLIP_L),
        text_config=LlamaConfig(vocab_size=32064, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32),
    )
    sizes = [2 * torch.Size(shape).numel() for shape in expected_shapes(config).values()]
    assert sum(sizes) > 14e9
    assert max(sizes) + 5 * PIECE < 4 << 30

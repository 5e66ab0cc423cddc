"""Class tokens beside the cached features: the tower's own, complete or absent, and the features stay as they are."""

import pytest
import torch
from tiny_training import HALF, SIZE, config_of, make_features, make_world
from transformers import CLIPVisionModel

from visiontokens.compress import MethodSpec
from visiontokens.data.class_states import class_folder, compute_class_states, open_states
from visiontokens.data.features import FeatureError, image_paths
from visiontokens.data.images import Preprocessor
from visiontokens.models.build import build_model
from visiontokens.provenance import read_json, sha256_file, write_json
from visiontokens.sources import reads_class_token
from visiontokens.train.trainer import train_stage

torch.set_num_threads(1)


@pytest.fixture
def world(tmp_path):
    make_world(tmp_path, 12)
    make_features(tmp_path, levels=[1, 2], out=tmp_path / "f", batch=4)
    return tmp_path


def fill(world, processor=None, **options):
    tower = CLIPVisionModel.from_pretrained(world / "tower")
    sha = options.pop("tower_sha", sha256_file(world / "tower/model.safetensors"))
    return compute_class_states(
        tower, processor or Preprocessor(SIZE, HALF, HALF), world / "data", "train", [0],
        **{"out": class_folder(world / "f"), "tower_sha": sha, "batch": 4, "precision": "fp32", **options},
    )  # fmt: skip


def test_states_are_the_towers_with_cls_in_front(world):
    before = {path.name: sha256_file(path) for path in (world / "f").iterdir()}
    fill(world)
    assert {path.name: sha256_file(path) for path in (world / "f").iterdir()} == before
    paths = image_paths(world / "data", "train")
    wanted = [paths[7], paths[0]]
    found = open_states(world / "f", [0, 1, 2], [0, 1]).get(wanted)
    pixels = torch.from_numpy(Preprocessor(SIZE, HALF, HALF)([world / "data" / p for p in wanted]))
    with torch.no_grad():
        states = CLIPVisionModel.from_pretrained(world / "tower")(pixels, output_hidden_states=True).hidden_states
    assert list(found) == [0, 1, 2]
    for level, start in ((0, 0), (1, 0), (2, 1)):
        torch.testing.assert_close(found[level].float(), states[level][:, start:], atol=2e-3, rtol=2e-3)


def test_a_stopped_run_continues(world):
    calls = []

    class Stopping(Preprocessor):
        def __call__(self, paths):
            calls.append([path.name for path in paths])
            if len(calls) == 2:
                raise KeyboardInterrupt
            return super().__call__(paths)

    processor = Stopping(SIZE, HALF, HALF)
    with pytest.raises(KeyboardInterrupt):
        fill(world, processor)
    with pytest.raises(FileNotFoundError, match=r"f\.class/index\.json: no class tokens there"):
        open_states(world / "f", [1], [1])
    fill(world, processor)
    assert [len(call) for call in calls] == [4, 4, 4, 2]
    out = class_folder(world / "f")
    assert sorted(path.name for path in out.iterdir()) == ["class.npy", "index.json", "level0.npy"]
    broken = sha256_file(out / "class.npy")
    (out / "index.json").unlink()
    fill(world, processor)
    assert sha256_file(out / "class.npy") == broken
    fill(world, processor)
    assert len(calls) == 7, "complete: nothing is computed"


def test_what_does_not_fit_is_refused(world):
    fill(world)
    with pytest.raises(FeatureError, match=r"missing \[3\]"):
        open_states(world / "f", [1, 3], [1])
    with pytest.raises(FeatureError, match="expected features of tower abc"):
        open_states(world / "f", [1], [1], tower="abc")
    index = class_folder(world / "f") / "index.json"
    write_json(index, read_json(index) | {"tower": "x" * 64})
    with pytest.raises(FeatureError, match=r"f\.class: expected features of tower"):
        open_states(world / "f", [1], [1])


@pytest.mark.parametrize(
    "method",
    [
        MethodSpec(name="prumerge", params={"ratio": 1.0}),  # keeps and merges everything: no choice can differ
        MethodSpec(name="vistog", params={"groups": 3, "assign": "soft"}),
    ],
    ids=lambda m: m.name,
)
def test_tokens_from_kept_states_are_those_from_pixels(world, method):
    fill(world)
    model = build_model(world / "tower", world / "llm", method, 0)
    compressor, paths = model.compressor, image_paths(world / "data", "train")[:3]
    store = open_states(world / "f", compressor.levels, compressor.class_levels)
    pixels = torch.from_numpy(Preprocessor(SIZE, HALF, HALF)([world / "data" / p for p in paths]))
    with torch.no_grad():
        kept = model.encode_images(vision_levels=store.get(paths))[0]
        seen = model.encode_images(pixels)[0]
    torch.testing.assert_close(torch.stack(kept), torch.stack(seen), atol=5e-3, rtol=5e-3)


def test_training_reads_them(world):
    """A stage of a method that needs class tokens runs on the kept states, and says so where they are missing."""
    (world / "config/methods/vistog.yaml").write_text("name: vistog\nparams: {groups: 3}\n")
    with (world / "config/experiments.tsv").open("a") as table:
        table.write("vistog\tVisToG\tvistog\t\tvistog\tvistog\t\t\tmain\t1\t\t\n")
    kept = world / "data/features/train"
    make_features(world, levels=[1, 2], batch=4)

    def train():
        return train_stage(config_of(world), "vistog", 0, "align", run_dir=world / "run", out=world / "out")

    with pytest.raises(FileNotFoundError, match=r"train\.class/index\.json: no class tokens there"):
        train()
    fill(world, out=class_folder(kept))
    record = read_json(train())
    assert record["loss_last_tenth"] > 0


def test_only_methods_that_read_class_tokens_wait_for_them():
    assert {name: reads_class_token(name) for name in ("none", "stf-mbtf", "vcc", "prumerge", "visionzip-64")} == {
        "none": False, "stf-mbtf": False, "vcc": False, "prumerge": True, "visionzip-64": True,
    }  # fmt: skip

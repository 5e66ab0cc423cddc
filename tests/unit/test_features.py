"""Cached tower features: equal to the tower's own, complete or absent, and never another image's."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_training import HALF, SIZE, make_features, make_world
from transformers import CLIPVisionModel

from visiontokens.compress.base import Geometry
from visiontokens.data import features
from visiontokens.data.features import FeatureError, FeatureStore, image_paths, tower_level, tower_levels
from visiontokens.data.images import ImageError, Preprocessor
from visiontokens.data.precision import use_bf16
from visiontokens.provenance import sha256_file

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    make_world(root, 12)
    return root


def fill(root, out, **options):
    return make_features(root, **{"levels": [1, 2], "out": out, "batch": 4, **options})


def test_features_are_the_towers_hidden_states(world, tmp_path):
    fill(world, tmp_path / "f")
    store = FeatureStore.open(tmp_path / "f", [1, 2], tower=sha256_file(world / "tower/model.safetensors"))
    paths = image_paths(world / "data", "train")
    wanted = [paths[7], paths[0]]
    pixels = torch.from_numpy(Preprocessor(SIZE, HALF, HALF)([world / "data" / p for p in wanted]))
    with torch.no_grad():
        states = CLIPVisionModel.from_pretrained(world / "tower")(pixels, output_hidden_states=True).hidden_states
    for level, found in store.get(wanted).items():
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.float(), states[level][:, 1:], atol=2e-3, rtol=2e-3)
    assert len(store) == 10
    assert paths[0] in store
    assert "images/5.png" not in store


@pytest.mark.slow
def test_two_workers_fill_the_same_bytes(world, tmp_path):
    fill(world, tmp_path / "one")
    fill(world, tmp_path / "two", workers=2)
    for level in (1, 2):
        assert sha256_file(tmp_path / f"one/level{level}.npy") == sha256_file(tmp_path / f"two/level{level}.npy")


def test_a_stopped_run_continues(world, tmp_path, monkeypatch):
    """Rows done before the stop are not computed again, and the result is that of an unbroken run."""
    fill(world, tmp_path / "whole")
    calls = []

    class Stopping(Preprocessor):
        stop_at = 2

        def __call__(self, paths):
            calls.append([p.name for p in paths])
            if len(calls) == self.stop_at:
                raise KeyboardInterrupt
            return super().__call__(paths)

    processor = Stopping(SIZE, HALF, HALF)
    tower = CLIPVisionModel.from_pretrained(world / "tower")
    sha = sha256_file(world / "tower/model.safetensors")

    def run():
        features.compute_features(
            tower,
            processor,
            world / "data",
            "train",
            [1, 2],
            out=tmp_path / "f",
            tower_sha=sha,
            batch=4,
            precision="fp32",
        )

    with pytest.raises(KeyboardInterrupt):
        run()
    with pytest.raises(FileNotFoundError, match="no features there"):
        FeatureStore.open(tmp_path / "f", [1])
    run()
    assert [len(call) for call in calls] == [4, 4, 4, 2]
    assert calls[1] == calls[2]
    assert sha256_file(tmp_path / "f/level2.npy") == sha256_file(tmp_path / "whole/level2.npy")
    before = len(calls)
    run()
    assert len(calls) == before
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == ["index.json", "level1.npy", "level2.npy"]


def test_unfinished_work_for_another_tower_is_dropped(world, tmp_path):
    out = tmp_path / "f"
    fill(world, out)
    shutil.copy(out / "level1.npy", out / ".level1.npy.part")
    (out / ".rows-0-10.json").write_text(json.dumps({"key": "other", "done": 10}))
    fill(world, out, tower_sha="new")
    assert FeatureStore.open(out, [1], tower="new")
    assert np.load(out / "level1.npy").any()
    assert not list(out.glob(".*"))


def test_store_refuses_what_does_not_fit(world, tmp_path):
    out = tmp_path / "f"
    fill(world, out)
    with pytest.raises(FeatureError, match=r"expected levels \[1, 3\], found \[1, 2\], missing \[3\]"):
        FeatureStore.open(out, [1, 3])
    with pytest.raises(FeatureError, match="expected features of tower abc, found tower"):
        FeatureStore.open(out, [1], tower="abc")
    with pytest.raises(FeatureError, match=r"expected features of 'images/nine.png', found none \(10 images\)"):
        FeatureStore.open(out, [1]).get(["images/0.png", "images/nine.png"])
    np.save(out / "level1.npy", np.zeros((3, 16, 16), np.float16))
    with pytest.raises(FeatureError, match=r"level1.npy: expected shape \(10, 16, 16\), found \(3, 16, 16\)"):
        FeatureStore.open(out, [1])


def test_a_broken_image_leaves_no_index(world, tmp_path):
    broken = tmp_path / "world"
    shutil.copytree(world, broken)
    path = broken / "data/images/3.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ImageError, match=r"3\.png: expected a complete image file, found 100 bytes"):
        fill(broken, tmp_path / "f")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"3\.png"):
        fill(broken, tmp_path / "f")
    assert not (tmp_path / "f/index.json").exists()


def test_image_table(world, tmp_path):
    with pytest.raises(FeatureError, match=r"expected rows of set 'test', found \['train'\]"):
        image_paths(world / "data", "test")
    with pytest.raises(FileNotFoundError, match=r"images\.tsv"):
        image_paths(tmp_path, "train")


@pytest.mark.parametrize("layers", [3, 8, 12, 24])
def test_levels_are_scaled_as_the_compressors_scale_them(layers):
    geometry = Geometry(16, layers, (4, 4), 16, 4)
    for level in (-2, -1, *range(25)):
        assert tower_level(level, layers) == geometry.level(level)


def test_levels_of_the_mini_tower():
    assert tower_levels([-2, 21, 18, 15, 12, 9, 6, 3], 8) == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(ValueError, match=r"level: expected -9\.\.24, found 25"):
        tower_level(25, 8)


def test_precision():
    assert use_bf16("bf16") and not use_bf16("fp32")
    assert not use_bf16("auto"), "on a CPU float32, whatever it has"
    with pytest.raises(ValueError, match="expected auto, fp32 or bf16, found 'half'"):
        use_bf16("half")

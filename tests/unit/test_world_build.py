from __future__ import annotations

import csv
import hashlib
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from smoke_world import SMOKE, smoke_world

from visiontokens.config import WorldConfig
from visiontokens.data.miniworld import build
from visiontokens.data.miniworld.files import Source, WorldFiles, encode_image
from visiontokens.data.miniworld.render import render
from visiontokens.data.miniworld.scenes import digit_instances
from visiontokens.provenance import sha256_file


def digest(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): sha256_file(p) for p in sorted(root.rglob("*")) if p.is_file()}


def test_same_settings_same_bytes(tmp_path):
    build.build_world(tmp_path / "again", SMOKE)
    assert digest(tmp_path / "again") == digest(smoke_world())


def test_another_seed_is_another_world():
    one, two = (Source(seed, "gqa", "test").scenes(20) for seed in (0, 1))
    assert not np.array_equal(one.x, two.x)
    assert not np.array_equal(one.x, Source(0, "vqav2", "test").scenes(20).x)


def test_image_list_is_complete_sorted_and_true():
    root = smoke_world()
    with (root / "images.tsv").open() as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    listed = [row["path"] for row in rows]
    on_disk = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix in {".jpg", ".png"}}
    assert len(set(listed)) == len(listed) and set(listed) == on_disk
    sets = list(dict.fromkeys(row["set"] for row in rows))
    assert sets == ["pretrain", "instruct", "validation", "test"]
    for name in sets:
        part = [row["path"] for row in rows if row["set"] == name]
        assert part == sorted(part)
        assert all(path.startswith("benchmarks/" if name == "test" else f"{name}/images/") for path in part)


def test_record_holds_counts_and_digests():
    root = smoke_world()
    record = json.loads((root / "world.json").read_text())
    assert record["world"]["seed"] == SMOKE.seed
    assert set(record["counts"]["benchmarks"]) == {
        "vqav2", "gqa", "vizwiz", "scienceqa", "textvqa", "pope", "mme", "mmbench", "mmbench_cn",
    }  # fmt: skip
    for path, sha in record["sha256"].items():
        assert sha256_file(root / path) == sha
    with (root / "images.tsv").open() as handle:
        paths = [row["path"] for row in csv.DictReader(handle, delimiter="\t") if row["set"] == "validation"]
    expected = hashlib.sha256()
    for path in paths:
        expected.update(path.encode() + b"\0" + hashlib.sha256((root / path).read_bytes()).digest())
    assert record["images"]["validation"] == {"count": len(paths), "sha256": expected.hexdigest()}


def test_images_show_their_scenes():
    root = smoke_world()
    source = Source(SMOKE.seed, "pretrain", "train")
    pixels = render(source.scenes(SMOKE.pretrain))
    for number in (0, SMOKE.pretrain - 1):
        with Image.open(root / f"pretrain/images/00000/{number:09d}.jpg") as image:
            assert image.layer[0][1:3] == image.layer[1][1:3]  # no chroma subsampling
            read = np.asarray(image.convert("RGB"), int)
        assert np.abs(read - pixels[number]).mean() < 6
    with Image.open(sorted((root / "benchmarks/mme").rglob("code_reasoning/*.png"))[0]) as image:
        assert image.size == (96, 96)


def test_png_keeps_pixels_and_other_suffixes_are_refused():
    pixels = render(Source(0, "x", "test").scenes(1))[0]
    with Image.open(BytesIO(encode_image(pixels, ".png"))) as image:
        assert np.array_equal(np.asarray(image), pixels)
    with pytest.raises(ValueError, match=r"'\.gif'"):
        encode_image(pixels, ".gif")


def test_bad_image_sets_and_lengths_are_refused(tmp_path):
    scenes = Source(0, "x", "test").scenes(2)
    with pytest.raises(ValueError, match="'tset'"):
        WorldFiles(tmp_path).add_images("tset", ["a.jpg", "b.jpg"], scenes)
    with pytest.raises(ValueError, match="1 paths"):
        WorldFiles(tmp_path).add_images("test", ["a.jpg"], scenes)


def test_splits_share_no_digit_instance():
    train, validation, test = (set(digit_instances(name).tolist()) for name in ("train", "validation", "test"))
    assert not (train & validation or train & test or validation & test)
    for name, split in (("instruct/textvqa", "train"), ("validation", "validation"), ("textvqa", "test")):
        used = Source(0, name, split).scenes(50, plate=1.0).digit_index
        assert set(used[used >= 0].tolist()) <= set(digit_instances(split).tolist())


TINY = WorldConfig(**dict.fromkeys(WorldConfig.model_fields, 4) | {"mme_lines": 2})


def test_an_interrupted_build_never_looks_complete(tmp_path, monkeypatch):
    root = tmp_path / "world"
    for name in build.PARTS:
        (root / name).mkdir(parents=True)
    (root / "features").mkdir()
    (root / "world.json").write_text("{}")

    def fail(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "write_benchmarks", fail)
        with pytest.raises(KeyboardInterrupt):
            build.build_world(root, TINY)
    assert (root / "world.json").read_text() == "{}"  # nothing was touched yet
    rename = Path.rename

    def fail_late(self, target):
        if self.name == "validation":
            raise OSError("disk full")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail_late)
        with pytest.raises(OSError, match="disk full"):
            build.build_world(root, TINY)
    assert not (root / "world.json").exists() and not (root / "images.tsv").exists()
    build.build_world(root, TINY)
    assert set(json.loads((root / "world.json").read_text())["counts"]) == {*build.PARTS}
    assert (root / "features").is_dir() and not list(tmp_path.glob(".world*"))

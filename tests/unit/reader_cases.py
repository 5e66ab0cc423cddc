"""Every format that is read, with whole files of it and its reader."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from smoke_world import smoke_world

from visiontokens.analyze.collect import efficiency, redundancy, scores, training_logs
from visiontokens.analyze.reference import REFERENCE_FILES, reference
from visiontokens.config import load_config, read_experiments
from visiontokens.data.archives import extract
from visiontokens.data.benchmarks import Example
from visiontokens.data.benchmarks.mmbench import read_rows
from visiontokens.data.features import FeatureStore, image_paths
from visiontokens.data.images import load_image
from visiontokens.data.lock import Lock
from visiontokens.data.records import load_records
from visiontokens.data.registry import read_registry
from visiontokens.data.validation import load_validation
from visiontokens.data.videos import load_frames, write_video
from visiontokens.evaluate.predictions import read_predictions
from visiontokens.models.convert.files import read_header
from visiontokens.models.processors import load_tokenizer
from visiontokens.records import restore_records
from visiontokens.seals import check, seal
from visiontokens.train.records import read_log

ROOT = Path(__file__).parents[2]
IDS = [f"q{number}" for number in range(12)]
EXAMPLES = [Example(key, None, "What is it?", key) for key in IDS]


@dataclass(frozen=True)
class Case:
    """One format.

    Attributes:
        make: writes whole files into a folder and returns the one to damage.
        read: the reader, from that file's path.
        beginning: what notices that a beginning is not all ("" = the reader itself does).
        exact: a flipped bit, too, is an error or changes nothing.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    beginning: str = ""
    exact: bool = False


def rows(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def content(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return path


def copied(*names: str) -> Callable[[Path], Path]:
    """Return a maker: copy these files or folders of the repository to the same places; the first gets damaged."""

    def make(folder: Path) -> Path:
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
        return folder / names[0]

    return make


def from_world(name: str) -> Callable[[Path], Path]:
    """Return a maker: a part of the mini world without its images."""

    def make(folder: Path) -> Path:
        source = smoke_world() / name
        target = folder / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
        return target

    return make


def predictions(folder: Path) -> Path:
    return rows(folder / "gqa.jsonl", [{"question_id": key, "text": f"answer {key}"} for key in IDS])


def training_log(folder: Path) -> Path:
    steps = [{"step": step, "loss": 1 / step} for step in range(1, 12)]
    return rows(folder / "models/none/seed0/tune/log.jsonl", steps)


def score_file(folder: Path) -> Path:
    return content(folder / "scores/none/seed0/gqa.json", {"metric": "accuracy", "value": 61.5, "n": 400, "se": 1.5})


def cost_file(folder: Path) -> Path:
    keys = ("tokens_total", "tokens_mean", "compression_ratio", "prefill_flops", "prefill_ms")
    return content(folder / "efficiency/none.json", {key: number + 0.5 for number, key in enumerate(keys)})


def curve(folder: Path) -> Path:
    path = folder / "redundancy/curve.csv"
    path.parent.mkdir()
    lines = [f"2,{stride},{1 / stride},gqa,{60.25 + stride},1.5,2.5,100" for stride in range(1, 9)]
    path.write_text("\n".join(["layer,stride,kept,benchmark,value,ci_low,ci_high,n", *lines]) + "\n")
    seal(path.parent)
    return path


def sealed_curve(path: Path) -> Any:
    check(path.parent)
    return redundancy(path.parents[1], "curve").to_dict()


def features(folder: Path) -> Path:
    content(folder / "index.json", {"paths": ["a.jpg", "b.jpg"], "levels": [3], "tower": "t", "shape": [9, 4]})
    path = folder / "level3.npy"
    np.save(path, np.arange(72, dtype=np.float16).reshape(2, 9, 4))
    seal(folder)
    return path


def read_features(path: Path) -> Any:
    check(path.parent)
    return FeatureStore.open(path.parent, [3]).get(["b.jpg", "a.jpg"])[3].tolist()


def weights(folder: Path) -> Path:
    save_file({"a": torch.arange(40.0), "b": torch.ones(3, 5)}, folder / "model.safetensors")
    return folder / "model.safetensors"


def sealed_weights(folder: Path) -> Path:
    path = weights(folder)
    seal(folder)
    return path


def header(path: Path) -> Any:
    return {name: (tensor.shape, str(tensor.dtype)) for name, tensor in read_header(path).items()}


def picture(suffix: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        pixels = np.random.default_rng(0).integers(0, 255, (24, 31, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"picture.{suffix}")
        return folder / f"picture.{suffix}"

    return make


def pixels(path: Path) -> Any:
    return np.asarray(load_image(path)).tolist()


def video(folder: Path) -> Path:
    path = folder / "clip.avi"
    write_video(path, np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), dtype=np.uint8))
    return path


def frames(path: Path) -> Any:
    return [np.asarray(frame).tolist() for frame in load_frames(path, 4)]


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"part/{number}.txt", f"{number} " * 90)
    return folder / "data.zip"


def tarred(suffix: str, mode: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with tarfile.open(folder / f"data.{suffix}", mode) as archive:  # type: ignore[call-overload]
            for number in range(4):
                (folder / "source.txt").write_text(f"{number} " * 90)
                archive.add(folder / "source.txt", f"part/{number}.txt")
        return folder / f"data.{suffix}"

    return make


def unpacked(path: Path) -> Any:
    target = path.with_name("out")
    shutil.rmtree(target, ignore_errors=True)
    extract(path, "*", target)
    return {file.relative_to(target).as_posix(): file.read_bytes() for file in sorted(target.rglob("*.txt"))}


def sheet(folder: Path) -> Path:
    book = openpyxl.Workbook()
    table = book.active
    assert table is not None
    table.append(["index", "question", "A", "B", "answer", "prediction"])
    for number in range(8):
        table.append([number, f"Which one, {number}?", "left", "right", "A", "B"])
    book.save(folder / "upload.xlsx")
    return folder / "upload.xlsx"


def settings(folder: Path) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump({"scale": "tiny", "train": {"tune": {"epochs": 2.0}}, "evaluate": {"limit": 25}}))
    return path


def lock_file(folder: Path) -> Path:
    files = {"a.zip": {"bytes": 12, "sha256": "0" * 64, "url": "", "seen": [12, 1]}}
    return content(folder / "lock.json", {"revision": "f" * 40, "files": files, "whole": True})


def lock(path: Path) -> Any:
    found = Lock(path)
    return found.revision, found.files, found.whole


def workflow_records(folder: Path) -> Path:
    (folder / "made.txt").write_text("made")
    return content(folder / "records.json", {str(folder / "made.txt"): {"rule": "score", "params": ["1"]}})


def restored(path: Path) -> Any:
    metadata = path.with_name("metadata")
    shutil.rmtree(metadata, ignore_errors=True)
    restore_records(path, metadata)
    return [json.loads(file.read_text()) for file in sorted(metadata.rglob("*")) if file.is_file()]


def validation(path: Path) -> Any:
    return [vars(example) for example in load_validation(path.parents[1])]


def tokens(path: Path) -> Any:
    return load_tokenizer([path.parent])("What color is the circle?").input_ids


CASES = {
    "annotations": Case(from_world("instruct/llava_v1_5_mix_mini.json"), load_records),
    "validation": Case(from_world("validation"), lambda path: validation(path / "instruct.json")),
    "image table": Case(from_world("images.tsv"), lambda path: image_paths(path.parent, "test"), "the world's record"),
    "predictions": Case(predictions, lambda path: read_predictions(path, EXAMPLES)),
    "bare predictions": Case(predictions, read_predictions, "the questions, where they are given"),
    "training log": Case(training_log, read_log, "the record's number of steps, and the seal"),
    "training logs": Case(training_log, lambda path: training_logs(path.parents[4]).to_dict("records"), "the seal"),
    "score": Case(score_file, lambda path: scores(path.parents[3]).to_dict()),
    "cost": Case(cost_file, lambda path: efficiency(path.parents[1]).to_dict()),
    "redundancy": Case(curve, sealed_curve, exact=True),
    "features": Case(features, read_features, exact=True),
    "feature array": Case(features, lambda path: FeatureStore.open(path.parent, [3]).get(["b.jpg"])[3].tolist()),
    "feature index": Case(
        features, lambda path: FeatureStore.open(path.parent, [3]).get(["b.jpg"])[3].tolist()
    ),
    "weights' header": Case(weights, header),
    "weights": Case(sealed_weights, lambda path: check(path.parent), exact=True),
    "png": Case(picture("png"), pixels, exact=True),
    "jpeg": Case(picture("jpg"), pixels),
    "video": Case(video, frames),
    "zip": Case(zipped, unpacked),
    "tar": Case(tarred("tar", "w"), unpacked),
    "tar.gz": Case(tarred("tar.gz", "w:gz"), unpacked, exact=True),
    "upload sheet": Case(sheet, lambda path: list(read_rows(path)), exact=True),
    "settings": Case(settings, load_config, "the workflow, which writes them before every run"),
    "experiments": Case(
        copied("config/experiments.tsv", "config/methods", "config/schedules"), read_experiments, "git"
    ),
    "registry": Case(copied("data/registry.tsv"), read_registry, "git"),
    "reference": Case(
        copied(*(f"data/reference/{name}" for name in REFERENCE_FILES)),
        lambda path: reference(folder=path.parent).to_dict(),
        "git",
    ),
    "lock": Case(lock_file, lock),
    "workflow records": Case(workflow_records, restored),
    "tokenizer": Case(copied("data/backbones/llm/tokenizer.json", "data/backbones/llm/tokenizer_config.json"), tokens),
}  # fmt: skip

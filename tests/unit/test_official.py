"""Traps of the official files: revisions, counts, and images that are gone; small files in the official formats."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from visiontokens.config import Config
from visiontokens.data.benchmarks import find_benchmark
from visiontokens.data.official import (
    OfficialError,
    check_bases,
    inspect_benchmark,
    inspect_benchmarks,
    inspect_stage,
)
from visiontokens.data.registry import Entry, read_registry
from visiontokens.evaluate.score.gqa import score_gqa
from visiontokens.provenance import read_json

REGISTRY = Path("data/registry.tsv")


def picture(kind: str = "JPEG", side: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def counted(**records: int) -> dict[str, Entry]:
    """Return the shipped registry with other numbers of records, by benchmark file."""
    entries = read_registry(REGISTRY)
    return entries | {name: entries[name].model_copy(update={"records": count}) for name, count in records.items()}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.model_validate({"world": None, "data": tmp_path, "evaluate": {"benchmarks": ["gqa"]}})


# -- instruction data --------------------------------------------------------------------------------------------------


def record(number: int, image: str | None) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "This."}]
    return {"id": str(number), "conversations": turns, **({"image": image} if image else {})}


@pytest.fixture
def mix(tmp_path: Path) -> Callable[..., Config]:
    """Write a mix of ten image records, five of them broken, and one of text only; return its settings."""

    def make(allowed: float, records: int = 11) -> Config:
        images = tmp_path / "LLaVA-Instruct/images"
        named = [f"coco/train2017/{n}.jpg" for n in range(5)]
        for name in named:
            write(images / name, picture())
        broken = ["vg/VG_100K/gone.jpg", *(f"ocr_vqa/images/{n}.jpg" for n in ("empty", "page", "pixel", "other"))]
        write(images / "ocr_vqa/images/empty.jpg", b"")
        write(images / "ocr_vqa/images/page.jpg", "<html>Not found</html>")
        write(images / "ocr_vqa/images/pixel.jpg", picture("GIF", side=1))
        write(images / "ocr_vqa/images/other.png", picture("PNG"))
        content = [record(n, image) for n, image in enumerate([*named, *broken, None])]
        write(tmp_path / "LLaVA-Instruct/llava_v1_5_mix665k.json", json.dumps(content))
        table = write(tmp_path / "registry.tsv", REGISTRY.read_text(encoding="utf-8").replace("665298", str(records)))
        downloads = {"registry": table, "max_missing_images": allowed}
        train = {"tune": {"images": "LLaVA-Instruct/images"}}
        return Config.model_validate({"world": None, "data": tmp_path, "downloads": downloads, "train": train})

    return make


def test_broken_image_links_are_counted_listed_and_left_out(mix: Callable[..., Config], tmp_path: Path) -> None:
    found = inspect_stage(mix(0.5), "tune", tmp_path / "out.json", tmp_path / "missing.txt")
    assert found == {"records": 6, "left_out": 5, "missing_images": 5}
    kept = read_json(tmp_path / "out.json")
    assert [row["id"] for row in kept] == ["0", "1", "2", "3", "4", "10"]
    assert (tmp_path / "missing.txt").read_text().splitlines() == [
        "ocr_vqa/images/empty.jpg",
        "ocr_vqa/images/other.jpg\tfound other.png: convert it",
        "ocr_vqa/images/page.jpg",
        "ocr_vqa/images/pixel.jpg",
        "vg/VG_100K/gone.jpg",
    ]


def test_too_many_broken_links_are_refused_and_still_listed(mix: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(OfficialError, match=r"5 of 10 images are missing \(50\.00%\), allowed 49\.00%.*missing\.txt"):
        inspect_stage(mix(0.49), "tune", tmp_path / "out.json", tmp_path / "missing.txt")
    assert not (tmp_path / "out.json").exists()
    assert len((tmp_path / "missing.txt").read_text().splitlines()) == 5


def test_another_number_of_records_is_another_version(mix: Callable[..., Config], tmp_path: Path) -> None:
    with pytest.raises(OfficialError, match=r"mix665k\.json: found 11 records, expected 12 \(version mix665k\)"):
        inspect_stage(mix(0.5, records=12), "tune", tmp_path / "out.json", tmp_path / "missing.txt")


# -- benchmarks --------------------------------------------------------------------------------------------------------


def write_pope(root: Path, random: int) -> None:
    for category, lines in {"adversarial": 3000, "popular": 3000, "random": random}.items():
        rows = (
            {"question_id": n, "image": "1.jpg", "text": "Is there a car in the image?", "label": ("yes", "no")[n % 2]}
            for n in range(1, lines + 1)
        )
        write(root / f"benchmarks/pope/coco_pope_{category}.json", "".join(json.dumps(row) + "\n" for row in rows))
    write(root / "benchmarks/pope/val2014/1.jpg", picture())


def test_pope_is_that_of_commit_e3e3926(config: Config, tmp_path: Path) -> None:
    write_pope(tmp_path, 2910)
    assert inspect_benchmark(config, read_registry(REGISTRY), "pope") == {"questions": 8910, "images": 1}
    write_pope(tmp_path, 3000)
    with pytest.raises(OfficialError, match=r"'random': 3000.*expected .*'random': 2910.*take commit e3e3926"):
        inspect_benchmark(config, read_registry(REGISTRY), "pope")


def write_mmbench(path: Path, options: dict[int, int]) -> None:
    """Write bases by number of options, each with its rotations (index + 1,000,000 a turn)."""
    head = ["index", "question", "hint", *"ABCD", "answer", "category", "l2-category", "image"]
    image = base64.b64encode(picture("PNG")).decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        rows = csv.writer(handle, delimiter="\t")
        rows.writerow(head)
        base = 0
        for count, bases in options.items():
            for _ in range(bases):
                texts = [letter if i < count else "" for i, letter in enumerate("wxyz")]
                for turn in range(count):
                    rows.writerow([base + turn * 1_000_000, "Which?", "", *texts, "A", "c", "l", image])
                base += 1


def test_mmbench_is_the_release_of_1176_base_questions(tmp_path: Path) -> None:
    table = tmp_path / "mmbench/mmbench_dev_20230712.tsv"
    write_mmbench(table, {4: 938, 3: 149, 2: 89})
    examples = find_benchmark("mmbench").read(tmp_path)
    assert len(examples) == 4377 == read_registry(REGISTRY)["mmbench"].records
    check_bases("mmbench")(examples)
    write_mmbench(table, {4: 938, 3: 149, 2: 77})
    with pytest.raises(OfficialError, match="mmbench: found 1164 base questions, expected 1176: another release"):
        check_bases("mmbench")(find_benchmark("mmbench").read(tmp_path))


def test_mmbench_of_another_release_is_refused_on_inspection(config: Config, tmp_path: Path) -> None:
    write_mmbench(tmp_path / "benchmarks/mmbench/mmbench_dev_20230712.tsv", {4: 2})
    with pytest.raises(OfficialError, match="mmbench: found 2 base questions, expected 1176"):
        inspect_benchmark(config, read_registry(REGISTRY), "mmbench")


def test_seed_counts_its_image_part_only(config: Config, tmp_path: Path) -> None:
    """19,242 questions at first, 17,990 after the video part was screened again; the image part stayed."""
    path = tmp_path / "benchmarks/seed/SEED-Bench.json"
    write(path.with_name("SEED-Bench-image") / "1_2", picture())
    same = {"question": "q?", "answer": "A", **{f"choice_{letter}": letter for letter in "abcd"}, "data_id": "1_2"}
    for videos in (5009, 3757):
        kinds = [1 + n % 9 for n in range(14233)] + [10 + n % 3 for n in range(videos)]
        rows = [same | {"question_id": str(n), "question_type_id": kind} for n, kind in enumerate(kinds)]
        write(path, json.dumps({"questions": rows}))
        found = inspect_benchmark(config, read_registry(REGISTRY), "seed")
        assert found == {"questions": 14233, "images": 1}
    write(path, json.dumps({"questions": rows[1:]}))
    with pytest.raises(OfficialError, match="found 14232 questions, expected 14233"):
        inspect_benchmark(config, read_registry(REGISTRY), "seed")


def write_gqa(root: Path) -> None:
    """Write testdev questions as published: without choices, and no scene graphs beside them."""
    question = {"imageId": "n1", "question": "Is it red?", "answer": "yes", "isBalanced": True, "fullAnswer": "Yes."}
    kinds = {"types": {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"}}
    rows = {"201": question | kinds, "202": question | kinds | {"answer": "no"}}
    write(root / "benchmarks/gqa/testdev_balanced_questions.json", json.dumps(rows))


def test_gqa_testdev_needs_no_choices(config: Config, tmp_path: Path) -> None:
    write_gqa(tmp_path)
    entries = counted(**{"gqa-questions": 2})
    with pytest.raises(OfficialError, match=r"1 of 1 images are missing or no images: .*images/n1\.jpg"):
        inspect_benchmark(config, entries, "gqa")
    write(tmp_path / "benchmarks/gqa/images/n1.jpg", picture())
    assert inspect_benchmark(config, entries, "gqa") == {"questions": 2, "images": 1}
    examples = find_benchmark("gqa").read(tmp_path / "benchmarks")
    score = score_gqa(examples, {"201": "Yes.", "202": "yes"})
    assert score.value == pytest.approx(50)
    assert not [part for part in score.parts if "validity" in part or "plausib" in part or "grounding" in part]
    with pytest.raises(OfficialError, match="found 2 questions, expected 12578"):
        inspect_benchmark(config, read_registry(REGISTRY), "gqa")


def test_mme_of_the_hubs_archive_lies_one_folder_deeper(config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "benchmarks/mme/MME_Benchmark_release_version/MME_Benchmark/count"
    write(folder / "1.jpg", picture())
    write(folder / "1.txt", "One? Please answer yes or no.\tYes\nTwo? Please answer yes or no.\tNo\n")
    assert inspect_benchmark(config, counted(mme=2), "mme") == {"questions": 2, "images": 1}
    (first, _) = find_benchmark("mme").read(tmp_path / "benchmarks")
    assert (first.question_id, first.meta["official_id"]) == ("count/1.jpg#1", "count/1.jpg")


def test_the_record_has_counts_and_checksums_of_all_benchmarks_read(tmp_path: Path) -> None:
    write_gqa(tmp_path)
    write(tmp_path / "benchmarks/gqa/images/n1.jpg", picture())
    table = write(tmp_path / "registry.tsv", REGISTRY.read_text(encoding="utf-8").replace("\t12578\t", "\t2\t"))
    settings = {"world": None, "data": tmp_path, "downloads": {"registry": table}}
    settings |= {"evaluate": {"benchmarks": []}, "redundancy": {"benchmarks": ["gqa"]}}
    settings |= {
        "backbones": {"llm": "data/backbones/vicuna-7b-v1.5", "tower": "data/backbones/clip-vit-large-patch14-336"}
    }
    inspect_benchmarks(Config.model_validate(settings), tmp_path / "world.json")
    found = read_json(tmp_path / "world.json")
    assert found["counts"]["benchmarks"] == {"gqa": {"questions": 2, "images": 1}}
    assert list(found["sha256"]) == ["gqa-questions"]

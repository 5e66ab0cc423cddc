"""data/registry.tsv: it names every file of the recipe and of both papers' benchmarks, and admits what is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from visiontokens.config import ConfigError, load_config
from visiontokens.config.tables import read_table
from visiontokens.data.benchmarks import BENCHMARKS, MAIN_BENCHMARKS
from visiontokens.data.official import BASES, POPE
from visiontokens.data.registry import WEIGHTS, Entry, choose, destination, needed, read_registry, records_of

REGISTRY = Path("data/registry.tsv")
NINE = {"vqav2", "gqa", "vizwiz", "scienceqa", "textvqa", "pope", "mme", "mmbench", "mmbench_cn"}
LLAVOLTA = NINE | {"mmvet", "llava_bench", "seed", "mmmu"}
"""Columns of LLaVolta's Table 2."""
VIDEO = {"msvd_qa", "msrvtt_qa", "tgif_qa", "activitynet_qa", "mvbench"}
"""LLaVolta's Table 8, and the evaluator in LLaVA-STF's repository."""
HUB = {
    "clip-vit-l-336": "openai/clip-vit-large-patch14-336",
    "vicuna-7b": "lmsys/vicuna-7b-v1.5",
    "vicuna-13b": "lmsys/vicuna-13b-v1.5",
    "llava-1.5-7b": "liuhaotian/llava-v1.5-7b",
    "llava-1.5-13b": "liuhaotian/llava-v1.5-13b",
    "llava-1.5-7b-hf": "llava-hf/llava-1.5-7b-hf",
    "llava-1.5-13b-hf": "llava-hf/llava-1.5-13b-hf",
    "llava-stf-7b": "visresearch/LLaVA-STF",
}


@pytest.fixture(scope="module")
def entries() -> dict[str, Entry]:
    return read_registry(REGISTRY)


def read_by(entries: dict[str, Entry], reader: str) -> set[str]:
    return {name for name, entry in entries.items() if reader in entry.used_by}


def test_the_recipes_data_are_named(entries: dict[str, Entry]) -> None:
    assert read_by(entries, "align") == {"pretrain-annotations", "pretrain-images"}
    sources = {"coco-train2017", "gqa-images", "ocr-vqa-images", "textvqa-images", "vg-images-1", "vg-images-2"}
    assert read_by(entries, "tune") == {"instruct-annotations"} | sources
    places = {entries[name].path.removeprefix("LLaVA-Instruct/images/") for name in sources}
    assert places == {
        "coco/train2017",
        "gqa/images",
        "ocr_vqa/images",
        "textvqa/train_images",
        "vg/VG_100K",
        "vg/VG_100K_2",
    }


def test_the_recipes_weights_are_named(entries: dict[str, Entry]) -> None:
    weights = {name: entry for name, entry in entries.items() if entry.role in WEIGHTS}
    assert {name: entry.hub for name, entry in weights.items()} == {
        name: ("models", repo) for name, repo in HUB.items()
    }
    assert all(len(entry.revision) == 40 for name, entry in weights.items() if name != "llava-stf-7b")


def test_every_benchmark_of_both_papers_has_its_files(entries: dict[str, Entry]) -> None:
    for name in LLAVOLTA | VIDEO:
        assert any(entries[entry].role == "benchmark" for entry in read_by(entries, name)), name


def test_every_benchmark_of_the_table_has_its_files_and_count(entries: dict[str, Entry]) -> None:
    names = [line.split("\t")[0] for line in Path("config/benchmarks.tsv").read_text().splitlines()[1:] if line]
    assert set(names) == set(BENCHMARKS) and set(MAIN_BENCHMARKS) == NINE
    for name in names:
        if name != "msrvtt_qa":  # no source that can be read says how many test questions there are
            assert records_of(entries, name), name
    assert records_of(entries, "pope") == sum(POPE.values()) == 8910
    assert (BASES["mmbench"], entries["mmbench"].records) == (1176, 4377)


def test_the_traps_are_pinned(entries: dict[str, Entry]) -> None:
    for name in ("pope-adversarial", "pope-popular", "pope-random"):
        assert "e3e39262c85a6a83f26cf5094022a782cb0df58d" in entries[name].source
    assert entries["pope-random"].records == 2910
    assert entries["mmbench"].source.endswith("mmbench_dev_20230712.tsv")
    assert entries["seed-questions"].records == 14233


def test_every_entry_says_where_it_comes_from_or_how_to_get_it(entries: dict[str, Entry]) -> None:
    for entry in entries.values():
        assert entry.source or "http" in entry.note, entry.name
        assert entry.role in WEIGHTS or entry.used_by or "optional" in entry.note, entry.name


def test_unknown_values_are_empty_cells() -> None:
    words = {"?", "-", "unknown", "n/a", "none", "tbd", "main"}
    for number, line in enumerate(REGISTRY.read_text(encoding="utf-8").splitlines(), 1):
        assert not [cell for cell in line.split("\t") if cell.lower() in words], number
    rows = [row for _, row in read_table(REGISTRY, Entry)]
    assert [row.name for row in rows if row.bytes and row.size_gb] == [], "a size is exact or rounded"
    assert any(row.gigabytes is None for row in rows)
    assert any(not row.licence for row in rows)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("70f9d1e5e1a697fe35830875cfc7de1dd590d727", "main", "'revision'.*expected a commit of 40"),
        ("\t19336861798\t", "\tabout 19 GB\t", "'bytes'"),
        ("LLaVA-Instruct/images/vg/VG_100K\t", "../VG_100K\t", "'path'.*without '..'"),
        ("LLaVA-Instruct/images/vg/VG_100K\t", "benchmarks/gqa/images\t", "is that of 'gqa-images' too"),
        ("\nvg-images-2\t", "\nvg-images-1\t", "'vg-images-1' occurs twice"),
        ("https://cs.stanford.edu/people/rak248/VG_100K_2/images.zip", "images.zip", "'source'.*expected a URL"),
    ],
)
def test_a_wrong_row_is_an_error_with_its_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = REGISTRY.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "registry.tsv").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"registry\.tsv:\d+: .*{words}"):
        read_registry(tmp_path / "registry.tsv")


def test_a_run_needs_what_it_reads_and_nothing_else(entries: dict[str, Entry]) -> None:
    configs = {
        scale: load_config(["config/config.yaml", f"config/scales/{scale}.yaml"])
        for scale in ("smoke", "reviewer", "paper")
    }
    assert needed(configs["smoke"], entries) == {}
    paper, reviewer = needed(configs["paper"], entries), needed(configs["reviewer"], entries)
    assert {name for name in paper if paper[name].role in WEIGHTS} == {"clip-vit-l-336", "vicuna-7b"}
    assert not {"pretrain-images", "coco-train2017", "ocr-vqa-images"} & set(reviewer)
    assert {"pretrain-images", "coco-train2017", "ocr-vqa-images", "pope-random", "mme"} <= set(paper)
    assert "llava-1.5-7b-hf" in reviewer
    assert not {"mmvet", "seed-questions", "vicuna-13b"} & set(paper)
    folder = destination(paper["vicuna-7b"], configs["paper"])
    assert folder == configs["paper"].backbones.llm


def test_weights_that_are_not_registered_are_named(entries: dict[str, Entry]) -> None:
    config = load_config(["config/config.yaml", "config/scales/paper.yaml"])
    other = config.backbones.model_copy(update={"tower": Path("data/backbones/clip-vit-b")})
    with pytest.raises(ConfigError, match=r"no weights for folder data/backbones/clip-vit-b; known, .*vicuna-7b"):
        needed(config.model_copy(update={"backbones": other}), entries)


def test_downloads_are_chosen_by_role_or_name(entries: dict[str, Entry]) -> None:
    wanted = {name: entries[name] for name in ("vicuna-7b", "mme")}
    assert [entry.name for entry in choose(entries, wanted, roles=["llm"])] == ["vicuna-7b"]
    assert [entry.name for entry in choose(entries, wanted, names=["seed-images"])] == ["seed-images"]
    with pytest.raises(ConfigError, match="unknown download 'vicuna-8b'; did you mean 'vicuna-7b'"):
        choose(entries, wanted, names=["vicuna-8b"])

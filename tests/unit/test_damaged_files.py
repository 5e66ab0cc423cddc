"""Files that were cut off or have a flipped bit: a clear error that names them, or the same content; never another.

A cut that leaves a whole file of its format (a table that ends with a line) cannot be seen in the file itself. Such a
reader then returns a beginning of the content, and its case says what notices that the rest is missing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from damaging import cuts, flips, outcome
from reader_cases import CASES, Case
from smoke_world import smoke_world

from visiontokens.data.benchmarks import find_benchmark

SLOW = {"tokenizer": 12, "reference": 30, "registry": 40, "experiments": 40, "validation": 60}
"""Formats whose whole files take long to read, with their rounds."""


def begins(part: Any, whole: Any) -> bool:
    """Tell whether some content is a beginning of another (its last text or line may be cut)."""
    return len(str(part)) <= len(str(whole)) and part != whole


def damaged_path(case: Case, folder: Path) -> tuple[Path, Path]:
    """Return what a case's reader is given, and the file to damage (of a folder: its questions)."""
    given = case.make(folder)
    return given, given / "instruct.json" if given.is_dir() else given


@pytest.mark.parametrize("name", CASES)
def test_cut_files(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    given, path = damaged_path(case, tmp_path)
    if name == "feature index":
        path = path.with_name("index.json")
    raw, whole = path.read_bytes(), case.read(given)
    for cut in list(cuts(raw))[: SLOW.get(name)]:
        kind, found = outcome(path, cut, lambda: case.read(given), given)
        if kind == "content" and found != whole:
            assert case.beginning, f"{len(cut)} of {len(raw)} bytes read as other content: {str(found)[-200:]}"
            assert begins(found, whole)


@pytest.mark.parametrize("name", CASES)
def test_flipped_bits(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    given, path = damaged_path(case, tmp_path)
    if name == "feature index":
        path = path.with_name("index.json")
    raw, whole = path.read_bytes(), case.read(given)
    for flipped in list(flips(raw))[: SLOW.get(name)]:
        kind, found = outcome(path, flipped, lambda: case.read(given), given)
        assert kind == "error" or found == whole or not case.exact


BENCHMARKS = ("vqav2", "gqa", "vizwiz", "scienceqa", "textvqa", "pope", "mme", "mmbench", "mmbench_cn")
TEXTS = {".json", ".jsonl", ".tsv", ".txt"}
LINES = {"coco_pope_adversarial.json", "coco_pope_popular.json", "coco_pope_random.json", "mmbench_dev_mini.tsv"}
LINES |= {"mmbench_dev_cn_mini.tsv"}
"""Files of lines: a cut between two is noticed by another file (POPE's list) or by the registry's count of records."""


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_files(name: str, tmp_path: Path) -> None:
    shutil.copytree(smoke_world() / "benchmarks", tmp_path / "benchmarks")
    benchmark = find_benchmark(name)
    whole = benchmark.read(tmp_path / "benchmarks")
    paths = sorted(path for path in (tmp_path / "benchmarks" / benchmark.folder).rglob("*") if path.suffix in TEXTS)
    assert paths
    every = max(1, len(paths) // 6)
    for number, path in enumerate(paths[::every]):
        raw = path.read_bytes()
        rounds = 100 // min(3, len(paths[::every]))
        for cut in cuts(raw, number, rounds):
            kind, found = outcome(path, cut, lambda: benchmark.read(tmp_path / "benchmarks"), path.parent)
            if kind == "content" and found != whole:
                assert path.name in LINES, f"{path.name}: {len(cut)} of {len(raw)} bytes read as other questions"
                assert len(found) < len(whole)
                assert found == whole[: len(found)]
        for flipped in flips(raw, number, rounds):
            outcome(path, flipped, lambda: benchmark.read(tmp_path / "benchmarks"), path.parent)
        path.write_bytes(raw)

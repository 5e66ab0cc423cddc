"""Every reader against odd values, mixed lines and foreign bytes, for a second each: content or a clear error.

`VISIONTOKENS_FUZZ_SECONDS=60 pytest tests/unit/test_fuzz_readers.py` looks longer; a failure prints its seed, which
`VISIONTOKENS_FUZZ_SEED` repeats.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest
from damaging import mutations, outcome
from reader_cases import CASES
from smoke_world import smoke_world

from visiontokens.data.benchmarks import find_benchmark

SECONDS = float(os.environ.get("VISIONTOKENS_FUZZ_SECONDS", "1"))
SEED = int(os.environ.get("VISIONTOKENS_FUZZ_SEED", "0"))
BENCHMARKS = ("vqav2", "gqa", "vizwiz", "scienceqa", "textvqa", "pope", "mme", "mmbench", "mmbench_cn")


@pytest.mark.parametrize("name", CASES)
def test_readers(name: str, tmp_path: Path) -> None:
    given = CASES[name].make(tmp_path)
    path = given / "instruct.json" if given.is_dir() else given
    end = time.monotonic() + SECONDS
    for tried, changed in enumerate(mutations(path.read_bytes(), random.Random(SEED))):
        try:
            outcome(path, changed, lambda: CASES[name].read(given), given)
        except AssertionError as err:
            raise AssertionError(f"seed {SEED}, change {tried}: {err}; {changed[:300]!r}") from err
        if time.monotonic() > end:
            break


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks(name: str, tmp_path: Path) -> None:
    shutil.copytree(smoke_world() / "benchmarks", tmp_path / "benchmarks")
    benchmark, rng = find_benchmark(name), random.Random(SEED)
    folder = tmp_path / "benchmarks" / benchmark.folder
    paths = sorted(path for path in folder.rglob("*") if path.suffix in {".json", ".jsonl", ".tsv", ".txt"})
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        path = rng.choice(paths)
        raw = path.read_bytes()
        for _, changed in zip(range(5), mutations(raw, rng), strict=False):
            outcome(path, changed, lambda: benchmark.read(tmp_path / "benchmarks"), folder)
        path.write_bytes(raw)

"""The nine benchmarks of the mini world, written as the official files that `visiontokens.data.benchmarks` reads."""

from __future__ import annotations

from visiontokens.config import WorldConfig
from visiontokens.data.miniworld.benchmarks import gqa, mmbench, mme, pope, scienceqa, textvqa, vizwiz, vqav2
from visiontokens.data.miniworld.files import WorldFiles

FOLDER = "benchmarks"
WRITERS = {
    "vqav2": vqav2.write,
    "gqa": gqa.write,
    "vizwiz": vizwiz.write,
    "scienceqa": scienceqa.write,
    "textvqa": textvqa.write,
    "pope": pope.write,
    "mme": mme.write,
}


def write_benchmarks(files: WorldFiles, world: WorldConfig) -> dict[str, dict[str, int]]:
    """Write all nine below `benchmarks/` and return the counts of each."""
    counts = {name: write(files, world, f"{FOLDER}/{name}") for name, write in WRITERS.items()}
    both = mmbench.write(files, world, f"{FOLDER}/mmbench", f"{FOLDER}/mmbench_cn")
    return counts | {folder.removeprefix(f"{FOLDER}/"): found for folder, found in both.items()}


__all__ = ["FOLDER", "WRITERS", "write_benchmarks"]

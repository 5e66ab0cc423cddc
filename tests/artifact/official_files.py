"""Benchmark files as a user who has them would place them: official names, formats and traps, a handful of questions.

The mini world writes the formats. POPE and MMBench keep their full number of rows, because the workflow knows the
official releases by it; what else counts questions reads the registry, whose copy here says how many there are.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from visiontokens.config import WorldConfig
from visiontokens.data.benchmarks import MAIN_BENCHMARKS
from visiontokens.data.benchmarks.mmbench import ROTATION
from visiontokens.data.miniworld.benchmarks import write_benchmarks
from visiontokens.data.miniworld.files import WorldFiles
from visiontokens.data.official import BASES, POPE
from visiontokens.data.registry import Entry, read_registry
from visiontokens.provenance import write_json

WORLD = WorldConfig(
    vqav2_questions=8, vqav2_images=4, gqa_questions=8, gqa_images=4, vizwiz_questions=6, scienceqa_image=4,
    scienceqa_text=4, textvqa_questions=6, pope_questions=18, mme_lines=2, mmbench_questions=6,
)  # fmt: skip
RENAMED = {
    "mmbench/mmbench_dev_mini.tsv": "mmbench/mmbench_dev_20230712.tsv",
    "mmbench_cn/mmbench_dev_cn_mini.tsv": "mmbench_cn/mmbench_dev_cn_20231003.tsv",
}
ROWS = ["none", "avgpool-test"]
"""Rows that run; the redundancy analysis adds pooling inside the language model at every point of its grid."""
LINES_OF_AN_IMAGE = 6
"""POPE asks six questions about an image in each of its files."""


def write_official(data: Path, registry: Path) -> None:
    """Write all nine benchmarks below `data` and a copy of `registry` over it that counts what is there."""
    write_benchmarks(WorldFiles(data), WORLD)
    root = data / "benchmarks"
    for old, new in RENAMED.items():
        (root / old).rename(root / new)
    _lengthen_pope(root)
    for name, file in zip(("mmbench", "mmbench_cn"), RENAMED.values(), strict=True):
        _lengthen_mmbench(root / file, BASES[name])
    for entry in read_registry(registry).values():
        if entry.also and (data / entry.also).is_dir() and not (data / entry.path).exists():
            (data / entry.path).parent.mkdir(parents=True, exist_ok=True)
            (data / entry.also).rename(data / entry.path)
    _count(registry, data)


def _lengthen_pope(root: Path) -> None:
    """Repeat POPE's lines up to their official number, each six about an image of their own in VQAv2's folder."""
    (root / "pope/llava_pope_test.jsonl").unlink()
    images = sorted((root / "pope/val2014").iterdir())
    for category, wanted in POPE.items():
        path = root / f"pope/coco_pope_{category}.json"
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = []
        for number, line in enumerate(islice(cycle(lines), wanted)):
            name = f"COCO_val2014_{1000 + number // LINES_OF_AN_IMAGE:012d}.jpg"
            target = root / "vqav2/val2014" / name
            if not target.exists():
                os.link(images[number // LINES_OF_AN_IMAGE % len(images)], target)
            rows.append(json.dumps({**line, "question_id": number + 1, "image": name}))
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    for image in images:
        image.unlink()
    (root / "pope/val2014").rmdir()


def _lengthen_mmbench(path: Path, wanted: int) -> None:
    """Repeat MMBench's base questions, with their rotations, up to their official number."""
    table = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), delimiter="\t"))
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in table:
        groups.setdefault(int(row["index"]) % ROTATION, []).append(row)
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(table[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for base, group in enumerate(islice(cycle(groups.values()), wanted)):
            for row in group:
                turn = int(row["index"]) // ROTATION
                image = base if turn else row["image"]
                writer.writerow({**row, "index": base + turn * ROTATION, "image": image})


def _count(registry: Path, data: Path) -> None:
    """Rewrite the registry: records as there are here, and no sizes and checksums of the originals."""
    lines = registry.read_text(encoding="utf-8").splitlines()
    columns = lines[0].split("\t")
    entries = read_registry(registry)
    counts = dict(_records(entries, data))
    for number, line in enumerate(lines):
        cells = line.split("\t")
        if cells[0] in entries and entries[cells[0]].role == "benchmark":
            cells[columns.index("bytes")] = cells[columns.index("sha256")] = ""
            if cells[0] in counts:
                cells[columns.index("records")] = str(counts[cells[0]])
            lines[number] = "\t".join(cells)
    registry.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _records(entries: dict[str, Entry], data: Path) -> Iterator[tuple[str, int]]:
    """Yield entry and number of questions for the one entry of each benchmark that carries it (POPE has three)."""
    for name, benchmark in MAIN_BENCHMARKS.items():
        carriers = [entry.name for entry in entries.values() if entry.records and name in entry.used_by]
        if len(carriers) == 1:
            yield carriers[0], len(benchmark.load(data / "benchmarks" / benchmark.folder))


def corpus(data: Path) -> list[str]:
    """Return what a tokenizer can learn words from: all questions."""
    read = [benchmark.load(data / "benchmarks" / benchmark.folder) for benchmark in MAIN_BENCHMARKS.values()]
    return sorted({example.prompt for examples in read for example in examples})


def overlay(path: Path) -> Path:
    """Write the settings that make the scale's work small: two of its rows, few questions; return the file."""
    write_json(
        path,
        {
            "experiments": {"only": ROWS},
            "evaluate": {"limit": 12, "max_new_tokens": 2, "bootstrap": 20},
            "redundancy": {"limit": 2, "attention_images": 1, "similarity_images": 2},
            "efficiency": {"repeats": 2, "warmup": 0},
            "downloads": {"attempts": 1},
        },
    )
    return path

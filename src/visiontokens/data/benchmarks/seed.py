"""SEED-Bench (v1): multiple choice on images in nine dimensions, and on videos in three (Li et al., 2023).

Files: `SEED-Bench.json` and `SEED-Bench-image/<data_id>` (names without suffix). The image part is the same in all
revisions; the video part was screened again in November 2023 (5,009 rows, then 3,757), so that numbers on "all" belong
to one revision. Video questions are asked about one frame, as by LLaVA-1.5: the middle one, in
`SEED-Bench-video-image/<type>_<id>.png`. One id occurs twice in the official file; the second gets `#2` behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.base import BenchmarkError, Example, find_one, read_object, require

FILE = "SEED-Bench.json"
IMAGES, FRAMES = "SEED-Bench-image", "SEED-Bench-video-image"
OPTIONS = "ABCD"
TYPES = {
    1: "Scene Understanding",
    2: "Instance Identity",
    3: "Instance Attributes",
    4: "Instance Location",
    5: "Instances Counting",
    6: "Spatial Relation",
    7: "Instance Interaction",
    8: "Visual Reasoning",
    9: "Text Understanding",
    10: "Action Recognition",
    11: "Action Prediction",
    12: "Procedure Understanding",
}
"""Names of the question types; from 10 on they are about videos."""
IMAGE_TYPES = range(1, 10)
_KEYS = ("question_id", "question_type_id", "data_id", "question", "answer", *(f"choice_{o}" for o in "abcd"))


def load(root: Path, videos: bool = False) -> list[Example]:
    """Read SEED-Bench below `root`; `videos` adds the questions about videos, each on one frame.

    Raises:
        FileNotFoundError: the question file is missing.
        BenchmarkError: a record lacks a key, or its type or gold letter is none.
    """
    path = find_one(root, FILE)
    examples: list[Example] = []
    seen: Counter[str] = Counter()
    for number, record in enumerate(read_object(path, "questions")):
        where = f"{path}: question {number}"
        require(record, _KEYS, where)
        kind = record["question_type_id"]
        if kind not in TYPES:
            raise BenchmarkError(f"{where}: found question_type_id {kind!r}, expected 1 to {len(TYPES)}")
        if kind in IMAGE_TYPES or videos:
            seen[str(record["question_id"])] += 1
            examples.append(_example(record, seen[str(record["question_id"])], where))
    return examples


def _example(record: Mapping[str, Any], occurrence: int, where: str) -> Example:
    """Turn one record into an example; `occurrence` counts the records with its id from 1."""
    if record["answer"] not in tuple(OPTIONS):
        raise BenchmarkError(f"{where}: found answer {record['answer']!r}, expected one of {', '.join(OPTIONS)}")
    kind, official_id = int(record["question_type_id"]), str(record["question_id"])
    options = tuple(str(record[f"choice_{letter.lower()}"]) for letter in OPTIONS)
    about_image = kind in IMAGE_TYPES
    return Example(
        question_id=official_id if occurrence == 1 else f"{official_id}#{occurrence}",
        image=f"{IMAGES}/{record['data_id']}" if about_image else f"{FRAMES}/{kind}_{official_id}.png",
        prompt=prompts.option_letter(f"{record['question']}\n{prompts.lettered(options)}"),
        group=str(record["data_id"]),
        meta={
            "answer": record["answer"],
            "options": options,
            "type": TYPES[kind],
            "part": "image" if about_image else "video",
            "official_id": official_id,
        },
    )

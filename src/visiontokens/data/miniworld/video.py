"""Writes the clips: a Video-LLaVA-style instruction mix, an MSVD-QA and an ActivityNet-QA, all in official formats.

The clips have random streams and files of their own; the images of the world, which the mix uses too, stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from visiontokens.config import ClipsConfig
from visiontokens.data.benchmarks import prompts
from visiontokens.data.miniworld.benchmarks.vqav2 import shares
from visiontokens.data.miniworld.clip_questions import ALL, MSVD, TYPES, ClipQuestion, ask_clip
from visiontokens.data.miniworld.clips import Clips, sample_clips
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.videos import write_video
from visiontokens.provenance import atomic_write, read_json, sha256_file, write_json

FOLDER = "video"
ANNOTATIONS = f"{FOLDER}/llava_video_mix_mini.json"
MSVD_FOLDER, ACTIVITYNET_FOLDER = "benchmarks/msvd_qa", "benchmarks/activitynet_qa"
PARTS = (FOLDER, MSVD_FOLDER, ACTIVITYNET_FOLDER)
TABLE_FILE, RECORD_FILE = "videos.tsv", "clips.json"
"""The list of videos by set, and the record, which is written last."""
MSVD_TYPES = ("what", "who", "how", "when", "where")
"""MSVD-QA's question types: the first word."""
_OTHER_TYPE = "what"  # MSVD-QA files "which" and the rest under it


def build_clips(root: Path, clips: ClipsConfig, instructions: Path) -> None:
    """Write the clips below `root`, beside a world's images; the same settings give the same bytes.

    Args:
        root: the data folder.
        clips: sizes and seed.
        instructions: the image instruction mix of the same folder; some of its records join the clips'.

    Raises:
        FileNotFoundError: there is no such mix.
        ValueError: it has fewer image records than asked for.
    """
    draft = root.parent / f".{root.name}.clips.partial"
    shutil.rmtree(draft, ignore_errors=True)
    files = WorldFiles(draft)
    listed: list[tuple[str, str]] = []
    counts = {
        "train": _write_training(files, clips, _image_records(instructions, clips.images), listed),
        "msvd_qa": _write_msvd(files, clips, listed),
        "activitynet_qa": _write_activitynet(files, clips, listed),
    }
    digests = {path: sha256_file(draft / path) for _, path in listed}
    texts = sorted(p.relative_to(draft).as_posix() for p in draft.rglob("*.json"))
    record = {
        "clips": clips.model_dump(mode="json"),
        "counts": counts,
        "videos": {"count": len(digests), "sha256": hashlib.sha256(json.dumps(digests).encode()).hexdigest()},
        "sha256": {path: sha256_file(draft / path) for path in texts},
    }
    for name in (RECORD_FILE, TABLE_FILE):
        (root / name).unlink(missing_ok=True)
    for part in PARTS:
        shutil.rmtree(root / part, ignore_errors=True)
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        (draft / part).rename(root / part)
    shutil.rmtree(draft)
    with atomic_write(root / TABLE_FILE) as handle:
        handle.write("set\tpath\n" + "".join(f"{name}\t{path}\n" for name, path in listed))
    write_json(root / RECORD_FILE, record)


def _image_records(path: Path, count: int) -> list[dict[str, Any]]:
    """Return the first `count` image records of an instruction mix."""
    found = [record for record in read_json(path) if "image" in record]
    if len(found) < count:
        raise ValueError(f"{path}: found {len(found)} image records, expected at least {count} (video.clips.images)")
    return found[:count]


def _write_clips(files: WorldFiles, clips: Clips, paths: Sequence[str]) -> None:
    """Render and write clips; paths are relative to the root."""
    for number, path in enumerate(paths):
        target = files.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_video(target, clips.pixels(number))


def _write_training(
    files: WorldFiles, sizes: ClipsConfig, images: list[dict[str, Any]], listed: list[tuple[str, str]]
) -> dict[str, int]:
    """Write the mix: one record with all its questions for each clip, and the image records behind them."""
    source = Source(sizes.seed, "clips", "train")
    clips = sample_clips(source, sizes.train, sizes.length)
    names = [f"clip{number:05d}.avi" for number in range(sizes.train)]
    records, turns = [], 0
    for number, name in enumerate(names):
        found = ask_clip(clips[number], ALL, sizes.questions, source.rng)
        records.append({"id": name.removesuffix(".avi"), "video": name, "conversations": _conversation(found)})
        turns += len(found)
    _write_clips(files, clips, [f"{FOLDER}/videos/{name}" for name in names])
    listed += [("video", f"{FOLDER}/videos/{name}") for name in names]
    files.add_json(ANNOTATIONS, [*records, *images])
    return {"records": len(records) + len(images), "videos": len(records), "images": len(images), "turns": turns}


def _conversation(questions: Sequence[ClipQuestion]) -> list[dict[str, str]]:
    """Return a LLaVA conversation; the first question has the placeholder and the instruction."""
    rows = []
    for number, question in enumerate(questions):
        text = question.text if number else f"<video>\n{prompts.short_answer(question.text)}"
        rows += [{"from": "human", "value": text}, {"from": "gpt", "value": question.answer}]
    return rows


def _write_msvd(files: WorldFiles, sizes: ClipsConfig, listed: list[tuple[str, str]]) -> dict[str, int]:
    """Write the MSVD-QA: videos by name, question ids counted through, types by the first word."""

    def kind(question: ClipQuestion) -> str:
        """Return a question's type: its first word, if MSVD-QA counts it."""
        word = question.text.split()[0].lower()
        return word if word in MSVD_TYPES else _OTHER_TYPE

    source = Source(sizes.seed, "msvd_qa", "test")
    clips = sample_clips(source, min(sizes.msvd_videos, sizes.msvd_questions), sizes.length)
    names = [f"vid{1301 + number}" for number in range(len(clips))]
    asked = _asked(clips, MSVD, sizes.msvd_questions, source)
    rows = [(name, q) for name, questions in zip(names, asked, strict=True) for q in questions]
    ids = range(len(rows))
    _write_pair(files, MSVD_FOLDER, rows, ids, kind)
    _write_clips(files, clips, [f"{MSVD_FOLDER}/videos/{name}.avi" for name in names])
    listed += [("videotest", f"{MSVD_FOLDER}/videos/{name}.avi") for name in names]
    return {"questions": len(rows), "videos": len(clips)}


def _write_activitynet(files: WorldFiles, sizes: ClipsConfig, listed: list[tuple[str, str]]) -> dict[str, int]:
    """Write the ActivityNet-QA: `v_<name>` files, ids `v_<name>_<n>`, types by number."""
    source = Source(sizes.seed, "activitynet_qa", "test")
    clips = sample_clips(source, min(sizes.activitynet_videos, sizes.activitynet_questions), sizes.length)
    names = [f"mini{number:07d}" for number in range(len(clips))]
    asked = _asked(clips, ALL, sizes.activitynet_questions, source)
    rows = [(name, q) for name, questions in zip(names, asked, strict=True) for q in questions]
    ids = [f"v_{name}_{n}" for name, questions in zip(names, asked, strict=True) for n in range(len(questions))]
    _write_pair(files, ACTIVITYNET_FOLDER, rows, ids, lambda question: TYPES.index(question.kind))
    _write_clips(files, clips, [f"{ACTIVITYNET_FOLDER}/videos/v_{name}.avi" for name in names])
    listed += [("videotest", f"{ACTIVITYNET_FOLDER}/videos/v_{name}.avi") for name in names]
    return {"questions": len(rows), "videos": len(clips)}


def _asked(clips: Clips, weights: Mapping[str, float], total: int, source: Source) -> list[list[ClipQuestion]]:
    """Return every clip's share of `total` questions."""
    counts = shares(total, len(clips))
    return [ask_clip(clips[i], weights, count, source.rng) for i, count in enumerate(counts)]


def _write_pair(
    files: WorldFiles,
    folder: str,
    rows: Sequence[tuple[str, ClipQuestion]],
    ids: Sequence[int | str],
    kind: Callable[[ClipQuestion], int | str],
) -> None:
    """Write `test_q.json` and `test_a.json` of one benchmark."""
    both = list(zip(ids, rows, strict=True))
    asked = [{"video_name": name, "question": q.text, "question_id": i} for i, (name, q) in both]
    answers = [{"answer": q.answer, "type": kind(q), "question_id": i} for i, (_, q) in both]
    files.add_json(f"{folder}/test_q.json", asked)
    files.add_json(f"{folder}/test_a.json", answers)

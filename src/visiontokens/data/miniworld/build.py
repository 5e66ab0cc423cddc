"""Writes a whole world, in the official file formats, from one seed."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from visiontokens.config import WorldConfig
from visiontokens.data.miniworld.benchmarks import FOLDER as BENCHMARKS_FOLDER
from visiontokens.data.miniworld.benchmarks import write_benchmarks
from visiontokens.data.miniworld.captions import FOLDER as CAPTIONS_FOLDER
from visiontokens.data.miniworld.captions import write_captions
from visiontokens.data.miniworld.files import IMAGE_SETS, WorldFiles
from visiontokens.data.miniworld.instruct import FOLDER as INSTRUCT_FOLDER
from visiontokens.data.miniworld.instruct import VALIDATION, write_instructions, write_validation
from visiontokens.provenance import atomic_write, sha256_file, write_json

PARTS = (CAPTIONS_FOLDER, INSTRUCT_FOLDER, VALIDATION, BENCHMARKS_FOLDER)
"""Folders of a world."""
IMAGES_FILE = "images.tsv"
RECORD_FILE = "world.json"
"""Written last: a world without it is not complete."""
_TEXT_SUFFIXES = {".json", ".jsonl", ".tsv", ".txt"}


def build_world(root: Path, world: WorldConfig) -> None:
    """Write `world` to the folder `root`; the same settings give the same bytes.

    Everything is written to a temporary sibling first and then moved into place part by part, `images.tsv` and
    `world.json` last. What else lies in `root` (cached features) is left alone.
    """
    root = Path(root)
    draft = root.parent / f".{root.name}.partial"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    files = WorldFiles(draft)
    counts: dict[str, Any] = {
        "pretrain": write_captions(files, world),
        "instruct": write_instructions(files, world),
        "validation": write_validation(files, world),
        "benchmarks": write_benchmarks(files, world),
    }
    images = sorted(files.images, key=lambda row: (IMAGE_SETS.index(row[0]), row[1]))
    record = {
        "world": world.model_dump(mode="json"),
        "counts": counts,
        "images": {name: image_digest(draft, images, name) for name in IMAGE_SETS},
        "sha256": annotation_digests(draft),
    }
    _move_into_place(draft, root)
    with atomic_write(root / IMAGES_FILE) as handle:
        handle.write("set\tpath\n" + "".join(f"{image_set}\t{path}\n" for image_set, path in images))
    write_json(root / RECORD_FILE, record)


def image_digest(root: Path, images: list[tuple[str, str]], image_set: str) -> dict[str, Any]:
    """Return number and digest of a set's images: SHA-256 over path and content of each, in the order of the list."""
    digest = hashlib.sha256()
    paths = [path for name, path in images if name == image_set]
    for path in paths:
        digest.update(path.encode() + b"\0" + hashlib.sha256((root / path).read_bytes()).digest())
    return {"count": len(paths), "sha256": digest.hexdigest()}


def annotation_digests(root: Path) -> dict[str, str]:
    """Return path -> SHA-256 of every file that is not an image."""
    found = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix in _TEXT_SUFFIXES)
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in found}


def _move_into_place(draft: Path, root: Path) -> None:
    """Replace the parts in `root` by those in `draft`; the completeness marks go first."""
    root.mkdir(parents=True, exist_ok=True)
    for name in (RECORD_FILE, IMAGES_FILE):
        (root / name).unlink(missing_ok=True)
    for part in PARTS:  # clips and further benchmarks lie beside these: they stay
        for source in sorted((draft / part).iterdir()) if part == BENCHMARKS_FOLDER else [draft / part]:
            target = root / source.relative_to(draft)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            source.rename(target)
    shutil.rmtree(draft)

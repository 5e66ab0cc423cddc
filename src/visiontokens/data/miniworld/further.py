"""Writes the benchmarks that only some scales ask for, beside a world that stays as it is.

They have random streams, a table of images (`further.tsv`) and a record of their own: a scale that asks for one shares
the rest of its data, to the byte, with those that do not.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from visiontokens.config import FurtherConfig
from visiontokens.data.benchmarks.base import FURTHER_SET
from visiontokens.data.miniworld.benchmarks import FOLDER, mmmu, mmvet, seed
from visiontokens.data.miniworld.build import annotation_digests, image_digest
from visiontokens.data.miniworld.files import WorldFiles
from visiontokens.provenance import atomic_write, write_json

WRITERS = {"seed": seed.write, "mmmu": mmmu.write, "mmvet": mmvet.write}
TABLE_FILE, RECORD_FILE = f"{FURTHER_SET}.tsv", f"{FURTHER_SET}.json"
"""The list of images, and the record, which is written last."""


def build_further(root: Path, sizes: FurtherConfig, names: Sequence[str]) -> None:
    """Write the benchmarks `names` below `root/benchmarks`; the same settings give the same bytes.

    Args:
        root: the data folder.
        sizes: sizes and seed.
        names: which to write; those of another run that are not among them stay, but are not listed.

    Raises:
        ValueError: one of them is unknown here, or none is named.
    """
    unknown = [name for name in names if name not in WRITERS]
    if unknown or not names:
        raise ValueError(f"further benchmarks: found {list(names)}, expected some of {', '.join(WRITERS)}")
    root = Path(root)
    draft = root.parent / f".{root.name}.further.partial"
    shutil.rmtree(draft, ignore_errors=True)
    files = WorldFiles(draft)
    counts = {name: WRITERS[name](files, sizes, f"{FOLDER}/{name}") for name in names}
    images = sorted(files.images, key=lambda row: row[1])
    record = {
        "further": sizes.model_dump(mode="json"),
        "counts": {"benchmarks": counts},
        "images": {FURTHER_SET: image_digest(draft, images, FURTHER_SET)},
        "sha256": annotation_digests(draft),
    }
    for name in (RECORD_FILE, TABLE_FILE):
        (root / name).unlink(missing_ok=True)
    for name in names:
        target = root / FOLDER / name
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        (draft / FOLDER / name).rename(target)
    shutil.rmtree(draft)
    with atomic_write(root / TABLE_FILE) as handle:
        handle.write("set\tpath\n" + "".join(f"{name}\t{path}\n" for name, path in images))
    write_json(root / RECORD_FILE, record)

"""Official files before they are used: the right revision, the expected counts, and every image there.

The traps: POPE's later commits hold 3,000 other random lines; MMBench's later releases have 1,164 base questions; only
SEED's image part is the same in all revisions; GQA's testdev has no choices, which nothing here asks for; mix665k
links to images that are gone, and what is downloaded in their place is often no image.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from visiontokens.config import Config, TrainStageConfig
from visiontokens.data.benchmarks import Example, find_benchmark, mmbench, mmmu
from visiontokens.data.registry import Entry, destination, needed, read_registry, records_of
from visiontokens.provenance import atomic_write, read_json, sha256_file, write_json

log = logging.getLogger(__name__)
POPE = {"adversarial": 3000, "popular": 3000, "random": 2910}
"""Lines of POPE at commit e3e3926, the revision of LLaVA-1.5's question file."""
BASES = {"mmbench": 1176, "mmbench_cn": 1164}
"""Base questions of MMBench dev 20230712 and of MMBench-CN dev 20231003; rotations come on top."""
SUFFIXES = (".jpg", ".png", ".gif", ".jpeg", ".webp")
"""Formats in which an image of mix665k may have been saved where it names another one (OCR-VQA: .jpg throughout)."""
EXTRACTORS: dict[str, Callable[[Path], object]] = {
    "mmbench": mmbench.extract_images,
    "mmbench_cn": mmbench.extract_images,
    "mmmu": mmmu.extract_images,
}
"""Benchmarks whose official files hold their images inside."""


class OfficialError(ValueError):
    """An official file is of another revision, incomplete, or points to images that are not there."""


def inspect_stage(config: Config, stage: str, out: Path, listing: Path) -> dict[str, Any]:
    """Check a training stage's annotations and write them, without records whose image is missing, to `out`.

    Args:
        config: settings of the run.
        stage: `align` or `tune`.
        out: the annotation file that training reads.
        listing: receives the missing images (not there, empty, or no image), one a line; written also when there are
            too many.

    Raises:
        OfficialError: another number of records than registered, or more images missing than
            `downloads.max_missing_images` allows.
        FileNotFoundError: the annotation file is not there.
    """
    settings: TrainStageConfig = getattr(config.train, stage)
    entries = read_registry(config.downloads.registry)
    entry = next(e for e in entries.values() if e.role == "annotations" and stage in e.used_by)
    path = destination(entry, config)
    records = read_json(path)
    if entry.records is not None and len(records) != entry.records:
        raise OfficialError(f"{path}: found {len(records)} records, expected {entry.records} (version {entry.version})")
    folder = config.data_dir / settings.images
    images = {record["image"] for record in records if record.get("image")}
    missing = {image for image in images if not _is_image(folder / image)}
    _list_missing(listing, folder, missing)
    kept = [record for record in records if record.get("image") not in missing]
    share = len(missing) / max(1, len(images))
    if share > config.downloads.max_missing_images:
        raise OfficialError(
            f"{path}: {len(missing)} of {len(images)} images are missing ({share:.2%}), allowed "
            f"{config.downloads.max_missing_images:.2%} (downloads.max_missing_images); they are listed in {listing}"
        )
    with atomic_write(out) as handle:
        json.dump(kept, handle, ensure_ascii=False)
    log.info("%s: %d of %d records, %d of %d images missing", stage, len(kept), len(records), len(missing), len(images))
    return {"records": len(kept), "left_out": len(records) - len(kept), "missing_images": len(missing)}


def _is_image(path: Path) -> bool:
    """Return whether an image begins there; its pixels are not decoded.

    An address that is dead may give a page or a placeholder of one pixel in place of the image.
    """
    try:
        with Image.open(path) as image:
            return min(image.size) > 1
    except (OSError, ValueError):
        return False


def _list_missing(listing: Path, folder: Path, missing: set[str]) -> None:
    """Write the missing images, with the file of another format where one has the same name."""
    with atomic_write(listing) as handle:
        for image in sorted(missing):
            others = (Path(image).with_suffix(suffix) for suffix in SUFFIXES)
            other = next((path.name for path in others if _is_image(folder / path)), "")
            handle.write(f"{image}\tfound {other}: convert it\n" if other else f"{image}\n")


def inspect_benchmarks(config: Config, out: Path) -> None:
    """Check every benchmark that the run reads and write counts and checksums of the official files to `out`.

    Raises:
        OfficialError: a benchmark's revision, counts or images are not as expected.
        FileNotFoundError: a file is missing.
    """
    entries = read_registry(config.downloads.registry)
    names = dict.fromkeys((*config.evaluate.benchmarks, *config.redundancy.benchmarks))
    counts = {name: inspect_benchmark(config, entries, name) for name in names}
    files = {
        entry.name: sha256_file(destination(entry, config))
        for entry in needed(config, entries).values()
        if entry.role == "benchmark" and destination(entry, config).is_file()
    }
    write_json(out, {"world": None, "counts": {"benchmarks": counts}, "sha256": files})


def inspect_benchmark(config: Config, entries: dict[str, Entry], name: str) -> dict[str, int]:
    """Return a benchmark's counts after checking them.

    Raises:
        OfficialError: see `inspect_benchmarks`.
    """
    root = config.data_dir / "benchmarks"
    benchmark = find_benchmark(name)
    if name in EXTRACTORS:
        EXTRACTORS[name](root / benchmark.folder)
    examples = benchmark.read(root)
    expected = records_of(entries, name)
    if name in TRAPS:
        TRAPS[name](examples)
    if expected is not None and len(examples) != expected:
        raise OfficialError(f"{root / benchmark.folder}: found {len(examples)} questions, expected {expected}")
    paths = {path for example in examples if (path := benchmark.image_path(root, example)) is not None}
    whole = Path.exists if benchmark.video else _is_image
    missing = sorted(str(path) for path in paths if not whole(path))
    if missing:
        raise OfficialError(
            f"{root / benchmark.folder}: {len(missing)} of {len(paths)} images are missing or no images: {missing[0]}"
        )
    log.info("%s: %d questions on %d images", name, len(examples), len(paths))
    return {"questions": len(examples), "images": len(paths)}


def check_pope(examples: Sequence[Example]) -> None:
    """Raise unless the three files have the lines of commit e3e3926."""
    found = Counter(example.meta["category"] for example in examples)
    if found != POPE:
        raise OfficialError(f"pope: found {dict(found)} lines, expected {POPE}: take commit e3e3926, not a later one")


def check_bases(name: str) -> Callable[[Sequence[Example]], None]:
    """Return a check of MMBench's number of base questions."""

    def check(examples: Sequence[Example]) -> None:
        """Compare the number of base questions with that of the release."""
        bases = len({example.group for example in examples})
        if bases != BASES[name]:
            raise OfficialError(f"{name}: found {bases} base questions, expected {BASES[name]}: another release")

    return check


TRAPS: dict[str, Callable[[Sequence[Example]], None]] = {
    "pope": check_pope,
    **{name: check_bases(name) for name in BASES},
}
"""Checks by benchmark that a plain count would not make, or not explain."""

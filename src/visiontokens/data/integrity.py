"""Is what a job reads still what was made? The generated world by its record, everything else by its seal."""

from __future__ import annotations

from pathlib import Path

from visiontokens.config import Config
from visiontokens.data.benchmarks.base import FURTHER_SET
from visiontokens.data.features import image_paths
from visiontokens.data.miniworld import further
from visiontokens.data.miniworld.build import IMAGES_FILE, RECORD_FILE, image_digest
from visiontokens.data.videos import VIDEO_SETS
from visiontokens.provenance import read_json, sha256_file
from visiontokens.seals import check, check_below

RECORDS = (RECORD_FILE, "clips.json", further.RECORD_FILE)
RESULTS = ("scores", "predictions", "validation", "redundancy", "efficiency", "search", "models")
"""Folders of results that pages are made from."""


class WorldError(ValueError):
    """The generated data are not those that their record describes."""


def check_world(config: Config) -> None:
    """Check questions, annotations and captions of a generated world; official files are the registry's business.

    Raises:
        WorldError: a file is missing or another one.
    """
    if config.world is None:
        return
    for record in (config.data_dir / name for name in RECORDS if (config.data_dir / name).is_file()):
        for name, expected in _entry(record, "sha256").items():
            path = config.data_dir / name
            if not path.is_file():
                raise WorldError(f"{path}: missing, expected it as listed in {record}; {_again(record)}")
            if (found := sha256_file(path)) != expected:
                raise WorldError(
                    f"{path}: found SHA-256 {found[:12]}, expected {str(expected)[:12]} as in {record}; "
                    f"{_again(record)}"
                )


def check_images(config: Config, image_set: str) -> None:
    """Check the images of one set of a generated world, names and bytes.

    Raises:
        FileNotFoundError: an image is missing.
        WorldError: the list or an image is another one.
    """
    names = (further.RECORD_FILE, further.TABLE_FILE) if image_set == FURTHER_SET else (RECORD_FILE, IMAGES_FILE)
    record, table = (config.data_dir / name for name in names)
    if config.world is None or image_set in VIDEO_SETS or not record.is_file():
        return
    expected = _entry(record, "images").get(image_set)
    paths = image_paths(config.data_dir, image_set)
    found = image_digest(config.data_dir, [(image_set, path) for path in paths], image_set)
    if found != expected:
        raise WorldError(
            f"{table}: the images of set {image_set!r} ({len(paths)}) are not those that {record} describes; "
            f"{_again(record)}"
        )


def check_inputs(config: Config, *folders: Path | None) -> None:
    """Check what a job with a model reads: the world, and folders with weights; features are checked where opened.

    Raises:
        WorldError, SealError: something is damaged.
    """
    check_world(config)
    for weights in (config.backbones.tower, config.backbones.llm, *folders):
        if weights is not None:
            check(weights)


def check_results(config: Config) -> None:
    """Check all results that tables and figures read (weights are not among them).

    Raises:
        SealError: a file is damaged.
    """
    for folder in (*(config.results_dir / name for name in RESULTS), config.leaderboard_dir):
        check_below(folder, skip={".safetensors"})


def _entry(record: Path, key: str) -> dict[str, object]:
    content = read_json(record)
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, dict):
        raise WorldError(f"{record}: key {key!r}: found {found!r}, expected a mapping; {_again(record)}")
    return found


def _again(record: Path) -> str:
    return f"remove {record} to have the data made again"

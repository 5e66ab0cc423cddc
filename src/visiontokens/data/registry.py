"""Every file of the papers' recipe: `data/registry.tsv` as typed rows, and which of them a run needs.

Empty cells are unknown, never guessed: a file without a published checksum is trusted at first download and held to
what came then (`visiontokens.data.fetch`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from visiontokens.config import Config, ConfigError, load_experiments
from visiontokens.config.load import suggest
from visiontokens.config.section import Section
from visiontokens.config.tables import read_table

Role = Literal["annotations", "images", "benchmark", "tower", "llm", "checkpoint"]
WEIGHTS: frozenset[str] = frozenset({"tower", "llm", "checkpoint"})
"""Roles whose files lie in a folder of weights, not in the data folder."""
HUB = re.compile(r"hf(-dataset)?:([\w.-]+/[\w.-]+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Entry(Section):
    """One row: a file, an archive or a folder of weights."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """Name on the command line and in receipts."""
    role: Role
    """What it is for."""
    version: str
    """Release, split or commit."""
    source: str
    """URL, `hf:owner/name` or `hf-dataset:owner/name`; empty = to be placed by hand, `note` says how."""
    revision: str
    """Commit of a hub repository; empty = not known to us: the newest at the first download is recorded and kept."""
    files: tuple[str, ...]
    """Files of a hub repository; `*` matches within and across folders."""
    bytes: int | None = Field(ge=1)
    """Exact size of the download."""
    size_gb: float | None = Field(gt=0)
    """Size in GB where the exact one is not published; for plans only."""
    sha256: str
    """Published checksum."""
    licence: str
    """Terms of use; empty = not known to us."""
    used_by: tuple[str, ...]
    """Training stages and benchmarks that read it."""
    path: str
    """Where it goes: below the data folder; for weights the folder's name."""
    member: str
    """What is taken out of an archive: `*` for everything, else one file; empty = not an archive."""
    also: str
    """Second path (a link) for data that two readers expect in different places."""
    records: int | None = Field(ge=1)
    """Samples or questions in it; benchmarks sum it over their rows."""
    note: str
    """What to know, or how to get it by hand."""

    @field_validator("files", "used_by", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @field_validator("bytes", "size_gb", "records", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("source")
    @classmethod
    def _source(cls, value: str) -> str:
        if value and not value.startswith(("https://", "http://")) and not HUB.fullmatch(value):
            raise ValueError("expected a URL, hf:owner/name or hf-dataset:owner/name")
        return value

    @field_validator("sha256")
    @classmethod
    def _sha256(cls, value: str) -> str:
        if value and not _SHA256.fullmatch(value):
            raise ValueError("expected 64 hexadecimal digits, or nothing where none is published")
        return value

    @field_validator("revision")
    @classmethod
    def _revision(cls, value: str) -> str:
        if value and not _COMMIT.fullmatch(value):
            raise ValueError("expected a commit of 40 hexadecimal digits, or nothing where it is not known")
        return value

    @field_validator("path", "also", "files")
    @classmethod
    def _inside(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for path in (value,) if isinstance(value, str) else value:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise ValueError("expected a relative path without '..'")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.path:
            raise ValueError("path: expected where the file goes")
        if self.hub is not None and not self.files:
            raise ValueError("a hub repository needs the column 'files'")
        if self.member and self.hub is not None and len(self.files) != 1:
            raise ValueError("an archive is one file")
        if not self.source and not self.note:
            raise ValueError("without a source, 'note' must say how to get it")
        return self

    @property
    def hub(self) -> tuple[str, str] | None:
        """Kind (`models` or `datasets`) and id of the hub repository, if it comes from one."""
        match = HUB.fullmatch(self.source)
        return ("datasets" if match[1] else "models", match[2]) if match else None

    @property
    def gigabytes(self) -> float | None:
        """Size of the download in GB (1e9 bytes), if known."""
        return self.bytes / 1e9 if self.bytes else self.size_gb

    @property
    def is_single(self) -> bool:
        """True when one file is fetched."""
        return self.hub is None or (len(self.files) == 1 and "*" not in self.files[0])


def read_registry(path: Path) -> dict[str, Entry]:
    """Read and check the registry.

    Raises:
        FileNotFoundError: the table is not there.
        ConfigError: a wrong column or value, or a name or path that occurs twice; the message names line and column.
    """
    rows: dict[str, Entry] = {}
    places: dict[str, str] = {}
    for number, row in read_table(path, Entry):
        if row.name in rows:
            raise ConfigError(f"{path}:{number}: column 'name': '{row.name}' occurs twice")
        for place in filter(None, (row.path, row.also)):
            if place in places:
                raise ConfigError(f"{path}:{number}: column 'path': '{place}' is that of '{places[place]}' too")
            places[place] = row.name
        rows[row.name] = row
    return rows


def destination(entry: Entry, config: Config) -> Path:
    """Return where an entry's file or folder lies under `config`."""
    if entry.role in WEIGHTS:
        return config.backbones.llm.parent / entry.path
    return config.data_dir / entry.path


def needed(config: Config, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return the entries that a run under `config` reads, in table order; none where the data are generated.

    Raises:
        ConfigError: a folder of weights in the settings is not in the registry.
    """
    if config.world is not None:
        return {}
    rows = load_experiments(config)
    readers = {*config.evaluate.benchmarks, *config.redundancy.benchmarks}
    if any(row.trained and name not in config.experiments.released for name, row in rows.items()):
        readers |= {"align", "tune"}
    folders = {config.backbones.tower, config.backbones.llm, *config.experiments.released.values()}
    found = {
        name: entry
        for name, entry in entries.items()
        if readers & set(entry.used_by) or (entry.role in WEIGHTS and destination(entry, config) in folders)
    }
    unknown = folders - {destination(entry, config) for entry in found.values()}
    if unknown:
        known = ", ".join(entry.path for entry in entries.values() if entry.role in WEIGHTS)
        raise ConfigError(
            f"{config.downloads.registry}: no weights for folder {sorted(map(str, unknown))[0]}; "
            f"known, beside {config.backbones.llm}: {known}"
        )
    return found


def choose(
    entries: Mapping[str, Entry], wanted: Mapping[str, Entry], roles: Iterable[str] = (), names: Iterable[str] = ()
) -> list[Entry]:
    """Return the entries called `names`, or else those of `wanted` with one of `roles` (all roles if none is named).

    Raises:
        ConfigError: an unknown name; the message has the closest known one.
    """
    names, roles = list(names), set(roles)
    for name in names:
        if name not in entries:
            raise ConfigError(f"unknown download '{name}'{suggest(name, entries)}")
    if names:
        return [entries[name] for name in names]
    return [entry for entry in wanted.values() if not roles or entry.role in roles]


def records_of(entries: Mapping[str, Entry], reader: str) -> int | None:
    """Return the samples (of a stage) or questions (of a benchmark) that `reader` reads; None = not known."""
    counts = [entry.records for entry in entries.values() if reader in entry.used_by and entry.records]
    return sum(counts) if counts else None

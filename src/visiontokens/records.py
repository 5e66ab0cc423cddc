"""Snakemake's own records of what made which file, as one diff-friendly file that travels with the repository.

After a clone, dates say nothing and the records under `.snakemake/metadata` are missing; brought back, they let
Snakemake compare contents, parameters and code: nothing re-runs, and later edits are still noticed (`snakemake
--touch` would hide them). Times and job ids are left out, so that the same results give the same file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

from visiontokens.provenance import atomic_write, read_json, write_json

METADATA = Path(".snakemake/metadata")
VOLATILE = ("starttime", "endtime", "job_hash", "external_jobid")
NAME_LIMIT = 254


class RecordError(ValueError):
    """A record or a file of records is not what Snakemake writes."""


def export_records(file: Path, metadata: Path = METADATA) -> int:
    """Write the records of all files that exist to `file` and return their number.

    Raises:
        FileNotFoundError: Snakemake has left no records here.
        RecordError: a record cannot be read.
    """
    if not metadata.is_dir():
        raise FileNotFoundError(f"{metadata}: no records; run snakemake first")
    records = {}
    for path, name in _stored(metadata):
        if Path(name).exists():
            records[name] = read_json(path) | dict.fromkeys(VOLATILE)
    write_json(file, records)
    return len(records)


def restore_records(file: Path, metadata: Path = METADATA) -> int:
    """Bring back the records in `file` of all files that exist and have none yet; return how many were restored.

    Raises:
        FileNotFoundError: `file` is not there.
        RecordError: `file` does not hold records.
    """
    records = read_json(file)
    if not isinstance(records, dict) or not all(isinstance(record, dict) for record in records.values()):
        raise RecordError(f"{file}: expected one record per file name")
    restored = 0
    for name, record in records.items():
        path = metadata.joinpath(*_encode(name))
        if Path(name).exists() and not path.exists():
            with atomic_write(path) as handle:
                json.dump(record, handle)
            restored += 1
    return restored


def _stored(metadata: Path) -> Iterator[tuple[Path, str]]:
    """Yield (record file, name of the file it is about)."""
    for path in sorted(metadata.rglob("*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        code = "".join(part.removeprefix("@") for part in path.relative_to(metadata).parts)
        try:
            yield path, base64.urlsafe_b64decode(code.encode()).decode()
        except ValueError as err:
            raise RecordError(f"{path}: not the name of a Snakemake record") from err


def _encode(name: str) -> list[str]:
    """Return the path parts under which Snakemake files the record of `name`: base64, long names in pieces."""
    code = base64.urlsafe_b64encode(name.encode()).decode()
    parts = []
    while len(code) > NAME_LIMIT:
        parts.append(f"@{code[:NAME_LIMIT]}")
        code = code[NAME_LIMIT:]
    return [*parts, code]

"""Writing safetensors as a stream: the header is known before the first byte, so no tensor is ever held whole."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from visiontokens.models.convert.files import CODES, Stored
from visiontokens.provenance import write_json

SHARD = 4 << 30
"""Bytes of one output file, unless one tensor alone is larger."""


@dataclass(frozen=True)
class Output:
    """A tensor to be written; `pieces` yields its bytes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: Callable[[], Iterator[bytes]]

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        return self.dtype.itemsize * int(torch.Size(self.shape).numel())


def copied(name: str, stored: Stored) -> Output:
    """Return the output that is a stored tensor under another name."""
    return Output(name, stored.dtype, stored.shape, stored.pieces)


def with_rows(name: str, stored: Stored, rows: int) -> Output:
    """Return a matrix cut to, or lengthened to, `rows` rows.

    New rows are the mean of the old ones: as rows of an output layer their logit is the mean logit, so none of them
    is ever the most likely token.
    """
    if rows == stored.shape[0]:
        return copied(name, stored)
    shape = (rows, *stored.shape[1:])
    size = int(torch.Size(shape).numel()) * stored.dtype.itemsize
    return Output(name, stored.dtype, shape, lambda: _resized(stored, size, rows - stored.shape[0]))


def _resized(stored: Stored, size: int, more: int) -> Iterator[bytes]:
    width = stored.shape[1]
    total, rest, left = torch.zeros(width, dtype=torch.float64), b"", size
    for piece in stored.pieces():
        kept = piece[:left]
        left -= len(kept)
        if kept:
            yield kept
        if more > 0:
            data = bytearray(rest + piece)
            row = width * stored.dtype.itemsize
            rows = len(data) // row
            rest = bytes(data[rows * row :])
            if rows:
                values = torch.frombuffer(data, dtype=stored.dtype, count=rows * width).view(rows, width)
                total += values.sum(0, dtype=torch.float64)
    if more > 0:
        mean = (total / stored.shape[0]).to(stored.dtype).expand(more, -1).contiguous()
        yield mean.view(-1).view(torch.uint8).numpy().tobytes()


def write_safetensors(path: Path, outputs: Sequence[Output]) -> None:
    """Write one file, a piece at a time."""
    ordered = sorted(outputs, key=lambda output: (-output.dtype.itemsize, output.name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for output in ordered:
        header[output.name] = {
            "dtype": CODES[output.dtype],
            "shape": list(output.shape),
            "data_offsets": [at, at + output.size],
        }
        at += output.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as handle:
        handle.write(struct.pack("<Q", len(text)) + text)
        for output in ordered:
            for piece in output.pieces():
                handle.write(piece)


def write_shards(folder: Path, outputs: Iterable[Output], limit: int = SHARD) -> list[str]:
    """Write `model.safetensors`, or numbered shards of at most `limit` bytes and their index; return file names."""
    shards: list[list[Output]] = [[]]
    for output in outputs:
        if shards[-1] and sum(other.size for other in shards[-1]) + output.size > limit:
            shards.append([])
        shards[-1].append(output)
    if len(shards) == 1:
        write_safetensors(folder / "model.safetensors", shards[0])
        return ["model.safetensors"]
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        write_safetensors(folder / name, shard)
    weight_map = {output.name: name for name, shard in zip(names, shards, strict=True) for output in shard}
    total = sum(output.size for shard in shards for output in shard)
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    return names

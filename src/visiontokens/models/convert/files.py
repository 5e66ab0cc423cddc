"""Tensors on disk: what is stored where, read a piece at a time, so that memory does not grow with the checkpoint."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from visiontokens.models.build import CheckpointError
from visiontokens.provenance import read_json

PIECE = 16 << 20
"""Bytes held at once while a tensor is copied."""
HEADER_LIMIT = 100 << 20
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Element types by their name in a safetensors header."""
CODES = {dtype: code for code, dtype in DTYPES.items()}
SINGLE = (
    "model.safetensors",
    "pytorch_model.bin",
    "mm_projector.safetensors",
    "mm_projector.bin",
)
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Stored:
    """One tensor in a file; `offset` is where its bytes start (-1: in a pickled archive)."""

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int = -1

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        count = 1
        for side in self.shape:
            count *= side
        return count * self.dtype.itemsize

    def pieces(self) -> Iterator[bytes]:
        """Yield the tensor's bytes in order, `PIECE` at most at a time.

        Raises:
            CheckpointError: the file ends too early.
        """
        if self.offset < 0:
            yield from _pickled(self.path, self.name)
            return
        left = self.size
        with self.path.open("rb") as handle:
            handle.seek(self.offset)
            while left:
                piece = handle.read(min(left, PIECE))
                if not piece:
                    raise CheckpointError(f"{self.path}: tensor {self.name!r} ends {left} bytes early")
                left -= len(piece)
                yield piece


def _pickled(path: Path, name: str) -> Iterator[bytes]:
    """Yield the bytes of one tensor of a `.bin` file.

    The file is mapped anew for every tensor: pages that were touched for the last one are given back.
    """
    flat = _load_bin(path)[name].contiguous().view(-1).view(torch.uint8)
    for start in range(0, len(flat), PIECE):
        yield flat[start : start + PIECE].numpy().tobytes()


def _load_bin(path: Path) -> dict[str, Tensor]:
    """Map a `.bin` file; nothing in it is executed (`weights_only`).

    Raises:
        CheckpointError: not a dictionary of tensors in PyTorch's zip format.
    """
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as err:  # unpickling can raise anything
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise CheckpointError(f"{path}: expected tensors saved by torch.save (version 1.6 or newer): {reason}") from err
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"{path}: expected a dictionary of tensors, found {type(found).__name__}")
    return found


def _described(entry: Any) -> bool:
    """Tell whether a header's entry says what a tensor is and where."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        return False
    shape, place = entry.get("shape"), entry.get("data_offsets")
    if not isinstance(shape, list) or not isinstance(place, list) or len(place) != 2:
        return False
    return all(type(number) is int and number >= 0 for number in (*shape, *place))


def read_header(path: Path) -> dict[str, Stored]:
    """Return the tensors of a safetensors file without reading them.

    Raises:
        CheckpointError: the file is not one, is cut short, or holds an unknown element type.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if length > min(size - 8, HEADER_LIMIT):
            raise CheckpointError(f"{path}: expected a safetensors file, found {size} bytes without a header")
        try:
            header = json.loads(handle.read(length))
        except ValueError as err:
            raise CheckpointError(f"{path}: safetensors header is not JSON: {err}") from err
    found = {}
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: safetensors header: found {type(header).__name__}, expected an object")
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not _described(entry):
            raise CheckpointError(f"{path}: tensor {name!r}: expected dtype, shape and two data_offsets, found {entry}")
        if entry["dtype"] not in DTYPES:
            raise CheckpointError(
                f"{path}: tensor {name!r}: element type {entry['dtype']}, expected one of {list(DTYPES)}"
            )
        start, end = entry["data_offsets"]
        stored = Stored(path, name, DTYPES[entry["dtype"]], tuple(entry["shape"]), 8 + length + start)
        if end - start != stored.size or 8 + length + end > size:
            raise CheckpointError(
                f"{path}: tensor {name!r} needs {stored.size} bytes; the file is cut short or damaged"
            )
        found[name] = stored
    return found


@dataclass
class Checkpoint:
    """All tensors of a folder or file, by stored name."""

    path: Path
    tensors: dict[str, Stored] = field(default_factory=dict)
    known: ClassVar[tuple[str, ...]] = (*INDEXES, *SINGLE)

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Find the weights at `path` (a folder or one file) and list their tensors.

        Raises:
            FileNotFoundError: no weights there, or a shard is missing.
            CheckpointError: damaged files, an index that disagrees with its shards, a tensor stored twice.
        """
        path = Path(path)
        found = cls(path)
        if path.is_file():
            found._add(path)
            return found
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: no checkpoint there")
        present = [path / name for name in cls.known if (path / name).is_file()]
        if not present:
            raise FileNotFoundError(f"{path}: no weights here; looked for {', '.join(cls.known)}")
        if present[0].suffix == ".json":
            found._add_indexed(present[0])
        else:
            found._add(present[0])
        return found

    def _add_indexed(self, index: Path) -> None:
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict):
            raise CheckpointError(f"{index}: expected the key 'weight_map'")
        for name in sorted(set(weight_map.values())):
            shard = index.parent / name
            if shard.resolve().parent != index.parent.resolve() and Path(name).name != name:
                raise CheckpointError(f"{index}: shard {name!r} lies outside the folder")
            if not shard.is_file():
                raise FileNotFoundError(f"{shard}: shard named in {index.name} is missing")
            self._add(shard)
        for name, file in weight_map.items():
            if name not in self.tensors:
                raise CheckpointError(f"{index.parent / file}: tensor {name!r} not found, expected by {index.name}")

    def _add(self, path: Path) -> None:
        if path.suffix == ".safetensors":
            tensors = read_header(path)
        else:
            tensors = {
                name: Stored(path, name, value.dtype, tuple(value.shape)) for name, value in _load_bin(path).items()
            }
        for name, stored in tensors.items():
            if name in self.tensors:
                raise CheckpointError(f"{path}: tensor {name!r} is also in {self.tensors[name].path.name}")
            self.tensors[name] = stored

"""Batch order: samples of like length (and kind) side by side, so that little of a batch is padding.

Lengths are signed as in LLaVA-1.5: positive for samples with an image, negative for text-only ones. The index lists
equal the official ones for the same torch seeds (`tests/conformance/test_llava_base.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


def split_to_even_chunks(indices: Sequence[int], lengths: Sequence[int], n_chunks: int) -> list[list[int]]:
    """Split a megabatch into one chunk per process, of equal size and nearly equal total length.

    `indices` should be sorted by falling length. A number that does not divide evenly is dealt out in turn.
    """
    if len(indices) % n_chunks:
        return [list(indices[i::n_chunks]) for i in range(n_chunks)]
    size = len(indices) // n_chunks
    chunks: list[list[int]] = [[] for _ in range(n_chunks)]
    loads = [0.0] * n_chunks
    for index in indices:
        shortest = loads.index(min(loads))
        chunks[shortest].append(index)
        loads[shortest] += lengths[index]
        if len(chunks[shortest]) == size:
            loads[shortest] = float("inf")
    return chunks


def length_grouped(
    lengths: Sequence[int], batch_size: int, world_size: int, generator: torch.Generator | None = None
) -> list[int]:
    """Return an order in which megabatches (batch_size * world_size) are random and inside sorted by falling length."""
    order = torch.randperm(len(lengths), generator=generator).tolist()
    mega = batch_size * world_size
    out: list[int] = []
    for start in range(0, len(order), mega):
        block = sorted(order[start : start + mega], key=lambda i: lengths[i], reverse=True)
        out += [i for chunk in split_to_even_chunks(block, lengths, world_size) for i in chunk]
    return out


def modality_grouped(
    lengths: Sequence[int],
    batch_size: int,
    world_size: int,
    generator: torch.Generator | None = None,
    *,
    top_up: bool = False,
) -> list[int]:
    """Return a length-grouped order whose megabatches hold only image samples or only text samples.

    Args:
        lengths: signed lengths, see the module.
        batch_size: samples per process.
        world_size: number of processes.
        generator: decides the order of megabatches only; the orders inside come from torch's global generator, as
            in the official sampler.
        top_up: what becomes of the two incomplete last megabatches. False: they are merged into one mixed one
            (LLaVA-1.5). True: each is filled up from the first megabatch of its kind, so that kinds never mix
            (LLaVolta, whose model cannot take mixed batches); the epoch then repeats some samples.

    Raises:
        ValueError: a length is zero.
    """
    if any(length == 0 for length in lengths):
        raise ValueError(f"sample {list(lengths).index(0)}: expected a length other than 0")
    if all(length > 0 for length in lengths) or all(length < 0 for length in lengths):
        return length_grouped([abs(length) for length in lengths], batch_size, world_size, generator)
    mega = batch_size * world_size
    kinds = []
    for sign in (1, -1):
        members = [i for i, length in enumerate(lengths) if sign * length > 0]
        order = length_grouped([abs(lengths[i]) for i in members], batch_size, world_size)
        ordered = [members[i] for i in order]
        kinds.append([ordered[i : i + mega] for i in range(0, len(ordered), mega)])
    lasts = [kind[-1] for kind in kinds]
    if top_up:
        lasts = [last + kind[0][: mega - len(last)] for last, kind in zip(lasts, kinds, strict=True)]
    blocks = [block for kind in kinds for block in kind[:-1]]
    out = [blocks[i] for i in torch.randperm(len(blocks), generator=generator).tolist()]
    out += lasts if top_up else [sorted(lasts[0] + lasts[1])]
    return [index for block in out for index in block]


class RunSampler(Sampler[int]):
    """The batch order of a whole training run: a new modality-grouped order for every epoch, one after another.

    It depends on the seed alone, so a resumed run sees the same batches.

    Args:
        lengths: signed lengths of the samples.
        batch_size: samples per optimizer step (the megabatch of `modality_grouped`).
        seed: of the run.
        epochs: passes over the samples; a fraction cuts the last one short.
        top_up: see `modality_grouped`.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, epochs: float = 1.0, *, top_up: bool = False
    ) -> None:
        self.lengths = list(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.top_up = top_up
        whole = math.ceil(epochs)
        orders = [self.order(epoch) for epoch in range(whole)]
        last = round(len(orders[-1]) * (epochs - whole + 1))
        self._indices = [index for order in orders[:-1] for index in order] + orders[-1][:last]

    def order(self, epoch: int) -> list[int]:
        """Return the order of one epoch; torch's global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 100_003 + epoch)
            generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch + 1)
            return modality_grouped(self.lengths, self.batch_size, 1, generator, top_up=self.top_up)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)

"""One batch order for any number of processes: who runs which micro-batch of every optimizer step.

A step's samples are cut into micro-batches in order, and these are dealt out in turn. So the micro-batches, and with
them the step, are the same for one process and for many; only who adds up what differs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import Sampler

from visiontokens.data.conversation import IGNORE_INDEX
from visiontokens.data.instruct import Sample


def accumulation(batch_size: int, micro_batch_size: int, processes: int) -> int:
    """Return the forward passes of each process per optimizer step, such that a step sees `batch_size` samples.

    Raises:
        ValueError: they do not divide.
    """
    if batch_size % micro_batch_size:
        raise ValueError(f"batch_size: expected a multiple of micro_batch_size {micro_batch_size}, found {batch_size}")
    together = micro_batch_size * processes
    if batch_size % together:
        fitting = [n for n in range(1, batch_size + 1) if batch_size % (micro_batch_size * n) == 0]
        raise ValueError(
            f"batch_size: expected a multiple of micro_batch_size {micro_batch_size} x {processes} processes = "
            f"{together}, found {batch_size}; with this micro_batch_size it divides among {_listed(fitting)} processes"
        )
    return batch_size // together


def _listed(numbers: Sequence[int]) -> str:
    return " or ".join([", ".join(map(str, numbers[:-1])), str(numbers[-1])]) if len(numbers) > 1 else str(numbers[0])


class RankBatches(Sampler[list[int]]):
    """The micro-batches of one process in a whole run: lists of sample indices.

    Several processes must make the same number of forward passes through the same modules, or their collectives wait
    for each other for ever. So where a process has no micro-batch of its own (the end of the data), or one without an
    image while projector and compressor train, it gets a *filler*: a sample without targets, which adds nothing to
    the loss. Index `~i` stands for sample i as a filler.

    Args:
        order: sample indices of the run, see `RunSampler`.
        lengths: signed sample lengths; positive ones have an image.
        batch_size: samples per optimizer step.
        micro_batch_size: samples per forward pass.
        processes: number of processes.
        rank: of this one.
    """

    def __init__(
        self,
        order: Sequence[int],
        lengths: Sequence[int],
        batch_size: int,
        micro_batch_size: int,
        *,
        processes: int = 1,
        rank: int = 0,
    ) -> None:
        accumulation(batch_size, micro_batch_size, processes)
        self.order, self.lengths = order, lengths
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.processes, self.rank = processes, rank
        with_image = [i for i, length in enumerate(lengths) if length > 0]
        self._filler = ~min(with_image or range(len(lengths)), key=lambda i: abs(lengths[i]))
        self._fill_images = bool(with_image) and processes > 1

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.order), self.batch_size):
            step = self.order[start : start + self.batch_size]
            for slot in range(-(-len(step) // (self.micro_batch_size * self.processes))):
                first = (slot * self.processes + self.rank) * self.micro_batch_size
                yield self._filled(list(step[first : first + self.micro_batch_size]))

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.batch_size)
        together = self.micro_batch_size * self.processes
        return whole * (self.batch_size // together) + -(-rest // together)

    def _filled(self, batch: list[int]) -> list[int]:
        without = self._fill_images and all(self.lengths[i] < 0 for i in batch)
        return [*batch, self._filler] if without or not batch else batch


class WithFillers:
    """A dataset in which index `~i` is sample i without targets."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        if index >= 0:
            return self._dataset[index]
        sample: Sample = self._dataset[~index]
        size = len(sample.tokens.ids)
        tokens = dataclasses.replace(sample.tokens, labels=[IGNORE_INDEX] * size, weights=[0.0] * size)
        return dataclasses.replace(sample, tokens=tokens)

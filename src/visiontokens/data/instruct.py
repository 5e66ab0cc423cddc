"""LLaVA-format records to training samples and batches.

A missing image is an error: no sample is ever trained on another sample's image (the released LLaVolta loader falls
back to sample 0's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from visiontokens.data.conversation import IGNORE_INDEX, Tokens, template, tokenize, tokenize_isolated
from visiontokens.data.encoders import TextEncoder
from visiontokens.data.features import FeatureStore, FeatureUnion
from visiontokens.data.images import Preprocessor
from visiontokens.data.records import Record, RecordError, independent, is_caption, load_records
from visiontokens.data.videos import file_of, frame_keys, split_key

if TYPE_CHECKING:
    import torch


class ImageSource(Protocol):
    """Where a batch's pictures come from: images by their path, frames of videos by their key."""

    def check(self, images: Sequence[str], where: str) -> None:
        """Raise unless every image is there; `where` names the annotation file."""
        ...

    def load(self, images: Sequence[str]) -> dict[str, Any]:
        """Return the model's keyword for these images: `pixel_values` or `vision_levels`."""
        ...


class PixelSource:
    """Image files below a folder, and videos below another, preprocessed when a batch is made."""

    def __init__(self, root: str | Path, processor: Preprocessor, videos: str | Path | None = None) -> None:
        self.root, self.processor, self.videos = Path(root), processor, Path(root if videos is None else videos)

    def _path(self, image: str) -> Path:
        return (self.root if split_key(image) is None else self.videos) / image

    def check(self, images: Sequence[str], where: str) -> None:
        """Raise FileNotFoundError for the first image or video that is not there."""
        for image in images:
            path = Path(file_of(self._path(image)))
            if not path.is_file():
                kind = "image" if split_key(image) is None else "video"
                raise FileNotFoundError(f"{where}: {kind} {file_of(image)!r}: expected {path}, found no such file")

    def load(self, images: Sequence[str]) -> dict[str, Any]:
        """Return `pixel_values` `[F, 3, H, W]`."""
        import torch

        return {"pixel_values": torch.from_numpy(self.processor([self._path(image) for image in images]))}


class FeatureSource:
    """Cached tower features.

    Args:
        store: the features.
        prefix: the image folder relative to the data folder, as in `images.tsv`.
        videos: the folder of videos, as in `videos.tsv`.
    """

    def __init__(self, store: FeatureStore | FeatureUnion, prefix: str, videos: str = "") -> None:
        self.store, self.prefix, self.videos = store, prefix, videos

    def _path(self, image: str) -> str:
        folder = self.prefix if split_key(image) is None else self.videos
        return f"{folder}/{image}" if folder else image

    def check(self, images: Sequence[str], where: str) -> None:
        """Raise FileNotFoundError for the first image or frame without features."""
        for image in images:
            if self._path(image) not in self.store:
                raise FileNotFoundError(
                    f"{where}: image {image!r}: expected features of {self._path(image)!r} in {self.store.folder}, "
                    f"found none among {len(self.store)} images"
                )

    def load(self, images: Sequence[str]) -> dict[str, Any]:
        """Return `vision_levels`: by hidden-state index, fp16 `[F, N, C]`."""
        return {"vision_levels": self.store.get([self._path(image) for image in images])}


@dataclass(frozen=True)
class Sample:
    """One tokenised record; `frames` are the keys of its video's frames, if it has one."""

    tokens: Tokens
    image: str | None
    frames: tuple[str, ...] = ()

    @property
    def pictures(self) -> tuple[str, ...]:
        """What stands behind its placeholder: an image, the frames of a video, or nothing."""
        return self.frames or (() if self.image is None else (self.image,))


class InstructDataset:
    """Records of one annotation file as tokenised samples (a map-style torch dataset).

    Args:
        path: LLaVA-format JSON.
        encoder: the tokenizer.
        image_id: the model's image token id; one per image is written into the ids.
        template_name: `plain` or `vicuna_v1` (`v1`).
        isolate_turns: pack turns as independent questions (`tokenize_isolated`); `vicuna_v1` only.
        caption_weight: loss weight of the tokens of captions (`is_caption`).
        samples: use so many records, the same choice for every seed and method; 0 = all.
        frames: frames that are read of a record's video.
        max_length: longer samples are cut (LLaVA-1.5's `model_max_length`).

    Raises:
        RecordError: see `load_records`; also fewer records than `samples`.
    """

    def __init__(
        self,
        path: str | Path,
        encoder: TextEncoder,
        image_id: int,
        template_name: str = "vicuna_v1",
        *,
        isolate_turns: bool = False,
        caption_weight: float = 1.0,
        samples: int = 0,
        frames: int = 8,
        max_length: int = 2048,
    ) -> None:
        self.path = Path(path)
        self.records = _choose(load_records(path), samples, path)
        self._encoder, self._image_id = encoder, image_id
        self._template = template(template_name)
        self.isolated = isolate_turns and template_name != "plain"
        self._caption_weight = caption_weight
        self._max_length, self._frames = max_length, frames

    @property
    def lengths(self) -> list[int]:
        """Signed lengths for the sampler."""
        return [record.length for record in self.records]

    @property
    def images(self) -> list[str]:
        """The image of every record that has one, and the frame keys of every video."""
        return [picture for record in self.records for picture in (*self._keys(record), record.image) if picture]

    def _keys(self, record: Record) -> tuple[str, ...]:
        return () if record.video is None else frame_keys(record.video, self._frames)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        turns = independent(record.turns) if self.isolated else list(record.turns)
        weights = [self._caption_weight if is_caption(turn) else 1.0 for turn in turns]
        try:
            if self.isolated:
                tokens = tokenize_isolated(turns, self._encoder, self._image_id, weights)
            else:
                tokens = tokenize(self._template(turns, self._encoder.eos, weights), self._encoder, self._image_id)
        except ValueError as err:
            raise RecordError(f"{self.path}: record id {record.id!r}: {err}") from err
        return Sample(tokens.cut(self._max_length), record.image, self._keys(record))


def _choose(records: list[Record], samples: int, path: str | Path) -> list[Record]:
    """Return `samples` records drawn with a fixed seed, in file order (all for 0)."""
    if samples > len(records):
        raise RecordError(f"{path}: expected at least {samples} records (samples), found {len(records)}")
    if not samples or samples == len(records):
        return records
    import numpy as np

    chosen = np.random.default_rng(0).permutation(len(records))[:samples]
    return [records[i] for i in sorted(chosen.tolist())]


class Collator:
    """Samples to a right-padded batch.

    Keys: `input_ids`, `attention_mask`, `labels` `[B, S]` int64; `segment_ids` `[B, S]` (-1 = padding) when turns are
    isolated; `loss_weights` `[B, S]` float32 when weights are not all alike; the images of those samples that have
    one, in batch order, as the source gives them; `vision_frames`, the frames of each image or video, when there are
    videos.

    Packed, the batch is one row of all samples without padding, and `document_ids` `[1, S]` numbers them; the first
    token of a sample is no target, as nothing before it may predict it.

    Args:
        pad_id: fills `input_ids`.
        source: of the images; None if no sample has one.
        segments: emit `segment_ids`.
        weighted: emit `loss_weights`.
        packed: join the samples into one row.
        unrolled: give every isolated turn a row of its own, with `image_index` `[I]` saying which of the loaded images
            each row with an image shows. The targets and their weights stay, so an optimizer step's loss does too.
    """

    def __init__(
        self,
        pad_id: int,
        source: ImageSource | None,
        *,
        segments: bool = False,
        weighted: bool = False,
        packed: bool = False,
        unrolled: bool = False,
    ) -> None:
        if packed and unrolled:
            raise ValueError("expected packed or unrolled rows, found both")
        self.pad_id, self.source, self.segments, self.weighted = pad_id, source, segments, weighted
        self.packed, self.unrolled = packed, unrolled

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the batch of some samples."""
        import torch

        if self.unrolled:
            return self._unrolled(samples)
        tokens = [sample.tokens for sample in samples]
        documents = [number for number, t in enumerate(tokens) for _ in t.ids]
        if self.packed:
            tokens = [_join(tokens)]
        batch: dict[str, Any] = {
            "input_ids": _pad([t.ids for t in tokens], self.pad_id, torch.int64),
            "attention_mask": _pad([[1] * len(t.ids) for t in tokens], 0, torch.int64),
            "labels": _pad([t.labels for t in tokens], IGNORE_INDEX, torch.int64),
        }
        if self.packed:
            batch["document_ids"] = torch.tensor([documents])
        if self.segments:
            batch["segment_ids"] = _pad([t.segments for t in tokens], -1, torch.int64)
        if self.weighted:
            batch["loss_weights"] = _pad([t.weights for t in tokens], 0.0, torch.float32)
        runs = [sample.pictures for sample in samples if sample.pictures]
        if any(sample.frames for sample in samples):
            batch["vision_frames"] = [len(run) for run in runs]
        images = [picture for run in runs for picture in run]
        if images and self.source is None:
            raise ValueError(f"expected a source of images, found none; the batch holds {images[0]!r}")
        return batch | (self.source.load(images) if images and self.source is not None else {})

    def _unrolled(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the batch with one row a turn; every image is loaded once."""
        import torch

        turns = [unroll(sample.tokens) for sample in samples]
        rows = [Sample(turn, None) for parts in turns for turn in parts]
        plain = Collator(self.pad_id, None, weighted=self.weighted)(rows)
        pictured = [(sample.image, len(parts)) for sample, parts in zip(samples, turns, strict=True) if sample.image]
        if not pictured:
            return plain
        if self.source is None:
            raise ValueError(f"expected a source of images, found none; the batch holds {pictured[0][0]!r}")
        plain["image_index"] = torch.tensor([i for i, (_, count) in enumerate(pictured) for _ in range(count)])
        return plain | self.source.load([image for image, _ in pictured])


def unroll(tokens: Tokens) -> list[Tokens]:
    """Return every isolated turn of a conversation behind the prefix that all share; targets stay in one row each."""
    last = max(tokens.segments, default=0)
    if not last:
        return [tokens]
    places = [[i for i, segment in enumerate(tokens.segments) if segment in (0, turn)] for turn in range(1, last + 1)]
    return [
        Tokens(
            [tokens.ids[i] for i in row],
            [tokens.labels[i] if tokens.segments[i] or not number else IGNORE_INDEX for i in row],
            [tokens.weights[i] if tokens.segments[i] or not number else 0.0 for i in row],
            [0] * len(row),
        )
        for number, row in enumerate(places)
    ]


def _join(samples: Sequence[Tokens]) -> Tokens:
    """Return samples one behind the other; the first token of each is no target."""
    joined = Tokens()
    for sample in samples:
        joined.ids += sample.ids
        joined.labels += [IGNORE_INDEX, *sample.labels[1:]]
        joined.weights += [0.0, *sample.weights[1:]]
        joined.segments += sample.segments
    return joined


def _pad(rows: Sequence[Sequence[Any]], value: Any, dtype: torch.dtype) -> torch.Tensor:
    import torch

    width = max(len(row) for row in rows)
    out = torch.full((len(rows), width), value, dtype=dtype)
    for number, row in enumerate(rows):
        out[number, : len(row)] = torch.tensor(row, dtype=dtype)
    return out

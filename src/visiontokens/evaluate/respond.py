"""Answers as token ids: what a model, its method and the decoding make of images and prompts, and nothing else.

This module and what it imports are the code that an answer depends on (`answering_code`). Questions, files of answers
and scores are not among it, so that an edit of a benchmark's loader makes no answer worthless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from visiontokens.config import Config
from visiontokens.data.encoders import FastEncoder
from visiontokens.data.precision import autocast, use_bf16
from visiontokens.data.videos import frame_keys
from visiontokens.evaluate.cache import ResponseCache, question_key
from visiontokens.evaluate.greedy import Greedy, Levels, Prompt
from visiontokens.evaluate.images import LevelSource, source_identity
from visiontokens.models.build import weights_hash
from visiontokens.models.kernels import choose_kernel, use_kernel
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.provenance import versions
from visiontokens.sources import PACKAGE, fingerprint


@dataclass(frozen=True)
class Response:
    """One answer: its token ids, and its vision tokens where the method makes them depend on the image."""

    ids: tuple[int, ...]
    vision_tokens: int | None = None
    cached: bool = False


class Responder:
    """Answers prompts about images with one model.

    Args:
        model: the model under test, in eval mode.
        encoder: its tokenizer.
        features: what the model sees of an image, by its path.
        root: folder that paths are relative to.
        batch_size: questions per forward pass.
        max_new_tokens: longest answer.
        precision: auto, fp32 or bf16.
        cache: answers of earlier runs; only with `batch_size` 1, where an answer depends on its own question alone.

    Raises:
        ValueError: a cache with another batch size.
    """

    def __init__(
        self,
        model: LlavaWithCompressor,
        encoder: FastEncoder,
        features: LevelSource,
        root: Path,
        *,
        batch_size: int,
        max_new_tokens: int,
        precision: str = "auto",
        cache: ResponseCache | None = None,
    ) -> None:
        if cache is not None and batch_size != 1:
            raise ValueError(f"batch_size: found {batch_size}, expected 1 with a response cache")
        self.model, self.features, self.root, self.precision, self.cache = model, features, root, precision, cache
        self.greedy = Greedy(model, encoder, max_new_tokens, batch_size)
        self.counted = model.compressor.n_tokens(model.geometry.n_vision) is None

    def respond(
        self,
        paths: Sequence[str] | None,
        prompts: Sequence[Sequence[Prompt]],
        frames: int = 0,
        longest: int | None = None,
    ) -> list[list[Response]]:
        """Return the answers to the prompts about each image; with `frames`, paths are videos of so many.

        `longest` is a lower limit of new tokens than the responder's own, for these prompts.

        Errors: see the source of features.
        """
        if self.cache is None:
            return self._compute(paths, prompts, frames, longest)
        keys = self._keys(paths, prompts, frames, longest)
        known = {key: _restored(hit) for row in keys for key in row if (hit := self.cache.get(key)) is not None}
        left = [
            {key: prompt for key, prompt in zip(row, group, strict=True) if key not in known}
            for row, group in zip(keys, prompts, strict=True)
        ]
        numbers = [number for number, asked in enumerate(left) if asked]
        new: dict[str, Response] = {}
        if numbers:
            some = None if paths is None else [paths[n] for n in numbers]
            answers = self._compute(some, [list(left[n].values()) for n in numbers], frames, longest)
            for n, group in zip(numbers, answers, strict=True):
                new |= dict(zip(left[n], group, strict=True))
            self.cache.put({key: _stored(response) for key, response in new.items()})
        return [[known[key] if key in known else new[key] for key in row] for row in keys]

    def _compute(
        self, paths: Sequence[str] | None, prompts: Sequence[Sequence[Prompt]], frames: int, longest: int | None
    ) -> list[list[Response]]:
        """Ask the model."""
        levels = None if paths is None else self._levels(paths, frames)
        with autocast(self.precision, str(self.model.device)):
            new = self.greedy.answer(levels, prompts, longest)
        spent = self.greedy.image_tokens if paths is not None and self.counted else {}
        return [[Response(tuple(ids), spent.get(n)) for ids in group] for n, group in enumerate(new)]

    def _levels(self, paths: Sequence[str], frames: int) -> Levels:
        """Return the features of images `[F, N, C]`, or of videos `[V, T, N, C]`, by hidden-state index."""
        if not frames:
            return self.features.get(paths)
        flat = self.features.get([key for path in paths for key in frame_keys(path, frames)])
        return {level: values.unflatten(0, (len(paths), frames)) for level, values in flat.items()}

    def _keys(
        self, paths: Sequence[str] | None, prompts: Sequence[Sequence[Prompt]], frames: int, longest: int | None
    ) -> list[list[str]]:
        """Return the cache's key of every question."""
        files = [None] * len(prompts) if paths is None else [self.root / path for path in paths]
        return [
            [question_key(file, prompt.prefix + prompt.rest, frames, longest) for prompt in group]
            for file, group in zip(files, prompts, strict=True)
        ]


def _stored(response: Response) -> dict[str, Any]:
    return {"ids": list(response.ids), "vision_tokens": response.vision_tokens}


def _restored(entry: dict[str, Any]) -> Response:
    return Response(tuple(entry["ids"]), entry["vision_tokens"], cached=True)


def answering_code(model: LlavaWithCompressor) -> str:
    """Return the hash of the code that makes a model's answers: this module's, and its compressor's."""
    return fingerprint(["evaluate.respond", type(model.compressor).__module__.removeprefix(f"{PACKAGE}.")])


def identity_of(config: Config, model: LlavaWithCompressor, model_dir: Path, sets: Sequence[str]) -> dict[str, Any]:
    """Choose the attention kernel and return what an answer depends on besides its prompt and image, as plain values.

    Args:
        config: its section `evaluate` says how answers are decoded.
        model: placed on its device.
        model_dir: its folder.
        sets: the image sets whose features are read, where they were computed ahead.

    Raises:
        FileNotFoundError: weights, features or image settings are missing.
    """
    settings = config.evaluate
    dtype = torch.bfloat16 if use_bf16(settings.precision, str(model.device)) else torch.float32
    kernel = use_kernel(model, choose_kernel(settings.attention, model.device, dtype, type(model.compressor)))
    return {
        "weights": weights_hash(model_dir),
        "method": model.method.to_config(),
        "evaluate": settings.model_dump(mode="json", include={"batch_size", "max_new_tokens", "precision"}),
        "attention": kernel.name,
        "device": model.device.type,
        "images": source_identity(config, model, *sets),
        "code": answering_code(model),
        "libraries": {name: versions()[name] for name in ("torch", "transformers")},
    }

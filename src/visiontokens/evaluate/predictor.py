"""Answers to benchmark questions: which are asked together, with what image, and the words of each answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from visiontokens.config import Config
from visiontokens.data.benchmarks import Benchmark, Example
from visiontokens.data.encoders import FastEncoder
from visiontokens.evaluate.cache import ResponseCache
from visiontokens.evaluate.greedy import Prompt, encode_question
from visiontokens.evaluate.images import LevelSource, level_source
from visiontokens.evaluate.parts import CACHED
from visiontokens.evaluate.predictions import VISION_TOKENS, answer_record
from visiontokens.evaluate.respond import Responder, Response
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.models.processors import load_tokenizer

Group = list[tuple[Example, Prompt]]
"""The questions about one image."""
Batch = list[Group]
"""Questions that are answered together."""


def questions(batch: Batch) -> list[Example]:
    """Return the questions of a batch in the order of their answers."""
    return [example for group in batch for example, _ in group]


class Predictor:
    """Answers benchmark questions with one model.

    Args:
        model: the model under test, in eval mode.
        tokenizer: a fast tokenizer of `transformers`.
        data_dir: folder that feature paths are relative to.
        features: tower features of the test images.
        batch_size: questions per forward pass.
        max_new_tokens: longest answer.
        precision: auto, fp32 or bf16.
        cache: answers of earlier runs (see `Responder`).
    """

    def __init__(
        self,
        model: LlavaWithCompressor,
        tokenizer: Any,
        data_dir: Path,
        features: LevelSource,
        *,
        batch_size: int,
        max_new_tokens: int,
        precision: str = "auto",
        cache: ResponseCache | None = None,
    ) -> None:
        self.model, self.tokenizer, self.encoder = model, tokenizer, FastEncoder(tokenizer)
        self.data_dir, self.features, self.batch_size = data_dir, features, batch_size
        self.responder = Responder(
            model, self.encoder, features, data_dir, batch_size=batch_size, max_new_tokens=max_new_tokens,
            precision=precision, cache=cache,
        )  # fmt: skip

    @property
    def benchmarks_dir(self) -> Path:
        """Folder of the official benchmark files."""
        return self.data_dir / "benchmarks"

    @classmethod
    def of(
        cls, config: Config, model: LlavaWithCompressor, *sets: str, cache: ResponseCache | None = None
    ) -> Predictor:
        """Return the predictor that a configuration asks for, for the images of some sets (errors: `level_source`)."""
        settings = config.evaluate
        return cls(
            model,
            load_tokenizer([Path(str(model.name_or_path)), config.backbones.llm]),
            config.data_dir,
            level_source(config, model, *sets),
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
            precision=settings.precision,
            cache=cache,
        )

    def answers(
        self, examples: Sequence[Example], locate: Callable[[Example], str], frames: int = 0
    ) -> Iterator[list[tuple[Example, str]]]:
        """Yield batches of examples with their answers, questions about one image or video together.

        `locate` names the path under which an example's image is in the feature store. With `frames` the paths are
        those of videos, of which so many frames are read.
        """
        for batch in self.batches(examples):
            responses = self.respond(batch, locate, frames)
            yield [(e, self.text(r)) for e, r in zip(questions(batch), responses, strict=True)]

    def respond(
        self, batch: Batch, locate: Callable[[Example], str], frames: int = 0, longest: int | None = None
    ) -> list[Response]:
        """Return the answers to the questions of a batch, of `longest` new tokens; other arguments as in `answers`."""
        image = batch[0][0][0].image is not None
        paths = [locate(group[0][0]) for group in batch] if image else None
        answered = self.responder.respond(paths, [[prompt for _, prompt in group] for group in batch], frames, longest)
        return [response for group in answered for response in group]

    def text(self, response: Response) -> str:
        """Return an answer in words."""
        return str(self.tokenizer.decode(list(response.ids), skip_special_tokens=True)).strip()

    def record(self, example: Example, response: Response, model_id: str) -> dict[str, Any]:
        """Return an answer as a line of a prediction file; one from the cache is marked with `CACHED`."""
        spent = {} if response.vision_tokens is None else {VISION_TOKENS: response.vision_tokens}
        mark = {CACHED: True} if response.cached else {}
        return {**answer_record(example, self.text(response), model_id, spent), **mark}

    def feature_path(self, benchmark: Benchmark, example: Example) -> str:
        """Return the path under which an example's image is in the feature store."""
        path = benchmark.image_path(self.benchmarks_dir, example)
        assert path is not None
        return path.relative_to(self.data_dir).as_posix()

    def batches(self, examples: Sequence[Example]) -> list[Batch]:
        """Group questions by image, similar lengths together, up to `batch_size` questions a batch.

        An image with more questions than that is a batch of its own, which `Greedy` answers in parts. The batches
        depend on `examples` alone: a resumed run, or one of many processes, answers some of the same batches.
        """
        groups: dict[str, Group] = {}
        image_id = self.model.config.image_token_id
        for number, example in enumerate(examples):
            prompt = encode_question(example.prompt, self.encoder, image_id, image=example.image is not None)
            groups.setdefault(example.image or f"\0{number}", []).append((example, prompt))
        order = sorted(groups.values(), key=lambda g: (g[0][0].image is None, max(len(p.rest) for _, p in g)))
        batches: list[Batch] = []
        batch: Batch = []
        for group in order:
            mixed = bool(batch) and (batch[0][0][0].image is None) != (group[0][0].image is None)
            if batch and (mixed or sum(map(len, batch)) + len(group) > self.batch_size):
                batches.append(batch)
                batch = []
            batch.append(group)
        return [*batches, batch] if batch else batches

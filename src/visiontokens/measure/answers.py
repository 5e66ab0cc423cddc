"""Answers per second of the evaluation path beside loops that answer one question at a time, with random weights.

The evaluation path runs the tower once per image, reads every image once for all questions about it, and answers the
questions together. LLaVA-1.5's own scripts call `generate` for one question after the other, from pixels. Answers have
a fixed length here, so both sides produce the same number of tokens.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from visiontokens.compress.base import MethodSpec
from visiontokens.data.encoders import Encoded
from visiontokens.data.precision import autocast, native_bf16
from visiontokens.evaluate.greedy import Greedy, Levels, Prompt
from visiontokens.measure.latency import timed_in_turns
from visiontokens.models.llava import LlavaWithCompressor

SEED = 7
ROLE = 5
"""Tokens behind every question, the same for all: ` ASSISTANT:`."""


@dataclass(frozen=True)
class AnswerLoad:
    """Which questions are answered.

    Eight an image lie between VQAv2 test-dev (3), POPE (18) and GQA testdev (32); 36 tokens stand in front of the
    image and about 27 behind it, as in LLaVA-1.5's prompts for these benchmarks.
    """

    images: int = 4
    questions: int = 8  # per image
    front: int = 36
    longest: int = 34  # tokens behind the image; the shortest question has two thirds of it
    new_tokens: int = 3
    alone: int = 8  # questions that the batch-1 loops answer in a timed round
    repeats: int = 3
    warmup: int = 1


class _Ids:
    """A tokenizer for prompts that are ids already; no token ends an answer."""

    bos_id: int | None = None
    eos_id = -1
    pad_id = 0
    eos = ""

    def encode(self, text: str) -> Encoded:
        """Refuse: there is no text here."""
        raise NotImplementedError("prompts of the benchmark are ids")


class Answers:
    """The same questions for the stock model and for methods around its language model.

    Args:
        stock: transformers' LLaVA; its generation settings are told that no token ends an answer.
        load: which questions.
    """

    def __init__(self, stock: Any, load: AnswerLoad) -> None:
        self.stock, self.load = stock, load
        stock.generation_config.eos_token_id = None
        weight, config = stock.lm_head.weight, stock.config
        self.device, self.dtype, self.image_id = weight.device, weight.dtype, int(config.image_token_id)
        draw = torch.Generator().manual_seed(SEED)
        side = config.vision_config.image_size
        self.pixels = torch.randn(load.images, 3, side, side, generator=draw).to(self.device, self.dtype)

        def ids(count: int) -> tuple[int, ...]:
            """Draw so many ids of words."""
            return tuple(torch.randint(1, self.image_id, (count,), generator=draw).tolist())

        front, role, shortest = (*ids(load.front), self.image_id), ids(ROLE), 2 * load.longest // 3
        lengths = torch.randint(shortest, load.longest + 1, (load.images, load.questions), generator=draw).tolist()
        self.questions = [[Prompt(front, ids(max(1, n - ROLE)) + role) for n in row] for row in lengths]
        flat = [(image, prompt) for image, group in enumerate(self.questions) for prompt in group]
        self.flat = flat
        self.alone = flat[:: max(1, len(flat) // load.alone)][: load.alone]

    def levels(self, model: LlavaWithCompressor) -> Levels:
        """Return the tower's features of all images, once each."""
        with torch.inference_mode():
            return model.compressor.run_tower(model.model.vision_tower, self.pixels)

    def together(self, model: LlavaWithCompressor, levels: Levels) -> list[list[int]]:
        """Answer all questions as the evaluation does."""
        groups = Greedy(model, _Ids(), self.load.new_tokens).answer(levels, self.questions)
        return [answer for group in groups for answer in group]

    def one_by_one(
        self, model: LlavaWithCompressor, levels: Levels, questions: Sequence[tuple[int, Prompt]]
    ) -> list[list[int]]:
        """Answer questions from the same features with whole prompts at batch 1."""
        greedy = Greedy(model, _Ids(), self.load.new_tokens, share=False)
        answers = []
        for image, prompt in questions:
            one = {level: values[image : image + 1] for level, values in levels.items()}
            answers += greedy.answer(one, [[prompt]])[0]
        return answers

    def by_stock(self, questions: Sequence[tuple[int, Prompt]]) -> list[list[int]]:
        """Answer questions with the stock model's `generate` at batch 1, from pixels."""
        answers = []
        patches = self.stock.config.image_seq_length
        for image, prompt in questions:
            ids = torch.tensor([[*prompt.prefix[:-1], *[self.image_id] * patches, *prompt.rest]], device=self.device)
            out: Tensor = self.stock.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=self.pixels[image : image + 1],
                max_new_tokens=self.load.new_tokens, do_sample=False, pad_token_id=_Ids.pad_id,
            )  # fmt: skip
            answers.append(out[0, ids.shape[1] :].tolist())
        return answers

    def measure(self, model: LlavaWithCompressor) -> dict[str, Any]:
        """Return answers per second of one method, the loops' beside it, and the shares of identical answers."""
        load, levels, alone = self.load, self.levels(model), self.alone
        steps: list[Callable[[], object]] = [
            lambda: self.levels(model),
            lambda: self.together(model, levels),
            lambda: self.one_by_one(model, levels, alone),
            lambda: self.by_stock(alone),
        ]
        rounds = list(zip(*timed_in_turns(steps, self.device, load.repeats, load.warmup), strict=True))
        count, few = len(self.flat), len(alone)
        ours = [(tower + batch) / count for tower, batch, _, _ in rounds]
        return {
            "answers_questions": count, "answers_per_image": load.questions, "answers_tokens": load.new_tokens,
            "answers_s": 1000 / statistics.median(ours),
            "stock_answers_s": 1000 * few / statistics.median(stock for *_, stock in rounds),
            "answers_speedup": statistics.median(
                stock / few / own for (*_, stock), own in zip(rounds, ours, strict=True)
            ),
            "answers_batching": statistics.median(loop / few / (batch / count) for _, batch, loop, _ in rounds),
            **self.identical(model, levels),
        }  # fmt: skip

    def identical(self, model: LlavaWithCompressor, levels: Levels) -> dict[str, float | None]:
        """Return the shares of questions whose answers are those of batch 1, in float32 and in bfloat16.

        Without compression the stock model's answers count too. `None`: not computed in this run (float32 where the
        weights are bfloat16, bfloat16 where the device has none).
        """
        if self.dtype == torch.float32:
            full = self._share(model, levels)
            half = None
            if native_bf16(str(self.device)):
                with autocast("bf16", str(self.device)):
                    half = self._share(model, levels, stock=False)
            return {"answers_identical_fp32": full, "answers_identical_bf16": half}
        return {"answers_identical_fp32": None, "answers_identical_bf16": self._share(model, levels, stock=False)}

    def _share(self, model: LlavaWithCompressor, levels: Levels, *, stock: bool = True) -> float:
        found, alone = self.together(model, levels), self.one_by_one(model, levels, self.flat)
        same = [a == b for a, b in zip(found, alone, strict=True)]
        if stock and model.method.to_config() == MethodSpec().to_config():
            places = [self.flat.index(question) for question in self.alone]
            for place, answer in zip(places, self.by_stock(self.alone), strict=True):
                same[place] = same[place] and answer == found[place]
        return sum(same) / len(same)


def check_identical(records: Sequence[Mapping[str, Any]]) -> None:
    """Check that in float32 no answer depended on the questions beside it.

    Raises:
        ValueError: some did; names methods and shares.
    """
    shares = {record["method"]: record["answers_identical_fp32"] for record in records}
    wrong = [f"{method} {share:.3f}" for method, share in shares.items() if share is not None and share < 1]
    if wrong:
        raise ValueError(f"answers identical to those of batch 1 in float32: expected 1, found {', '.join(wrong)}")

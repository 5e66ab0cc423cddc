"""Greedy answers to many questions, with the work on an image done once for all questions about it.

LLaVA-1.5 answers one question at a time, and every question pays for its image again. A prompt is `system USER:
<image>` and then the question; whatever a model makes of the first part does not depend on the second (attention is
causal), so its key-value cache is computed once per image and continued by every question. Methods that look at the
question while they read the image (`prefix_safe = False`) are run on whole prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visiontokens.data.conversation import encode_with_images, question_prompt
from visiontokens.data.encoders import TextEncoder
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.models.state import State

Levels = dict[int, Tensor]
"""Vision features of F images by hidden-state index, `[F, N, C]`."""


@dataclass(frozen=True)
class Prompt:
    """A tokenised question; `prefix` ends with the image placeholder and is empty without an image."""

    prefix: tuple[int, ...]
    rest: tuple[int, ...]


def encode_question(text: str, encoder: TextEncoder, image_id: int, *, image: bool) -> Prompt:
    """Tokenise one question in the `vicuna_v1` template and cut it behind the image."""
    ids = encode_with_images(question_prompt(text, image=image), encoder, image_id).ids
    cut = ids.index(image_id) + 1 if image else 0
    return Prompt(tuple(ids[:cut]), tuple(ids[cut:]))


def _pick(images: Levels, numbers: Sequence[int]) -> Levels:
    """Return the features of some images."""
    return {level: values[list(numbers)] for level, values in images.items()}


class Greedy:
    """Answers questions with a model by greedy decoding.

    Args:
        model: in eval mode.
        encoder: its tokenizer.
        max_new_tokens: longest answer, the end-of-sequence token not counted.
        batch_size: questions per forward pass; 0 = all that `answer` is given. With 1, nothing that an answer is
            computed from depends on the other questions, so neither do its bits.
        share: read an image once for all its questions where the method allows it.
    """

    def __init__(
        self,
        model: LlavaWithCompressor,
        encoder: TextEncoder,
        max_new_tokens: int,
        batch_size: int = 0,
        *,
        share: bool = True,
    ) -> None:
        self.model, self.encoder = model, encoder
        self.max_new_tokens, self.batch_size, self.share = max_new_tokens, batch_size, share
        self.image_tokens: dict[int, int] = {}

    @property
    def shares_prefix(self) -> bool:
        """True when one prefill per image serves all questions about it."""
        return self.share and self.model.prefix_safe

    @torch.inference_mode()
    def answer(
        self, images: Levels | None, questions: Sequence[Sequence[Prompt]], longest: int | None = None
    ) -> list[list[list[int]]]:
        """Return the new token ids of every question.

        `image_tokens` then says how many tokens entered the language model for each image, by its number.

        Args:
            images: features of F images; None when the questions have none.
            questions: for every image its prompts (without images: any grouping).
            longest: a lower limit than `max_new_tokens` for these questions.
        """
        flat = [(number, prompt) for number, group in enumerate(questions) for prompt in group]
        size = self.batch_size or len(flat)
        parts = [flat[start : start + size] for start in range(0, len(flat), size)]
        states: Iterator[State]
        self.image_tokens = {}
        if images is None:
            states = (self._prefill([prompt.rest for _, prompt in part]) for part in parts)
        elif self.shares_prefix:
            states = self._continued(parts, images)
        else:
            states = (
                self._prefill([prompt.prefix + prompt.rest for _, prompt in part], images, [n for n, _ in part])
                for part in parts
            )
        answers = iter([answer for state in states for answer in self._decode(state, longest)])
        return [[next(answers) for _ in group] for group in questions]

    def _continued(self, parts: Sequence[Sequence[tuple[int, Prompt]]], images: Levels) -> Iterator[State]:
        """Read every part's images once, also where several parts ask about one image, and their questions behind it.

        Parts hold questions with the number of their image, in the order of the images.
        """
        held: list[int] = []
        for part in parts:
            first = {number: prompt.prefix for number, prompt in reversed(part)}
            wanted = list(dict.fromkeys(number for number, _ in part))
            if wanted != held:
                held, prefix = wanted, self._prefill([first[number] for number in wanted], images, wanted)
            state = prefix
            if len(part) > len(wanted):  # else every image has one question, and nothing needs to be copied
                rows = [wanted.index(number) for number, _ in part]
                state = prefix.select(torch.tensor(rows, device=prefix.logits.device))
            yield self._extend(state, [prompt.rest for _, prompt in part])

    def _extend(self, state: State, rows: Sequence[Sequence[int]]) -> State:
        return self.model.extend(state, *self._padded(rows), last_only=True)[1]

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
        """Return ids and attention mask `[B, T]`, padded on the right; no mask where nothing is padded."""
        width, device = max(map(len, rows)), self.model.device
        ids = torch.tensor([[*row, *[self.encoder.pad_id] * (width - len(row))] for row in rows], device=device)
        if all(len(row) == width for row in rows):
            return ids, None
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        return ids, torch.tensor(mask, device=device)

    def _prefill(
        self, rows: Sequence[Sequence[int]], images: Levels | None = None, numbers: Sequence[int] = ()
    ) -> State:
        """Read one prompt a row, each with the image of its number."""
        ids, mask = self._padded(rows)
        levels = None
        if images is not None:
            levels = {level: values.to(ids.device) for level, values in _pick(images, numbers).items()}
        state = self.model.prefill(ids, mask, vision_levels=levels)
        self.image_tokens.update(zip(numbers, state.image_tokens, strict=True))
        return state

    def _decode(self, state: State, longest: int | None) -> list[list[int]]:
        """Continue every row of a state until its end-of-sequence token; finished rows leave the batch."""
        rows = state.logits.shape[0]
        limit = self.max_new_tokens if longest is None else min(longest, self.max_new_tokens)
        answers: list[list[int]] = [[] for _ in range(rows)]
        alive = list(range(rows))
        for step in range(limit):
            tokens = state.logits.argmax(-1).tolist()
            going = [i for i, token in enumerate(tokens) if token != self.encoder.eos_id]
            for i in going:
                answers[alive[i]].append(tokens[i])
            if not going or step == limit - 1:  # nobody asks what would follow
                break
            if len(going) < len(alive):
                state = state.select(torch.tensor(going, device=state.logits.device))
            alive = [alive[i] for i in going]
            state = self._extend(state, [[tokens[i]] for i in going])
        return answers

"""Greedy answers to many questions, with the work on an image done once for all questions about it.

LLaVA-1.5 answers one question at a time, and every question pays for its image again. A prompt is `system USER:
<image>` and then the question; whatever a model makes of the first part does not depend on the second (attention is
causal), so its key-value cache is computed once per image and continued by every question. Methods that look at the
question while they read the image (`prefix_safe = False`) are run on whole prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Greedy:
    """Answers questions with a model by greedy decoding.

    Args:
        model: in eval mode.
        encoder: its tokenizer.
        max_new_tokens: longest answer, the end-of-sequence token not counted.
    """

    def __init__(self, model: LlavaWithCompressor, encoder: TextEncoder, max_new_tokens: int) -> None:
        self.model, self.encoder, self.max_new_tokens = model, encoder, max_new_tokens

    @property
    def shares_prefix(self) -> bool:
        """True when one prefill per image serves all questions about it."""
        return self.model.prefix_safe

    @torch.inference_mode()
    def answer(self, images: Levels | None, questions: Sequence[Sequence[Prompt]]) -> list[list[list[int]]]:
        """Return the new token ids of every question.

        Args:
            images: features of F images; None when the questions have none.
            questions: for every image its prompts (without images: any grouping).
        """
        flat = [prompt for group in questions for prompt in group]
        counts = [len(group) for group in questions]
        if images is None:
            state = self._prefill([prompt.rest for prompt in flat], None)
        elif self.shares_prefix:
            state = self._prefill([group[0].prefix for group in questions], images)
            state = state.expand(torch.tensor(counts))
            _, state = self.model.extend(state, *self._padded([prompt.rest for prompt in flat]))
        else:
            rows = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
            levels = {level: values[rows] for level, values in images.items()}
            state = self._prefill([prompt.prefix + prompt.rest for prompt in flat], levels)
        answers = iter(self._decode(state))
        return [[next(answers) for _ in range(count)] for count in counts]

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return ids and attention mask `[B, T]`, padded on the right."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.encoder.pad_id)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        device = self.model.device
        return ids.to(device), mask.to(device)

    def _prefill(self, rows: Sequence[Sequence[int]], levels: Levels | None) -> State:
        ids, mask = self._padded(rows)
        if levels is not None:
            levels = {level: values.to(ids.device) for level, values in levels.items()}
        return self.model.prefill(ids, mask, vision_levels=levels)

    def _decode(self, state: State) -> list[list[int]]:
        """Continue every row of a state until its end-of-sequence token; finished rows leave the batch."""
        rows = state.logits.shape[0]
        answers: list[list[int]] = [[] for _ in range(rows)]
        alive = list(range(rows))
        for step in range(self.max_new_tokens + 1):
            tokens = state.logits.argmax(-1).tolist()
            going = [i for i, token in enumerate(tokens) if token != self.encoder.eos_id]
            if step == self.max_new_tokens or not going:
                break
            for i in going:
                answers[alive[i]].append(tokens[i])
            if len(going) < len(alive):
                state = state.select(torch.tensor(going, device=state.logits.device))
            alive = [alive[i] for i in going]
            _, state = self.model.extend(state, torch.tensor([[tokens[i]] for i in going], device=state.logits.device))
        return answers

"""Many isolated turns about one scene in one sequence, in LLaVA-1.5's prompt format.

The sequence is system prompt, scene tokens, turns. A turn sees the shared prefix and itself, and its positions start
right after the prefix, so training on packed turns equals single-turn evaluation. A text-only turn does not see the
scene: it sees the system prompt, and its positions start there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from visiontokens.data.miniworld import phrases
from visiontokens.data.miniworld.chinese import translate
from visiontokens.data.miniworld.families import Rng, pick
from visiontokens.data.miniworld.knowledge import ask_text
from visiontokens.data.miniworld.language import Question, ask, caption, multiple_choice
from visiontokens.data.miniworld.scenes import Scene

IGNORED = -100  # label of tokens without loss
CAPTION = "caption"
TEXT = "text"
WEIGHTS = {
    "exist": 1.3,
    "color": 1.0,
    "shape": 1.0,
    "texture": 0.7,
    "size": 0.7,
    "row": 1.0,
    "column": 1.0,
    "relation": 1.8,
    "count": 1.2,
    "number": 1.0,
    "compare": 0.8,
    "arithmetic": 0.3,
    "unanswerable": 1.0,
    TEXT: 0.8,
}


@dataclass(frozen=True)
class Mix:
    """Shares of what is asked and how (0..1)."""

    weights: dict[str, float] = field(default_factory=lambda: dict(WEIGHTS))  # families, not normalised
    chinese: float = 0.12
    choice: float = 0.2  # multiple choice, among questions that allow it
    choice_chinese: float = 0.6
    may_refuse: float = 0.1  # VizWiz's instruction on answerable questions
    bare: float = 0.2  # no answer instruction, as in later turns of LLaVA's mix
    ocr: float = 0.1  # OCR tokens given, among questions on the number


class Turn(NamedTuple):
    """One user message and its answer, as token ids."""

    family: str
    prompt: list[int]
    answer: list[int]


def draw_turns(
    scene: Scene, rng: Rng, tokenizer: PreTrainedTokenizerBase, *, n: int, captioned: bool, mix: Mix
) -> list[Turn]:
    """Draw `n` question turns about a scene; one of them becomes a caption turn if `captioned`."""
    families = list(mix.weights)
    shares = np.array(list(mix.weights.values()))
    turns: list[Turn] = []
    if captioned:
        message = "\n" + pick(rng, phrases.CAPTION_PROMPTS)
        turns.append(encode_turn(tokenizer, CAPTION, message, caption(scene, rng)))
    while len(turns) < n:
        family = families[int(rng.choice(len(families), p=shares / shares.sum()))]
        question = ask_text(rng) if family == TEXT else ask(scene, family, rng)
        if question is not None:
            message, answer = phrase(question, scene, rng, mix)
            turns.append(encode_turn(tokenizer, family, message, answer))
    return turns


def phrase(question: Question, scene: Scene, rng: Rng, mix: Mix) -> tuple[str, str]:
    """Return the user's message (what follows the image) and the answer, with an instruction as LLaVA-1.5 adds it."""
    foreign = question.family != TEXT and rng.random() < mix.chinese
    if rng.random() < (mix.choice_chinese if foreign else mix.choice):
        question = multiple_choice(question, rng) or question
    question = translate(question) if foreign else question
    lines = [question.text]
    if question.choices:
        lines.append(phrases.LETTER_ANSWER_CN if foreign else phrases.LETTER_ANSWER)
    else:
        if question.family == "number" and scene.number and rng.random() < mix.ocr:
            read = scene.number if rng.random() < 0.5 else ", ".join(scene.number)
            lines.append(f"{phrases.OCR_TOKENS} {read}")
        refusable = question.family == "unanswerable" or rng.random() < mix.may_refuse
        if refusable:
            lines.append(phrases.MAY_REFUSE)
        if refusable or rng.random() >= mix.bare:
            lines.append(phrases.SHORT_ANSWER)
    start = "" if question.family == TEXT else "\n"
    return start + "\n".join(lines), question.answer


def encode_turn(tokenizer: PreTrainedTokenizerBase, family: str, message: str, answer: str) -> Turn:
    """Return a turn in token ids: the message and "ASSISTANT:", the answer and `</s>`."""
    prompt = tokenizer(f"{message} ASSISTANT:", add_special_tokens=False).input_ids
    return Turn(family, prompt, [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id])


class Packed(NamedTuple):
    """Packed turns of B scenes, T text tokens each, after a prefix of P system and C scene tokens.

    `first` numbers the families of first answer tokens (-1 elsewhere), in the order given to `pack`.
    """

    input_ids: Tensor  # [B, T]
    labels: Tensor  # [B, T], already shifted: the token to predict at this place, or IGNORED
    weights: Tensor  # [B, T]
    position_ids: Tensor  # [B, P + C + T]
    mask: Tensor  # [B, 1, P + C + T, P + C + T], True where a query sees a key
    first: Tensor  # [B, T]


def pack(
    samples: Sequence[Sequence[Turn]],
    families: Sequence[str],
    *,
    system: int,
    scene: int,
    caption_weight: float,
    pad: int,
) -> Packed:
    """Pack each sample's turns after `system` and `scene` prefix tokens."""
    size = max(sum(len(t.prompt) + len(t.answer) for t in turns) for turns in samples)
    shape = (len(samples), size)
    ids, labels = np.full(shape, pad), np.full(shape, IGNORED)
    weights, first = np.zeros(shape, np.float32), np.full(shape, -1)
    segment, blind, places = np.full(shape, -1), np.zeros(shape, bool), np.zeros(shape, np.int64)
    for b, turns in enumerate(samples):
        at = 0
        for number, turn in enumerate(turns):
            tokens, start = turn.prompt + turn.answer, at + len(turn.prompt) - 1
            end = at + len(tokens)
            ids[b, at:end], segment[b, at:end] = tokens, number
            labels[b, start : end - 1] = turn.answer
            weights[b, start : end - 1] = caption_weight if turn.family == CAPTION else 1.0
            first[b, start] = families.index(turn.family)
            blind[b, at:end] = turn.family == TEXT
            places[b, at:end] = np.arange(len(tokens)) + system + (0 if turn.family == TEXT else scene)
            at = end
    prefix = system + scene
    positions = np.concatenate([np.tile(np.arange(prefix), (len(samples), 1)), places], 1)
    mask = _mask(torch.from_numpy(segment), torch.from_numpy(blind), system, scene)
    return Packed(
        torch.from_numpy(ids),
        torch.from_numpy(labels),
        torch.from_numpy(weights),
        torch.from_numpy(positions),
        mask,
        torch.from_numpy(first),
    )


def _mask(segment: Tensor, blind: Tensor, system: int, scene: int) -> Tensor:
    """Return the attention mask `[B, 1, S, S]` of a causal prefix followed by isolated turns."""
    batch, text = segment.shape
    prefix = system + scene
    sees = torch.zeros(batch, prefix + text, prefix + text, dtype=torch.bool)
    sees[:, :prefix, :prefix] = torch.ones(prefix, prefix, dtype=torch.bool).tril()
    sees[:, prefix:, :system] = True
    sees[:, prefix:, system:prefix] = ~blind[:, :, None]
    same = segment[:, :, None] == segment[:, None, :]
    sees[:, prefix:, prefix:] = same & torch.ones(text, text, dtype=torch.bool).tril()
    return sees[:, None]

"""How likely a model finds the right answers of some training questions: the score that schedules are searched by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visiontokens.config import Config
from visiontokens.data.conversation import IGNORE_INDEX, IMAGE_TOKEN, Turn, tokenize, vicuna_v1
from visiontokens.data.encoders import TextEncoder
from visiontokens.data.precision import autocast
from visiontokens.data.records import RecordError, independent, is_caption, load_records
from visiontokens.evaluate.images import LevelSource
from visiontokens.models.llava import LlavaWithCompressor

Levels = dict[int, Tensor]


@dataclass(frozen=True)
class Question:
    """One training question about one image (a path below the data folder), as token ids; the answer ends with EOS."""

    id: str
    image: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def calibration_questions(config: Config, encoder: TextEncoder, image_id: int) -> list[Question]:
    """Draw `search.questions` questions from the tune stage's records, one an image, the same ones for every search.

    Captions are left out. Where there are fewer images, each of them gives a question.

    Raises:
        FileNotFoundError, RecordError: see `load_records`; also no question about an image.
    """
    settings = config.train.tune
    path = config.data_dir / settings.annotations
    draw = np.random.default_rng(0)
    records = load_records(path)
    chosen: list[Question] = []
    for number in draw.permutation(len(records)).tolist():
        record = records[number]
        turns = [(i, turn) for i, turn in enumerate(independent(record.turns)) if turn.answer and not is_caption(turn)]
        if record.image is None or not turns:
            continue
        place, turn = turns[int(draw.integers(len(turns)))]
        image = (settings.images / record.image).as_posix()
        chosen.append(_question(f"{record.id}-{place}", image, turn, encoder, image_id))
        if len(chosen) == config.search.questions:
            break
    if not chosen:
        raise RecordError(f"{path}: found no question about an image, expected some to calibrate with")
    return sorted(chosen, key=lambda question: (len(question.prompt), question.id))


def _question(name: str, image: str, turn: Turn, encoder: TextEncoder, image_id: int) -> Question:
    """Tokenise a question by itself, as it is trained and asked."""
    bare = turn.question.removeprefix(f"{IMAGE_TOKEN}\n")
    tokens = tokenize(vicuna_v1([Turn(f"{IMAGE_TOKEN}\n{bare}", turn.answer)], encoder.eos), encoder, image_id)
    cut = next(i for i, label in enumerate(tokens.labels) if label != IGNORE_INDEX)
    return Question(name, image, tuple(tokens.ids[:cut]), tuple(tokens.ids[cut:]))


@dataclass(frozen=True)
class Likelihood:
    """Means over questions: log-likelihood of the gold answer, share that greedy decoding would give exactly."""

    log_likelihood: float
    exact_match: float


class Calibration:
    """Questions with their vision features, ready to be answered by a model again and again.

    Args:
        model: in eval mode; its method may change between calls.
        questions: what is asked.
        source: of the images' features, which are kept in memory.
        pad_id: fills short rows.
        batch_size: questions per forward pass.
        precision: auto, fp32 or bf16.
    """

    def __init__(
        self,
        model: LlavaWithCompressor,
        questions: Sequence[Question],
        source: LevelSource,
        *,
        pad_id: int,
        batch_size: int,
        precision: str = "auto",
    ) -> None:
        self.model, self.pad_id, self.precision = model, pad_id, precision
        starts = range(0, len(questions), batch_size)
        parts = [questions[start : start + batch_size] for start in starts]
        self._batches = [(part, source.get([question.image for question in part])) for part in parts]

    @torch.inference_mode()
    def __call__(self) -> Likelihood:
        """Answer all questions with the model's present method: prompts are read as at test time, then the answers."""
        results = [self._batch(part, levels) for part, levels in self._batches]
        likelihoods, exact = (torch.cat(part).double().mean() for part in zip(*results, strict=True))
        return Likelihood(float(likelihoods), float(exact))

    def _batch(self, part: Sequence[Question], levels: Levels) -> tuple[Tensor, Tensor]:
        """Return log-likelihood and exactness of each answer, `[B]`."""
        ids, mask = self._padded([question.prompt for question in part])
        answers, real = self._padded([question.answer for question in part])
        levels = {level: values.to(ids.device) for level, values in levels.items()}
        with autocast(self.precision, str(self.model.device)):
            state = self.model.prefill(ids, mask, vision_levels=levels)
            logits = state.logits[:, None]
            if answers.shape[1] > 1:
                rest, _ = self.model.extend(state, answers[:, :-1], real[:, :-1])
                logits = torch.cat([logits, rest], 1)
        given = logits.float().log_softmax(-1).gather(2, answers[..., None])[..., 0]
        exact = ((logits.argmax(-1) == answers) | ~real.bool()).all(1)
        return (given * real).sum(1).cpu(), exact.cpu()

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return ids and attention mask `[B, T]`, padded on the right."""
        width, device = max(map(len, rows)), self.model.device
        ids = torch.tensor([[*row, *[self.pad_id] * (width - len(row))] for row in rows], device=device)
        return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)

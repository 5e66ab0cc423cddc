"""The text vector of methods that read the question before the language model (`text_query`).

It is the last state, after the final norm, of a pass of the language model over the question alone: QueCC's choice.
The model in training is asked as it is, without gradients, so the vector drifts while it learns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from visiontokens.compress.base import Compressor, MethodParams, Seq
from visiontokens.data.conversation import Turn, render, vicuna_v1
from visiontokens.data.encoders import TextEncoder
from visiontokens.models import splice
from visiontokens.models.llama import Prefill


@dataclass(frozen=True)
class Prompt:
    """What `forward` was given as text: ids, attention mask and labels `[B, S]`; `image_index` as there."""

    ids: Tensor
    mask: Tensor | None = None
    labels: Tensor | None = None
    segments: Tensor | None = None
    documents: Tensor | None = None
    image_index: Tensor | None = None


def question_marks(encoder: TextEncoder) -> dict[str, list[int]]:
    """Return the ids between image and question (`start`) and those of the assistant marker behind it (`end`)."""
    text = render(vicuna_v1([Turn("x", None)]))
    marker = text.rindex("ASSISTANT")
    encoded = encoder.encode(text)
    end = [token for token, (_, stop) in zip(encoded.ids, encoded.spans, strict=True) if stop > marker]
    return {"start": encoder.encode("\n").ids, "end": end}


def questions(
    ids: Tensor,
    mask: Tensor | None,
    labels: Tensor | None,
    *,
    image_token: int,
    bos: int,
    marks: Mapping[str, Sequence[int]] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return every row's question: ids and real slots `[R, 1 + Q]`, right-padded, and rows `[R]`.

    The question is the text after a row's last image, up to the assistant marker or the first label, whichever comes
    first, else to the end; of several turns it is the first one's, as in the official code. Rows without an image
    have none. The beginning token stands in front, alone where nothing follows the image.

    Args:
        ids: `[B, S]`, padded on either side.
        mask: `[B, S]`, 0 = padding.
        labels: `[B, S]`, -100 = ignore.
        image_token: id of the placeholder.
        bos: id of the beginning token.
        marks: see `question_marks`.
    """
    marks = marks or {}
    steps = torch.arange(ids.shape[1], device=ids.device)
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    image = (ids == image_token) & real
    last = torch.where(image, steps, -1).amax(1, keepdim=True)
    behind = real & (steps > last) & (last >= 0)
    stop = torch.zeros_like(real) if labels is None else labels != splice.IGNORE
    stop = behind & (stop | _begins(ids, marks.get("end", ())))
    inside = behind & (stop.cumsum(1) == 0)
    start = marks.get("start", ())
    opened = (_begins(ids, start) & (steps == last + 1)).any(1, keepdim=True)
    inside &= ~(opened & (steps <= last + len(start)))
    rows = image.any(1).nonzero()[:, 0]
    ids, inside = ids[rows], inside[rows]
    count = inside.sum(1, keepdim=True)
    width = 1 + int(count.max()) if len(rows) else 1
    place = torch.where(inside, inside.cumsum(1), width)  # one spare slot takes the rest
    out = ids.new_full((len(rows), width + 1), bos).scatter(1, place, ids)[:, :width]
    ok = torch.arange(width, device=ids.device) <= count
    return out.masked_fill(~ok, bos), ok, rows


def _begins(ids: Tensor, pattern: Sequence[int]) -> Tensor:
    """Return where `pattern` begins, bool `[B, S]`; nowhere for an empty one."""
    padded = torch.nn.functional.pad(ids, (0, len(pattern)), value=-1)
    hits = [padded[:, k : k + ids.shape[1]] == token for k, token in enumerate(pattern)]
    return torch.stack(hits).all(0) if hits else torch.zeros_like(ids, dtype=torch.bool)


@torch.no_grad()
def text_states(model: Any, ids: Tensor, ok: Tensor) -> Tensor:
    """Return the final-norm state of every row's last real token, `[R, D]`, from right-padded texts `[R, T]`."""
    h = model.get_input_embeddings()(ids)
    steps = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    text = torch.full_like(ids, -1)
    seq = Seq(h, steps, steps, text, torch.zeros_like(ids), None if bool(ok.all()) else ok)
    plain: Compressor[Any] = Compressor(MethodParams(), model.geometry)
    hidden = model.model.language_model(work=Prefill(seq, plain)).last_hidden_state
    states: Tensor = hidden[torch.arange(len(ids), device=ids.device), ok.sum(1) - 1]
    return states


def image_queries(model: Any, prompt: Prompt | None, frames: Sequence[int]) -> Tensor:
    """Return the text vector of every frame, `[F, D]`: that of the question in its image's row.

    Without a prompt (images encoded by themselves) it is that of an empty question.

    Args:
        model: a `LlavaWithCompressor`.
        prompt: the batch's text.
        frames: frames of every image of the batch, in reading order.

    Raises:
        ValueError: rows hold several turns in isolation or several samples, or the tokenizer has no beginning token.
        PlaceholderError: placeholders and images do not match.
    """
    bos = model.config.text_config.bos_token_id
    if bos is None:
        raise ValueError(f"method {model.method.name!r} needs text_config.bos_token_id; found None")
    repeats = torch.tensor(list(frames), device=model.device)
    if prompt is None:
        ids = torch.tensor([[bos]], device=model.device)
        return text_states(model, ids, torch.ones_like(ids, dtype=torch.bool)).expand(int(repeats.sum()), -1)
    turns = 0 if prompt.segments is None else int(prompt.segments.max())
    if turns > 1 or prompt.documents is not None:
        found = "packed samples" if prompt.documents is not None else f"{turns} isolated turns in a row"
        raise ValueError(f"method {model.method.name!r} reads one question a row; found {found}")
    ids, ok, rows = questions(
        prompt.ids, prompt.mask, prompt.labels, image_token=model.config.image_token_id, bos=bos,
        marks=getattr(model.config, "question_marks", None),
    )  # fmt: skip
    n_vision = model.geometry.n_vision
    tokens = model.compressor.n_tokens(n_vision) or n_vision
    counts, patches = [tokens * count for count in frames], [n_vision * count for count in frames]
    owners = splice.image_rows(prompt.ids, prompt.mask, model.config.image_token_id, counts, patches)
    owner = torch.searchsorted(rows, torch.tensor(owners, device=rows.device))
    return text_states(model, ids, ok)[owner].repeat_interleave(repeats, 0)


def repeat_images(levels: dict[int, Tensor], frames: list[int], index: Tensor) -> tuple[dict[int, Tensor], list[int]]:
    """Return the states `[F, ...]` and frames of the images or videos at `index`."""
    chosen = index.tolist()
    pictures = torch.arange(sum(frames)).split(frames)
    place = torch.cat([pictures[i] for i in chosen])
    states = {level: value.index_select(0, place.to(value.device)) for level, value in levels.items()}
    return states, [frames[i] for i in chosen]

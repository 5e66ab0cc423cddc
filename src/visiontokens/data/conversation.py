"""Conversations in LLaVA form to prompts, token ids and labels.

Two templates: `plain` (alignment: the image, then the caption) and `vicuna_v1` (instruction tuning and evaluation).
Ids equal those of LLaVA-1.5 (`tests/conformance/test_llava_base.py`). Labels do not follow its arithmetic, which
subtracts token counts and silently masks whole samples with vocabularies it does not expect: here the characters of
the answers are known, and a token is a target if and only if it covers one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from visiontokens.data.encoders import Encoded, TextEncoder

IMAGE_TOKEN = "<image>"
VIDEO_TOKEN = "<video>"
"""Video-LLaVA's placeholder; it writes eight image tokens for it, we write one, which stands for all frames' tokens."""
IMAGE_TOKEN_INDEX = -200
"""The placeholder id that LLaVA-1.5 writes into its input ids (and our fixtures therefore hold)."""
IGNORE_INDEX = -100
ROLES = ("human", "gpt")
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@dataclass(frozen=True)
class Turn:
    """One question and its answer; `answer` is None for the prompt that a model is to continue."""

    question: str
    answer: str | None


@dataclass(frozen=True)
class Piece:
    """A stretch of a prompt; targets are what the model is trained to say, `weight` the loss weight of its tokens."""

    text: str
    target: bool = False
    weight: float = 1.0


@dataclass
class Tokens:
    """A tokenised conversation: parallel lists of length S.

    `segments` holds 0 for what all turns share and t >= 1 for turn t; it is all zero for ordinary causal samples.
    """

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)

    def add(self, token: int, *, target: bool = False, weight: float = 1.0, segment: int = 0) -> None:
        """Append one token; without `target` its label is ignored and its weight zero."""
        self.ids.append(token)
        self.labels.append(token if target else IGNORE_INDEX)
        self.weights.append(weight if target else 0.0)
        self.segments.append(segment)

    def cut(self, length: int) -> Tokens:
        """Return the first `length` tokens."""
        return Tokens(self.ids[:length], self.labels[:length], self.weights[:length], self.segments[:length])


def front_image(value: str) -> str:
    """Move the image placeholder of a message to its start, followed by a newline (LLaVA-1.5 preprocessing)."""
    if IMAGE_TOKEN not in value:
        return value
    return f"{IMAGE_TOKEN}\n{value.replace(IMAGE_TOKEN, '').strip()}".strip()


def to_turns(messages: Sequence[dict[str, str]]) -> list[Turn]:
    """Return the question-answer pairs of a LLaVA `conversations` list, images moved to the front of their message.

    A leading answer without a question is dropped, as LLaVA-1.5 does.

    Raises:
        ValueError: speakers do not alternate, a speaker is unknown, or the last question has no answer.
    """
    rows = list(messages)
    if rows and rows[0]["from"] == ROLES[1]:
        rows = rows[1:]
    for index, row in enumerate(rows):
        expected = ROLES[index % 2]
        if row["from"] != expected:
            raise ValueError(f"message {index}: expected from {expected!r}, found {row['from']!r}")
    if not rows or len(rows) % 2:
        raise ValueError(f"expected question and answer in turn, found {len(rows)} message(s)")
    values = [front_image(row["value"]) for row in rows]
    return [Turn(q, a) for q, a in zip(values[::2], values[1::2], strict=True)]


def vicuna_v1(turns: Sequence[Turn], eos: str = "</s>", weights: Sequence[float] | None = None) -> list[Piece]:
    """Return the Vicuna v1 prompt: system sentence, then `USER: ... ASSISTANT: answer</s>` for every turn.

    The space after `ASSISTANT:` belongs to the answer: a question's prompt ends before it. `weights` holds the loss
    weight of each turn's answer (1 by default).
    """
    pieces = [Piece(VICUNA_SYSTEM + " ")]
    for number, turn in enumerate(turns):
        pieces.append(Piece(f"USER: {turn.question} ASSISTANT:"))
        if turn.answer is not None:
            pieces.append(Piece(f" {turn.answer}{eos}", True, weights[number] if weights else 1.0))
    return pieces


def plain(turns: Sequence[Turn], eos: str = "</s>", weights: Sequence[float] | None = None) -> list[Piece]:
    """Return the alignment prompt: the bare image and its caption with a newline; the question's words are dropped.

    Raises:
        ValueError: more than one turn, or a turn without an image or a caption.
    """
    del eos
    if len(turns) != 1 or IMAGE_TOKEN not in turns[0].question or turns[0].answer is None:
        raise ValueError("template plain: expected exactly one question with an image and one caption")
    return [Piece(IMAGE_TOKEN), Piece(turns[0].answer + "\n", True, weights[0] if weights else 1.0)]


TEMPLATES: dict[str, Callable[..., list[Piece]]] = {"plain": plain, "v1": vicuna_v1, "vicuna_v1": vicuna_v1}
"""By name; `v1` is what LLaVA-1.5's training scripts call `vicuna_v1`."""


def template(name: str) -> Callable[..., list[Piece]]:
    """Return a template by its name.

    Raises:
        ValueError: no such template.
    """
    if name not in TEMPLATES:
        raise ValueError(f"template: expected one of {sorted(TEMPLATES)}, found {name!r}")
    return TEMPLATES[name]


def render(pieces: Iterable[Piece]) -> str:
    """Return the prompt as one string."""
    return "".join(piece.text for piece in pieces)


def question_prompt(question: str, *, image: bool) -> str:
    """Return the `vicuna_v1` prompt of one question, ready to be continued by the answer."""
    text = f"{IMAGE_TOKEN}\n{question}" if image else question
    return render(vicuna_v1([Turn(text, None)]))


def encode_with_images(text: str, encoder: TextEncoder, image_id: int = IMAGE_TOKEN_INDEX) -> Encoded:
    """Tokenise a prompt: beginning token, then the texts between images, each encoded by itself, images as one id.

    The beginning token has the empty span (0, 0).
    """
    ids = [] if encoder.bos_id is None else [encoder.bos_id]
    spans = [(0, 0)] * len(ids)
    start = 0
    for number, part in enumerate(text.split(IMAGE_TOKEN)):
        if number:
            ids.append(image_id)
            spans.append((start, start + len(IMAGE_TOKEN)))
            start += len(IMAGE_TOKEN)
        chunk = encoder.encode(part)
        ids += chunk.ids
        spans += [(start + a, start + b) for a, b in chunk.spans]
        start += len(part)
    return Encoded(ids, spans)


def tokenize(pieces: Sequence[Piece], encoder: TextEncoder, image_id: int = IMAGE_TOKEN_INDEX) -> Tokens:
    """Tokenise a prompt and label it: a token is a target iff it covers at least one character of a target piece."""
    encoded = encode_with_images(render(pieces), encoder, image_id)
    targets: list[tuple[int, int, float]] = []
    start = 0
    for piece in pieces:
        if piece.target:
            targets.append((start, start + len(piece.text), piece.weight))
        start += len(piece.text)
    out = Tokens()
    for token, (begin, end) in zip(encoded.ids, encoded.spans, strict=True):
        hit = next((w for a, b, w in targets if begin < b and end > a), None) if end > begin else None
        out.add(token, target=hit is not None, weight=hit or 0.0)
    return out


def tokenize_isolated(
    turns: Sequence[Turn],
    encoder: TextEncoder,
    image_id: int = IMAGE_TOKEN_INDEX,
    weights: Sequence[float] | None = None,
) -> Tokens:
    """Pack independent questions on one image into one sequence; each sees only the shared prefix and itself.

    Every turn is rendered as a single-turn `vicuna_v1` prompt; the tokens they all begin with (system sentence, role,
    image, newline) are stored once as segment 0, the rest of turn t (from 1) as segment t. So with attention inside
    segments and positions restarting after the prefix, training equals evaluation of one question at a time. The
    image belongs to all turns, whichever of them holds its placeholder.

    Raises:
        ValueError: no turns.
    """
    if not turns:
        raise ValueError("expected at least one turn, found none")
    head = f"{IMAGE_TOKEN}\n" if any(turn.question.startswith(IMAGE_TOKEN) for turn in turns) else ""
    shared = len(VICUNA_SYSTEM + " USER: " + head)
    samples = []
    for number, turn in enumerate(turns):
        single = Turn(head + turn.question.removeprefix(f"{IMAGE_TOKEN}\n"), turn.answer)
        pieces = vicuna_v1([single], encoder.eos, None if weights is None else [weights[number]])
        samples.append(tokenize(pieces, encoder, image_id))
    first = encode_with_images(render(vicuna_v1([Turn(head, None)])), encoder, image_id)
    length = sum(end <= shared for _, end in first.spans)
    while any(sample.ids[:length] != samples[0].ids[:length] for sample in samples):
        length -= 1
    out = samples[0].cut(length)
    for number, sample in enumerate(samples, start=1):
        out.ids += sample.ids[length:]
        out.labels += sample.labels[length:]
        out.weights += sample.weights[length:]
        out.segments += [number] * (len(sample.ids) - length)
    return out

"""Text to token ids with character offsets, behind one small protocol.

Label masks are computed from offsets, so every tokenizer must say which characters a token covers. Two kinds are
served: any fast tokenizer of `transformers` (the mini world's and converted checkpoints) and raw SentencePiece model
files in both LLaMA behaviours (`legacy` true and false), which differ in what follows a special token.
"""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Protocol

SPACE = "\u2581"
"""SentencePiece's visible space."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class Encoded(NamedTuple):
    """Tokens of one text: `ids[i]` covers the characters `spans[i] = (begin, end)`, end exclusive."""

    ids: list[int]
    spans: list[tuple[int, int]]


class TextEncoder(Protocol):
    """What prompts need from a tokenizer. `bos_id` is None when the tokenizer adds no beginning token."""

    bos_id: int | None
    eos_id: int
    pad_id: int
    eos: str

    def encode(self, text: str) -> Encoded:
        """Return the tokens of `text` without a beginning token; the end-of-sequence string is one token."""
        ...


class FastEncoder:
    """A fast tokenizer of `transformers` (anything that returns an offset mapping)."""

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(f"{type(tokenizer).__name__}: expected a fast tokenizer (offsets are needed for labels)")
        self._backend = tokenizer.backend_tokenizer
        adds_bos = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
        self.bos_id: int | None = tokenizer.bos_token_id if adds_bos else None
        self.eos_id: int = tokenizer.eos_token_id
        self.eos: str = tokenizer.eos_token
        self.pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.unk_token_id

    def encode(self, text: str) -> Encoded:
        """Return the tokens of `text` without a beginning token."""
        if not text:
            return Encoded([], [])
        out = self._backend.encode(text, add_special_tokens=False)
        return Encoded(out.ids, out.offsets)


class SentencePieceEncoder:
    """A LLaMA-style SentencePiece model file.

    Args:
        model_file: the `.model` file.
        legacy: True puts a leading space before the text after every special token, as LLaMA tokenizers did first;
            False only before the start of the text (vicuna-7b-v1.5).
    """

    def __init__(self, model_file: str | Path, *, legacy: bool) -> None:
        from sentencepiece import SentencePieceProcessor

        if not Path(model_file).is_file():
            raise FileNotFoundError(f"{model_file}: no SentencePiece model there")
        self._model = SentencePieceProcessor(model_file=str(model_file))
        self.legacy = legacy
        self.bos_id: int | None = self._model.bos_id()
        self.eos_id: int = self._model.eos_id()
        self.pad_id: int = self._model.unk_id()
        self.eos: str = self._model.id_to_piece(self.eos_id)

    def encode(self, text: str) -> Encoded:
        """Return the tokens of `text` without a beginning token; `</s>` is recognised as the special token."""
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        start = 0
        for number, part in enumerate(text.split(self.eos)):
            if number:
                ids.append(self.eos_id)
                spans.append((start, start + len(self.eos)))
                start += len(self.eos)
            chunk = self._chunk(part, prefix=self.legacy or number == 0)
            ids += chunk.ids
            spans += [(start + a, start + b) for a, b in chunk.spans]
            start += len(part)
        return Encoded(ids, spans)

    def _chunk(self, text: str, *, prefix: bool) -> Encoded:
        """Encode text without special tokens, with or without the leading space the model adds by itself.

        The model cannot be asked to leave that space out, so without `prefix` a newline (never part of a longer
        piece) is put in front and its tokens are dropped.
        """
        if not text:
            return Encoded([], [])
        fed = text if prefix else "\n" + text
        pieces: list[str] = self._model.encode(fed, out_type=str)
        lengths = [1 if _BYTE.fullmatch(p) else len(p.replace(SPACE, " ").encode()) for p in pieces]
        ends = list(accumulate(lengths))
        if ends[-1] != len(fed.encode()) + 1:
            raise ValueError(f"SentencePiece changed the text, offsets are unknown: {text[:60]!r}")
        skipped = 1 + len(fed) - len(text)
        char_of = _char_at_byte(" " * skipped + text)
        tokens = [
            (self._model.piece_to_id(piece), (max(0, char_of[end - n] - skipped), char_of[end] - skipped))
            for piece, n, end in zip(pieces, lengths, ends, strict=True)
            if prefix or end > skipped
        ]
        return Encoded([i for i, _ in tokens], [span for _, span in tokens])


def _char_at_byte(text: str) -> list[int]:
    """Return, for every byte position of the UTF-8 form (and its end), the index of the character it lies in."""
    out: list[int] = []
    for index, char in enumerate(text):
        out += [index] * len(char.encode())
    return [*out, len(text)]

"""What training forwards really had to do, counted where it happens: tokens per layer, padding, labelled rows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visiontokens.compress.base import Seq


@dataclass
class Load:
    """Sums over forwards since the last `take`.

    `tokens` are real tokens that entered the language model and `slots` those with padding; `layer_tokens` are real
    tokens summed over the decoder layers (where a layer runs for some of its tokens, those); `rows` went through the
    output layer.
    """

    tokens: int = 0
    slots: int = 0
    layer_tokens: int = 0
    rows: int = 0
    images: int = 0

    @staticmethod
    def count(seq: Seq, queries: Tensor | None = None) -> int:
        """Return a sequence's real tokens, or those of them that are queries (flagged in `queries` `[B, S]`)."""
        if queries is not None:
            return int((queries & seq.valid).sum())
        return seq.pos.numel() if seq.ok is None else int(seq.ok.sum())

    def enter(self, seq: Seq, images: int) -> None:
        """Count what enters the language model."""
        self.tokens += self.count(seq)
        self.slots += seq.pos.numel()
        self.images += images

    def add(self, other: Load) -> None:
        """Add another count."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def take(self) -> Load:
        """Return the sums and start again from zero."""
        taken = Load(**vars(self))
        self.__init__()  # type: ignore[misc]
        return taken

    @property
    def padding(self) -> float:
        """Share of the slots that hold no token."""
        return 1 - self.tokens / self.slots if self.slots else 0.0

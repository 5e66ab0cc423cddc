"""G-Search and P-Sigmoid (arXiv 2412.00556): a searched share of the vision tokens in every layer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal

from pydantic import field_validator

from visiontokens.compress.base import (
    Compressor,
    Decoder,
    Geometry,
    MethodError,
    PositionParams,
    Probe,
    Seq,
    register,
)
from visiontokens.compress.images import sizes, top_per_image
from visiontokens.compress.ratios import FIRST, meet_budget, tokens_kept, whole_tokens

SEARCHED = "searched"


class GSearchParams(PositionParams):
    """Parameters of `gsearch`.

    Attributes:
        ratios: share of an image's tokens that layers keep, falling from 1; spread evenly over the decoder's layers
            (one each where there are as many). `searched` stands for what `visiontokens search` finds.
    """

    ratios: Literal["searched"] | tuple[float, ...] = (1.0, 1.0, 0.5, 0.25)

    @field_validator("ratios")
    @classmethod
    def _falling(cls, value: str | tuple[float, ...]) -> str | tuple[float, ...]:
        if isinstance(value, tuple):
            ok = bool(value) and all(0 < r <= 1 for r in value) and all(a >= b for a, b in pairwise(value))
            if not ok or value[0] != 1:
                raise ValueError(f"expected ratios above 0 that start with 1 and do not rise; found {list(value)}")
        return value


@register("gsearch")
class GSearch(Compressor[GSearchParams]):
    """Before layer i keeps the round(r_i N) vision tokens that the last prompt token attends to in layer i-1.

    Attention is averaged over heads, as in FastV, which is the case of one step. A dropped token never comes back;
    survivors keep order and, by default, positions, so that layers hold caches of different lengths. The layers before
    layer 2 keep all tokens: attention of the first layer does not rank them (paper). The ranking token is that of
    FastV (our choice: the paper's is not known).
    """

    Params = GSearchParams
    identity = MappingProxyType({"ratios": (1.0,)})
    prefix_safe = False
    packable = False

    def __init__(self, params: GSearchParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        early = self._ratios(geometry.llm_layers)[:FIRST]
        if min(early) < 1:
            raise MethodError(
                f"method 'gsearch': found ratios {early} in the first {FIRST} of {geometry.llm_layers} layers, "
                "expected 1: the layers before layer 2 keep all tokens"
            )

    def _ratios(self, n_layers: int) -> list[float]:
        """Return the ratio of every layer; before a search all are 1, which is the most that it can cost."""
        given = self.params.ratios
        if isinstance(given, str):
            return [1.0] * n_layers
        return [given[index * len(given) // n_layers] for index in range(n_layers)]

    def begin(self, seq: Seq, lm: Decoder) -> Seq:
        """Count the tokens that the ratios are shares of.

        Raises:
            MethodError: the ratios are still to be searched.
        """
        if self.params.ratios == SEARCHED:
            raise MethodError(
                "method 'gsearch': the ratios are 'searched', but no search result was given: run "
                "`visiontokens search` (the workflow does), or write the ratios into the parameters"
            )
        self._original = sizes(seq.image)
        self._probe: Probe | None = None
        return seq

    def before_layer(self, index: int, seq: Seq, lm: Decoder) -> Seq:
        """Drop what the schedule says, and have this layer watched if tokens are dropped behind it."""
        ratios = self._ratios(self.geometry.llm_layers)
        if self._probe is not None and self._probe.weights is not None:
            count = (self._original.double() * ratios[index] + 0.5).long().clamp_min(1)  # as `tokens_kept`
            best = top_per_image(self._probe.weights, seq.image, count)
            seq, self._probe = seq.keep(~seq.vis | best, renumber=self.params.renumber), None
        if len(self._original) and index + 1 < len(ratios) and ratios[index + 1] < ratios[index]:
            self._probe = self.watch(lm, index, seq)
        return seq

    @classmethod
    def settings(cls, geometry: Geometry) -> Iterator[dict[str, Any]]:
        """Sigmoids of one steepness and floor, for every whole number of mean tokens."""
        n, depth = geometry.n_vision, geometry.llm_layers
        for tokens in range(n, 0, -1):
            found = meet_budget(depth, 10.0, 0.02, sum, depth * tokens / n)
            if found is not None:
                yield {"ratios": whole_tokens(found, n, depth * tokens)}

    def tokens_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """round(r_i N) in layer i."""
        return [float(tokens_kept(r, n_vision)) for r in self._ratios(n_layers)]

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Projector and one row of attention scores before every drop."""
        depth = self.geometry.llm_layers
        counts = self.tokens_per_layer(n_vision, depth)
        rows = sum(a + n_text for a, b in pairwise(counts) if b < a)
        return super().extra_flops(n_vision, n_text) + 2.0 * self.geometry.llm_width * rows

"""The closed vocabulary of tests: one class per kind, what it needs and what it asks for; `verify.judge` judges."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from visiontokens.config.section import Section

Pair = tuple[str, str]
"""Two experiments; the difference is first minus second."""


class Test(Section):
    """What all kinds of tests have."""

    scales: tuple[str, ...] = ()
    """Scales that run what it needs, the cheapest first; none = needs no results (analytic)."""
    says: str = ""
    """The claim in the words in which it is tested here, where that is not all of its statement."""
    because: str
    """Why this tolerance."""

    @property
    def asks(self) -> str:
        """What is expected, with the tolerance, in a few words."""
        raise NotImplementedError


class Recompute(Test):
    """The printed numbers follow from the papers' own definitions (`analyze.errata`)."""

    kind: Literal["recompute"]
    quantities: tuple[str, ...] = Field(min_length=1)
    tables: tuple[str, ...] = ()
    """Default: all."""
    rows: tuple[str, ...] = ()
    """Default: all."""

    @property
    def asks(self) -> str:
        """What is expected, with the tolerance, in a few words."""
        return "recomputed as printed"


class Ordering(Test):
    """In every pair the first is above the second beyond noise."""

    kind: Literal["ordering"]
    pairs: tuple[Pair, ...] = Field(min_length=1)
    benchmarks: tuple[str, ...] = ()
    """Mean over these; default: those of the cited tables that were scored."""
    tolerance: float = Field(gt=0)
    """Points: a lead that is certainly smaller than this is none."""

    @property
    def asks(self) -> str:
        """What is expected, with the tolerance, in a few words."""
        return f"lead above 0 beyond noise; one below {self.tolerance:g} is none"


class Level(Test):
    """In every pair the first is level with the second: the difference is certainly inside the tolerance."""

    kind: Literal["level"]
    pairs: tuple[Pair, ...] = Field(min_length=1)
    benchmarks: tuple[str, ...] = ()
    tolerance: float = Field(gt=0)
    """Points."""
    side: Literal["lower", "both"] = "lower"
    """`lower`: not worse than that; `both`: not better either."""

    @property
    def asks(self) -> str:
        """What is expected, with the tolerance, in a few words."""
        return f"difference certainly within {'±' if self.side == 'both' else '−'}{self.tolerance:g}"


class Falls(Test):
    """The score falls along these rows: no step rises beyond noise, and the last is below the first beyond it."""

    kind: Literal["falls"]
    rows: tuple[str, ...] = Field(min_length=2)
    benchmarks: tuple[str, ...] = ()
    tolerance: float = Field(gt=0)
    """Points: a rise that could be smaller than this does not count."""

    @property
    def asks(self) -> str:
        """What is expected, with the tolerance, in a few words."""
        return f"ends in order beyond noise, no step up by more than {self.tolerance:g}"


class Curve(Test):
    """The redundancy curve falls with the stride at every layer, or rises with the layer at every stride."""

    kind: Literal["curve"]
    along: Literal["stride", "layer"]
    benchmarks: tuple[str, ...] = Field(min_length=1)
    tolerance: float = Field(gt=0)
    """Points, as in `Falls`."""

    @property
    def asks(self) -> str:
        """What is expected, with the tolerance, in a few words."""
        return f"ends in order beyond noise, no step the other way by more than {self.tolerance:g}"


class Point(Test):
    """One point of the redundancy curve loses no more than the tolerance against all tokens."""

    kind: Literal["point"]
    layer: int
    stride: int
    benchmark: str
    tolerance: float = Field(gt=0)
    """Points."""

    @property
    def asks(self) -> str:
        """What is expected, with the tolerance, in a few words."""
        return f"loss certainly below {self.tolerance:g}"


class CurveValues(Test):
    """The redundancy curve has the published values."""

    kind: Literal["curve_values"]
    benchmark: str
    tolerance: float = Field(gt=0)
    """Points."""

    @property
    def asks(self) -> str:
        """What is expected, with the tolerance, in a few words."""
        return f"as drawn ± {self.tolerance:g}"


class Values(Test):
    """The scores of the cited rows are the published ones."""

    kind: Literal["values"]
    tolerance: float = Field(gt=0)
    """Points of 100 (MME: times 20)."""

    @property
    def asks(self) -> str:
        """What is expected, with the tolerance, in a few words."""
        return f"as published ± {self.tolerance:g} (MME ± {20 * self.tolerance:g})"


class Ratio(Test):
    """A counted cost of a row is this share of another row's."""

    kind: Literal["ratio"]
    quantity: Literal["tokens_mean", "prefill_flops", "kv_bytes", "parameters_compressor"]
    pairs: tuple[Pair, ...] = Field(min_length=1)
    expected: float
    tolerance: float = Field(ge=0)
    """Absolute, in shares of 1."""

    @property
    def asks(self) -> str:
        """What is expected, with the tolerance, in a few words."""
        return f"share {self.expected:g} ± {self.tolerance:g}"


class Time(Test):
    """A row takes less time than another, by this many percent."""

    kind: Literal["time"]
    quantity: Literal["train", "prefill"]
    pairs: tuple[Pair, ...] = Field(min_length=1)
    at_least: float
    """Percent saved that the claim needs."""
    tolerance: float = Field(ge=0)
    """Percent that timings vary by; inside it there is no verdict."""

    @property
    def asks(self) -> str:
        """What is expected, with the tolerance, in a few words."""
        return f"at least {self.at_least:g}% saved; timings vary by {self.tolerance:g}%"


class Attention(Test):
    """From some depth on, the answer attends less to a vision token than to a token of the system prompt."""

    kind: Literal["attention"]
    after: float = Field(ge=0, lt=1)
    """Share of the depth that is left out at the start."""
    factor: float = Field(gt=0)
    """System over vision, mean over the layers, at least."""
    tolerance: float = Field(ge=0)
    """Share of the layers that may be exceptions."""

    @property
    def asks(self) -> str:
        """What is expected, with the tolerance, in a few words."""
        return f"by a factor of {self.factor:g}, but for {100 * self.tolerance:g}% of the layers"


AnyTest = Annotated[
    Recompute | Ordering | Level | Falls | Curve | Point | CurveValues | Values | Ratio | Time | Attention,
    Field(discriminator="kind"),
]

"""Stages of compression during training (LLaVolta, sec. 3.3): pure arithmetic, no state to lose on resume."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from visiontokens.provenance import read_yaml

NO_PIVOT = 10_000
_DEPTH = re.compile(r"(-?\d+)/(\d+)")


@dataclass(frozen=True)
class Depth:
    """A decoder layer as `layer` of `of` layers, so that one setting serves models of any depth."""

    layer: int
    of: int = 32

    @classmethod
    def parse(cls, value: object) -> Depth:
        """Read `"2/32"`, `2` (of 32), `-1` (before the language model) or a `Depth`.

        Raises:
            ValueError: anything else.
        """
        if isinstance(value, Depth):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(value)
        match = _DEPTH.fullmatch(str(value).strip())
        if match is None or int(match[2]) < 1:
            raise ValueError(f"depth must look like '2/32', a whole number (of 32) or -1; found {value!r}")
        return cls(int(match[1]), int(match[2]))

    def at(self, n_layers: int) -> int:
        """Return the layer index in a model of `n_layers` layers."""
        return scale_depth(self.layer, self.of, n_layers)

    def __str__(self) -> str:
        return f"{self.layer}/{self.of}"


def scale_depth(layer: int, of: int, n_layers: int) -> int:
    """Scale a layer index to another depth: at least 1 for layers >= 1; 0 and negative values stay."""
    if layer <= 0:
        return layer
    return max(1, math.floor(layer / of * n_layers + 0.5))


def cuts_and_strides(default: Depth, n_layers: int, n_vision: int) -> Iterator[dict[str, Any]]:
    """Yield `layer` and `stride` of methods that shorten once: every cut, nearest to `default` first.

    Of the strides that leave the same number of tokens only the smallest is listed; stride 1 stands once, first.
    """
    yield {"layer": str(default), "stride": 1}
    strides = {n_vision // stride: stride for stride in range(n_vision, 1, -1)}
    for cut in sorted(range(1, n_layers), key=lambda cut: abs(cut - default.at(n_layers))):
        for stride in sorted(strides.values()):
            yield {"layer": f"{cut}/{n_layers}", "stride": stride}


DepthField = Annotated[Depth, BeforeValidator(Depth.parse)]


class Stage(BaseModel):
    """One stage: pool the input of `layer` with `stride` until `until`, counted in the schedule's unit.

    Stride 1 is no compression. Layer -1 pools before the language model. Without `until` it lasts to the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layer: DepthField = Depth(0)
    stride: int = Field(default=1, ge=1)
    until: float | None = Field(default=None, gt=0.0)

    @model_validator(mode="after")
    def _layer_allowed(self) -> Self:
        if self.stride > 1 and (self.layer.layer == 0 or self.layer.layer < -1):
            raise ValueError(
                f"stride {self.stride} needs layer >= 1, or -1 to pool before the language model; found {self.layer} "
                "(pooling the input of layer 0 would leave no layer with a full-length cache)"
            )
        return self


class Schedule(BaseModel):
    """Stages in order; the last one runs to the end.

    `unit` says what `until` counts: shares of the whole run (0..1), epochs (0.5 is half of the first), or optimizer
    steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: tuple[Stage, ...] = Field(min_length=1)
    unit: Literal["run", "epochs", "steps"] = "run"
    note: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        last, switches = self.stages[-1].until, self._switches
        if len(switches) < len(self.stages) - 1 or any(b <= a for a, b in pairwise(switches)):
            raise ValueError(f"'until' must rise from stage to stage; found {[stage.until for stage in self.stages]}")
        if last is not None and (self.unit != "run" or last != 1.0):
            raise ValueError(f"the last stage lasts to the end: give no 'until', or 1.0 of a run; found {last}")
        if self.unit == "run" and any(end >= 1.0 for end in switches):
            raise ValueError(f"'until' is a share of the run, below 1 for all stages but the last; found {switches}")
        return self

    @property
    def _switches(self) -> list[float]:
        """Where one stage gives way to the next, in the schedule's unit."""
        return [stage.until for stage in self.stages[:-1] if stage.until is not None]

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read `config/schedules/<id>.yaml`: a mapping with `stages`, or the bare list.

        Raises:
            FileNotFoundError: no such file.
            ValueError: malformed; the message names the file.
        """
        path = Path(path)
        if not path.is_file():
            beside = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "nothing"
            raise FileNotFoundError(f"{path}: no such schedule; {path.parent} holds: {beside}")
        raw: Any = read_yaml(path)
        try:
            return cls.model_validate(raw if isinstance(raw, dict) else {"stages": raw})
        except ValueError as err:
            raise ValueError(f"{path}: {err}") from err

    def ends(self, total: int, epochs: float = 1.0) -> list[int]:
        """Return, for every stage, the optimizer step (of `total` in `epochs` epochs) that is its first no longer."""
        one = {"run": total, "epochs": total / epochs, "steps": 1}[self.unit]
        return [*(min(total, math.floor(end * one + 0.5)) for end in self._switches), total]

    def index_at(self, step: int, total: int, epochs: float = 1.0) -> int:
        """Return the number of the stage that optimizer step `step` (from 0) of `total` in `epochs` belongs to."""
        if not 0 <= step < total:
            raise ValueError(f"step {step} is outside 0..{total - 1}")
        return next(number for number, end in enumerate(self.ends(total, epochs)) if step < end)

    def at(self, step: int, total: int, epochs: float = 1.0) -> Stage:
        """Return the stage of optimizer step `step` (from 0) of `total` in `epochs` epochs."""
        return self.stages[self.index_at(step, total, epochs)]


@dataclass(frozen=True)
class Counted:
    """What the official code does at one model forward: the setting in use, and the one it leaves behind."""

    layer: int
    stride: int
    next_layer: int
    next_stride: int
    next_pivot: int
    next_counter: int


class PivotsExhausted(ValueError):
    """The official counter asks for a stage that its lists do not hold."""


def official_forward_counting(
    strides: list[int], layers: list[int], pivots: list[int], n_forwards: int
) -> Iterator[Counted]:
    """Yield the settings of `n_forwards` forwards as the released LLaVolta code counts them.

    One counter runs over all forwards (micro-batches, evaluation, every generated token). After forward n, if n > 0
    is a multiple of the pivot and the stride is above 1, the next stride, layer and pivot are taken; 10000 stands
    for a missing pivot. Our own training uses `Schedule`, which depends on the optimizer step alone; this mode is
    for comparison.

    Raises:
        PivotsExhausted: a stage is due, but there is none left.
        ValueError: no first stage, or a pivot of 0.
    """
    if not strides or len(strides) != len(layers):
        raise ValueError(f"expected as many strides as layers, at least one; found {strides} and {layers}")
    if 0 in pivots:
        raise ValueError(f"a pivot of 0 never divides a step count; found {pivots}")
    rest = iter(list(zip(strides, layers, strict=True))[1:])
    ends = iter(pivots)
    stride, layer, pivot = strides[0], layers[0], next(ends, NO_PIVOT)
    for forward in range(n_forwards):
        used = layer, stride
        if forward > 0 and forward % pivot == 0 and stride > 1:
            try:
                stride, layer = next(rest)
            except StopIteration:
                raise PivotsExhausted(f"forward {forward}: no stage left after stride {stride} at {layer}") from None
            pivot = next(ends, NO_PIVOT)
        yield Counted(*used, layer, stride, pivot, forward + 1)

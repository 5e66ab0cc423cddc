"""Names of methods, their typed parameters, and the files that describe them."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from visiontokens.provenance import read_yaml

if TYPE_CHECKING:
    from visiontokens.compress.base import Compressor, Geometry

_METHODS: dict[str, type[Compressor]] = {}
C = TypeVar("C", bound="type[Compressor]")


class MethodParams(BaseModel):
    """Base of every method's parameters: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PositionParams(MethodParams):
    """Base of the parameters of methods that drop or merge tokens inside the language model.

    `positions` says what becomes of the rotary positions of those that are left: `keep` leaves them where they were
    (FastV, LLaVolta), `renumber` closes the gaps after every drop, and decoding goes on with each layer's own
    positions (PyramidDrop).
    """

    positions: Literal["keep", "renumber"] = "keep"

    @property
    def renumber(self) -> bool:
        """Whether gaps are closed."""
        return self.positions == "renumber"


class MethodError(ValueError):
    """A method name, parameter or method file that cannot be used."""


def register(name: str) -> Callable[[C], C]:
    """Return the class decorator that makes a compressor known as `name`.

    Raises:
        MethodError: the name is taken by another class.
    """

    def add(cls: C) -> C:
        """Enter the class under the name."""
        if name in _METHODS and _METHODS[name].__qualname__ != cls.__qualname__:
            raise MethodError(f"method {name!r} is registered twice: {_METHODS[name].__qualname__}, {cls.__qualname__}")
        cls.name = name
        _METHODS[name] = cls
        return cls

    return add


def methods() -> dict[str, type[Compressor]]:
    """Return every registered compressor class by name, sorted, after importing all modules of this package."""
    package = importlib.import_module("visiontokens.compress")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_METHODS.items()))


def lookup(name: str) -> type[Compressor]:
    """Return the compressor class registered as `name`.

    Raises:
        MethodError: no such method; the message lists the known ones and the closest.
    """
    known = methods()
    if name not in known:
        raise MethodError(f"unknown method {name!r}{_closest(name, known)}; known methods: {', '.join(known)}")
    return known[name]


def _closest(word: str, known: object) -> str:
    near = difflib.get_close_matches(word, [str(k) for k in known], n=1, cutoff=0.5)  # type: ignore[attr-defined]
    return f" (did you mean {near[0]!r}?)" if near else ""


def parse_params(name: str, params: dict[str, Any]) -> MethodParams:
    """Validate the parameters of method `name` with the method's own model.

    Raises:
        MethodError: unknown method, unknown parameter (known ones and the closest are listed) or a bad value.
    """
    model = lookup(name).Params
    known = list(model.model_fields)
    for key in params:
        if key not in known:
            listed = ", ".join(known) or "none"
            raise MethodError(f"method {name!r}: unknown parameter {key!r}{_closest(key, known)}; known: {listed}")
    try:
        return model.model_validate(params)
    except ValidationError as err:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'parameters'}: {e['msg']}" for e in err.errors()]
        raise MethodError(f"method {name!r}: {'; '.join(lines)}") from err


class SearchGoal(BaseModel):
    """What a search of a method's parameters is after; one of the three.

    Attributes:
        epsilon: G-Search: as few tokens as possible at a relative loss of likelihood of at most this.
        tokens: P-Sigmoid: the highest likelihood at this many vision tokens, averaged over layers.
        flops: P-Sigmoid: the highest likelihood at this share of the uncompressed prefill's FLOPs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epsilon: float | None = Field(default=None, ge=0, lt=1)
    tokens: float | None = Field(default=None, gt=0)
    flops: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [key for key, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(f"search: expected one of epsilon, tokens, flops; found {', '.join(given) or 'none'}")
        return self


class MethodSpec(BaseModel):
    """A method by name with its parameters: what a file in `config/methods/` holds.

    With `search` the parameters are completed by a search (`visiontokens search`) before the method can run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "none"
    params: dict[str, Any] = Field(default_factory=dict)
    note: str = ""
    search: SearchGoal | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        parse_params(self.name, self.params)
        return self

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a method file.

        Raises:
            FileNotFoundError: no such file; the message lists the files beside it.
            MethodError: malformed file, unknown method or parameter; the message names the file.
        """
        path = Path(path)
        if not path.is_file():
            beside = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "nothing"
            raise FileNotFoundError(f"{path}: no such method file; {path.parent} holds: {beside}")
        try:
            raw = read_yaml(path)
        except ValueError as err:
            raise MethodError(str(err)) from err
        if not isinstance(raw, dict):
            raise MethodError(f"{path}: expected a mapping with name and params, found {type(raw).__name__}")
        for key in raw:
            if key not in cls.model_fields:
                listed = ", ".join(cls.model_fields)
                raise MethodError(f"{path}: unknown key {key!r}{_closest(key, cls.model_fields)}; known: {listed}")
        try:
            return cls.model_validate(raw)
        except ValidationError as err:
            raise MethodError(f"{path}: {err.errors()[0]['msg']}") from err

    def to_config(self) -> dict[str, Any]:
        """Return what is stored in a checkpoint's `config.compressor`."""
        return {"name": self.name, "params": dict(self.params)}

    @classmethod
    def from_config(cls, stored: dict[str, Any] | None) -> Self:
        """Read back `to_config`; `None` (a stock checkpoint) is method `none`."""
        return cls.model_validate(stored or {"name": "none"})

    def build(self, geometry: Geometry) -> Compressor:
        """Return a freshly initialised compressor for a model of the given geometry."""
        return lookup(self.name)(parse_params(self.name, self.params), geometry)

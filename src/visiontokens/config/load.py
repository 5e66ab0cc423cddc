"""Configuration files in, one typed `Config` out; errors name the file, the key and the closest known key."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from visiontokens import provenance
from visiontokens.config.models import Config


class ConfigError(ValueError):
    """A configuration file, table or value is wrong; the message says where and how."""


def load_config(paths: str | Path | Iterable[str | Path]) -> Config:
    """Read one file, or several of which later ones override earlier ones key by key.

    Raises:
        FileNotFoundError: a file is not there.
        ConfigError: not YAML, an unknown key, or a value of the wrong type or range.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(p) for p in paths]
    merged: dict[str, Any] = {}
    owner: dict[tuple[str, ...], Path] = {}
    for file in files:
        values = read_yaml(file)
        check_keys(values, Config, str(file))
        merge(merged, values)
        owner.update(dict.fromkeys(_leaves(values), file))
    return parse_config(merged, lambda key: str(owner.get(key, files[-1] if files else "configuration")))


def parse_config(values: Mapping[str, Any], source: str | typing.Callable[[tuple[str, ...]], str]) -> Config:
    """Turn nested values into a `Config`; `source` (or `source(key)`) is what error messages call their file.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type or range.
    """
    where = source if callable(source) else (lambda key: source)
    check_keys(values, Config, where(()))
    try:
        return Config.model_validate(dict(values))
    except ValidationError as err:
        first = err.errors()[0]
        key = tuple(str(part) for part in first["loc"])
        message = f"{where(key)}: key {'.'.join(key)!r}: found {first['input']!r}: {first['msg']}"
        raise ConfigError(message) from err


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        FileNotFoundError: the file is not there.
        ConfigError: it is not YAML, or not a mapping.
    """
    try:
        values = provenance.read_yaml(path)
    except ValueError as err:
        raise ConfigError(str(err)) from err
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found {type(values).__name__}, expected a mapping of settings")
    return values


def merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `over` on `base` in place, recursing into mappings, and return `base`."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = merge({}, value) if isinstance(value, Mapping) else value
    return base


def check_keys(values: Mapping[str, Any], model: type[BaseModel], source: str, prefix: str = "") -> None:
    """Compare the keys of `values` with the fields of `model`, at every depth.

    Raises:
        ConfigError: an unknown key; the message names the closest known one.
    """
    for key, value in values.items():
        if key not in model.model_fields:
            raise ConfigError(f"{source}: unknown key '{prefix}{key}'{suggest(str(key), model.model_fields, prefix)}")
        section = _section(model.model_fields[key].annotation)
        if section is not None and isinstance(value, Mapping):
            check_keys(value, section, source, f"{prefix}{key}.")


def suggest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a hint that ends an error message: the closest known name, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{prefix}{close[0]}'?"
    return f"; known: {', '.join(names)}"


def _section(annotation: object) -> type[BaseModel] | None:
    """Return the model class of a field that holds a section, else None."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _leaves(values: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterable[tuple[str, ...]]:
    """Yield the key path of every value that is not itself a mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*prefix, str(key)))
        else:
            yield (*prefix, str(key))

"""The tables under `config/`: experiments, benchmarks and the pooling grid; errors name file, line and column."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

from visiontokens.config.load import ConfigError, suggest
from visiontokens.config.locate import config_folder
from visiontokens.config.models import Config
from visiontokens.config.section import Count, RowSet, Section, Size
from visiontokens.provenance import read_text

Row = TypeVar("Row", bound=BaseModel)
PAPERS = (
    "llava", "stf", "volta", "prumerge", "m3", "voco", "quecc", "tokenpacker", "proxyv", "vqtoken", "gsearch", "vistog",
    "mod", "fastv", "visionzip", "pyramiddrop",
)  # fmt: skip
"""Short names of the papers that rows come from."""


class Experiment(Section):
    """One evaluated row of a table: how its weights come about and what happens at test time."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """Name in paths and in the other tables."""
    label: str
    """Name in tables and figures."""
    paper: str
    """Paper it comes from, one of `PAPERS`."""
    tables: tuple[str, ...]
    """Published tables and figures in which it is a row, e.g. `volta-2`."""
    method: str
    """Method at test time (`config/methods/<id>.yaml`)."""
    train_method: str
    """Method in training; empty when the weights are another experiment's."""
    schedule: str
    """Stage schedule of the tune stage (`config/schedules/<id>.yaml`); empty = constant."""
    weights_from: str
    """Experiment whose weights are used; empty = own training."""
    set: RowSet
    """`main` rows run at every scale, the others where the scale asks for their set."""
    seeds: Size
    """Seeds the row is meant to have."""
    expected: str
    """What the papers lead one to expect, in words."""
    tolerance: float | None
    """Points within which a difference counts as agreement; none = not compared."""

    @field_validator("tables", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @field_validator("paper")
    @classmethod
    def _known_paper(cls, value: str) -> str:
        if value not in PAPERS:
            raise ValueError(f"expected one of {', '.join(PAPERS)}, found {value!r}")
        return value

    @field_validator("tolerance", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def trained(self) -> bool:
        """True when the row has weights of its own."""
        return not self.weights_from


class BenchmarkRow(Section):
    """How one benchmark is named and averaged in the report."""

    name: str
    """Name in the registry and in paths."""
    label: str
    """Column heading."""
    metric: str
    """What the value is."""
    divisor: float = Field(gt=0)
    """Published value divided by this lies in 0 … 100 and enters the average (MME: 20)."""
    chance: float = Field(ge=0)
    """Published value of uniform guessing among the answers a question allows; 0 for open questions."""
    family: str
    """What it mostly asks for."""


class PoolingPoint(Section):
    """One point of the redundancy curve."""

    layer: Count
    """Decoder layer of 32 whose input is pooled; 0 = before the language model."""
    stride: Size
    """Pooling stride."""


def load_experiments(config: Config) -> dict[str, Experiment]:
    """Return the experiments that run under `config`, by id, in table order.

    Chosen rows bring along those whose weights they use, and the one that the redundancy study looks into.

    Raises:
        ConfigError: see `read_experiments`; or a setting names an unknown row.
    """
    table = config.experiments.table
    rows = read_experiments(table)
    named = [("redundancy.model", config.redundancy.model)]
    named += [("experiments.released", name) for name in config.experiments.released]
    named += [("experiments.only", name) for name in config.experiments.only]
    for key, name in named:
        if name not in rows:
            raise ConfigError(f"{key}: unknown experiment '{name}' in {table}{suggest(name, rows)}")
    if config.experiments.only:
        wanted = {config.redundancy.model, *config.experiments.only}
    else:
        wanted = {name for name, row in rows.items() if row.set in config.experiments.sets}
    wanted |= {weights_root(rows, name) for name in wanted}
    return {name: row for name, row in rows.items() if name in wanted}


def read_experiments(path: Path) -> dict[str, Experiment]:
    """Read and check the whole experiment table.

    Methods and schedules are looked up beside the table (`methods/`, `schedules/`).

    Raises:
        FileNotFoundError: the table is not there.
        ConfigError: a wrong column or value, a duplicate id, an unknown method, schedule or experiment,
            a trained row without a method, a borrowing row with one, or weights borrowed in a circle.
    """
    lines = read_table(path, Experiment)
    rows: dict[str, Experiment] = {}
    for number, row in lines:
        if row.id in rows:
            raise ConfigError(f"{path}:{number}: duplicate id '{row.id}'")
        rows[row.id] = row
    known = {kind: {p.stem for p in (path.parent / kind).glob("*.yaml")} for kind in ("methods", "schedules")}
    for number, row in lines:
        _check_row(f"{path}:{number}", row, rows, known)
    return rows


def _check_row(where: str, row: Experiment, rows: Mapping[str, Experiment], known: Mapping[str, set[str]]) -> None:
    """Check one row's references."""
    named = [("method", row.method, known["methods"])]
    if row.train_method:
        named.append(("train_method", row.train_method, known["methods"]))
    if row.schedule:
        named.append(("schedule", row.schedule, known["schedules"]))
    if row.weights_from:
        named.append(("weights_from", row.weights_from, set(rows)))
    for column, value, names in named:
        if value not in names:
            kind = {"schedule": "schedule", "weights_from": "experiment"}.get(column, "method")
            raise ConfigError(f"{where}: column '{column}': unknown {kind} '{value}'{suggest(value, names)}")
    if row.trained and not row.train_method:
        raise ConfigError(f"{where}: '{row.id}' needs a train_method, or weights_from another experiment")
    if not row.trained and (row.train_method or row.schedule):
        raise ConfigError(
            f"{where}: '{row.id}' takes its weights from '{row.weights_from}': leave train_method and schedule empty"
        )
    try:
        root = weights_root(rows, row.id)
    except ConfigError as err:
        raise ConfigError(f"{where}: {err}") from err
    if row.set == "main" and rows[root].set != "main":
        raise ConfigError(
            f"{where}: '{row.id}' is in set 'main' but its weights '{root}' are in set '{rows[root].set}'"
        )


def weights_root(rows: Mapping[str, Experiment], name: str) -> str:
    """Return the experiment whose training made the weights that `name` uses (itself, if it is trained).

    Raises:
        ConfigError: weights are borrowed in a circle.
    """
    chain = [name]
    while source := rows[chain[-1]].weights_from:
        if source in chain:
            raise ConfigError(f"weights_from runs in a circle: {' -> '.join([*chain, source])}")
        chain.append(source)
    return chain[-1]


def seeds_of(config: Config, rows: Mapping[str, Experiment], name: str) -> range:
    """Return the seeds with which `name` runs: as many as the scale allows and its weights have."""
    root = rows[weights_root(rows, name)]
    return range(min(config.experiments.seeds, rows[name].seeds, root.seeds))


def searched_rows(config: Config, rows: Mapping[str, Experiment]) -> list[str]:
    """Return the experiments whose method at test time is completed by a search (key `search` of its file)."""
    folder = config.experiments.table.parent / "methods"
    asking = {
        row.method: "search" in yaml.safe_load((folder / f"{row.method}.yaml").read_text(encoding="utf-8"))
        for row in rows.values()
    }
    return [name for name, row in rows.items() if asking[row.method]]


def load_benchmarks(config: Config, path: Path | None = None) -> dict[str, BenchmarkRow]:
    """Return the benchmarks that run under `config`, by name, in the order of the setting.

    Args:
        config: the settings.
        path: the table, if not `benchmarks.tsv` of the settings' folder.

    Raises:
        ConfigError: a wrong table, or a benchmark in the setting that the table does not have.
    """
    path = path or config_folder() / "benchmarks.tsv"
    rows = {row.name: row for _, row in read_table(path, BenchmarkRow)}
    for name in (*config.evaluate.benchmarks, *config.redundancy.benchmarks):
        if name not in rows:
            raise ConfigError(f"unknown benchmark '{name}': not in {path}{suggest(name, rows)}")
    return {name: rows[name] for name in config.evaluate.benchmarks}


def load_pooling(config: Config) -> list[PoolingPoint]:
    """Return the points of the redundancy curve, without the uncompressed one."""
    return [row for _, row in read_table(config.redundancy.table, PoolingPoint)]


def read_table(path: Path, model: type[Row]) -> list[tuple[int, Row]]:
    """Read a tab-separated table with a header line; lines that start with `#` are comments.

    Returns (line number, row) pairs.

    Raises:
        FileNotFoundError: the table is not there.
        ConfigError: unknown or missing columns, a line of another length, or a wrong value.
    """
    try:
        lines = csv.reader(io.StringIO(read_text(path), newline=""), delimiter="\t")
        cells = [(n, c) for n, c in enumerate(lines, 1) if c and not c[0].startswith("#")]
    except (ValueError, csv.Error) as err:
        raise ConfigError(f"{err}" if str(path) in str(err) else f"{path}: no table: {err}") from err
    if not cells:
        raise ConfigError(f"{path}: found nothing, expected a header line")
    (head_line, head), *body = cells
    _check_header(f"{path}:{head_line}", head, model.model_fields)
    rows = []
    for number, values in body:
        if len(values) != len(head):
            raise ConfigError(f"{path}:{number}: found {len(values)} columns, expected {len(head)}")
        rows.append((number, _parse_row(f"{path}:{number}", dict(zip(head, values, strict=True)), model)))
    return rows


def _check_header(where: str, head: list[str], known: Iterable[str]) -> None:
    """Compare a header with the fields of the row model."""
    known = list(known)
    for column in head:
        if column not in known:
            raise ConfigError(f"{where}: unknown column '{column}'{suggest(column, known)}")
    missing = [column for column in known if column not in head]
    if missing or len(set(head)) != len(head):
        raise ConfigError(f"{where}: found columns {', '.join(head)}, expected {', '.join(known)}")


def _parse_row(where: str, values: dict[str, Any], model: type[Row]) -> Row:
    """Turn one line into its row model."""
    try:
        return model.model_validate(values)
    except ValidationError as err:
        first = err.errors()[0]
        column = first["loc"][0] if first["loc"] else "?"
        raise ConfigError(f"{where}: column '{column}': found {first['input']!r}: {first['msg']}") from err

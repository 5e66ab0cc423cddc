"""`config/claims.yaml`: what the papers say in numbers, and by which test each statement is judged at which scale.

The tests are those of `verify.kinds`. Published numbers are not repeated: a claim cites cells of `data/reference`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field, ValidationError, model_validator

from visiontokens.analyze.reference import REFERENCE, reference
from visiontokens.config.load import ConfigError, read_yaml
from visiontokens.config.section import Section
from visiontokens.verify.kinds import AnyTest

CLAIMS = Path("config/claims.yaml")
PAPERS = {"stf": "LLaVA-STF", "volta": "LLaVolta"}


class Run(Section):
    """How one scale is run, and what its results are evidence for."""

    level: Literal["smoke", "mini", "reviewer", "paper"]
    """`smoke`: the numbers mean nothing; `mini`: directions in a small world; `reviewer`: the papers' model, not
    trained; `paper`: the papers' own recipe."""
    command: str
    """What to type."""
    time: str
    """Compute time to expect."""
    hardware: str
    """On what."""


class Cites(Section):
    """Cells of `data/reference`; empty rows or columns stand for all."""

    table: str
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


class Claim(Section):
    """One quantitative statement of a paper."""

    id: str = Field(pattern=r"^C[1-9]\d*$")
    paper: Literal["stf", "volta"]
    where: str
    """Place in the paper: table and row, figure, abstract."""
    statement: str
    """In our own words."""
    cites: tuple[Cites, ...] = ()
    shows: tuple[tuple[str, str, str], ...] = ()
    """Cells (table, row, column) that tell most, shown as the published values."""
    tests: tuple[AnyTest, ...] = ()
    """At most one for each scale."""
    untested: str = ""
    """Why there is no test at all, or not at every scale."""
    note: str = ""
    """What a reader of the verdict should know."""

    @model_validator(mode="after")
    def _tested_or_excused(self) -> Claim:
        if not self.tests and not self.untested:
            raise ValueError("a claim without tests needs `untested`: why")
        named = [scale for test in self.tests for scale in test.scales or ("analytic",)]
        if len(set(named)) < len(named):
            raise ValueError(f"two tests for one scale among {', '.join(named)}")
        return self


class Excluded(Section):
    """Cells of `data/reference` that no claim covers, and why."""

    paper: Literal["stf", "volta"]
    table: str
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    because: str


class Claims(Section):
    """The whole ledger's questions."""

    runs: dict[str, Run]
    claims: tuple[Claim, ...]
    excluded: tuple[Excluded, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Claims:
        ids = [claim.id for claim in self.claims]
        if ids != [f"C{n}" for n in range(1, len(ids) + 1)]:
            raise ValueError(f"ids: found {', '.join(ids)}, expected C1, C2, … in order")
        for claim in self.claims:
            for scale in (scale for test in claim.tests for scale in test.scales):
                if scale not in self.runs:
                    raise ValueError(f"{claim.id}: scale {scale!r} is not among runs ({', '.join(self.runs)})")
        return self


def load_claims(path: Path = CLAIMS, folder: Path = REFERENCE) -> Claims:
    """Read and check the claims; every cell they cite exists.

    Raises:
        FileNotFoundError: the file is not there.
        ConfigError: not YAML, an unknown key, a wrong value, or a cell that the published numbers do not have.
    """
    values = read_yaml(path)
    try:
        found = Claims.model_validate(values)
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: key '{key}': found {str(first['input'])[:80]!r}: {first['msg']}") from err
    known = _index(reference(folder=folder))
    for name, paper, place in _places(found):
        if (paper, place.table, "".join(place.rows), "".join(place.columns)) not in known:
            raise ConfigError(f"{path}: {name}: {paper}, table {place.table!r}, rows {place.rows}, columns "
                              f"{place.columns}: found no such published number in {folder}")  # fmt: skip
    return found


def _index(published: pd.DataFrame) -> set[tuple[str, str, str, str]]:
    """Return (paper, table, row, column) of every cell, also with row or column or both left empty."""
    cells = published[["paper", "table", "row", "column"]].itertuples(index=False, name=None)
    return {
        (paper, table, one, other) for paper, table, row, column in cells for one in (row, "") for other in (column, "")
    }


def _places(found: Claims) -> Iterator[tuple[str, str, Cites]]:
    """Yield (who, paper, cells) for every single row and column that is named anywhere."""
    for claim in found.claims:
        shown = [Cites(table=table, rows=(row,), columns=(column,)) for table, row, column in claim.shows]
        for place in (*claim.cites, *shown):
            yield from ((claim.id, claim.paper, part) for part in _parts(place))
    for gap in found.excluded:
        place = Cites(table=gap.table, rows=gap.rows, columns=gap.columns)
        yield from (("excluded", gap.paper, part) for part in _parts(place))


def _parts(place: Cites) -> Iterator[Cites]:
    for row in place.rows or ("",):
        for column in place.columns or ("",):
            yield Cites(table=place.table, rows=(row,) if row else (), columns=(column,) if column else ())


def cited(published: pd.DataFrame, paper: str, place: Cites) -> pd.DataFrame:
    """Return the published numbers at a place."""
    chosen = (published["paper"] == paper) & (published["table"] == place.table)
    if place.rows:
        chosen &= published["row"].isin(place.rows)
    if place.columns:
        chosen &= published["column"].isin(place.columns)
    return published[chosen]


def uncovered(found: Claims, folder: Path = REFERENCE) -> pd.DataFrame:
    """Return the published numbers of both papers that neither a claim nor an exclusion covers."""
    published = reference(folder=folder)
    rest = published[published["paper"].isin(PAPERS)]
    for _, paper, place in _places(found):
        rest = rest.drop(cited(rest, paper, place).index)
    return rest

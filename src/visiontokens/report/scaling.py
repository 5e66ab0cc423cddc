"""The scaling law as a table: what the points determine and what they do not."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from visiontokens.analyze.scaling import Study
from visiontokens.report.write import NOT_RUN, Table

CAPTION = (
    "Least-squares fits of error = A / N^alpha / T^beta + D (N: parameters of the language model in billions, T: "
    "vision tokens). Exponents at D = 0 with bootstrap intervals over points, and at D = half the least error; "
    "the interval of D is the profile likelihood's. Where it has no lower end, D is not identifiable, exponents depend "
    "on the D one fixes, and only alpha / beta is a result."
)


def scaling_table(studies: Mapping[str, Study | None]) -> Table:
    """Return one line per set of points; `None` was not run."""
    lines = [{"Points": name, **_line(study)} for name, study in studies.items()]
    columns = ["Points", *dict.fromkeys(key for line in lines for key in line if key != "Points")]
    return Table(pd.DataFrame(lines, columns=columns).fillna(NOT_RUN), CAPTION)


def _line(study: Study | None) -> dict[str, str]:
    if study is None:
        return {}
    half = study.profile.iloc[(study.profile["offset"] - 0.5 * study.points["error"].min()).abs().argmin()]
    zero = study.zero
    return {
        "n": str(len(study.points)),
        "alpha, D = 0": _with(zero.alpha, study.interval("alpha"), 4),
        "beta, D = 0": _with(zero.beta, study.interval("beta"), 4),
        "alpha / beta, D = 0": _with(zero.ratio, study.interval("ratio"), 2),
        "half the least error": f"{half['offset']:.3f}",
        "alpha there": f"{half['alpha']:.4f}",
        "beta there": f"{half['beta']:.4f}",
        "alpha / beta there": f"{half['ratio']:.2f}",
        "D": "{:.2g} to {:.2g}".format(*study.offsets),
        "D identifiable": "yes" if study.identifiable else "no",
    }


def _with(value: float, interval: tuple[float, float], digits: int) -> str:
    low, high = interval
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

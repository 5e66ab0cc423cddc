"""QueCC's inference scaling law, error = A / N^alpha / T^beta + D, with what its data can and cannot say.

N is the language model's parameters in billions, T the vision tokens. The paper fits the four numbers to 28 points by a
random search of a grid. Here least squares are solved for any fixed offset D, and D is profiled: where a wide range of
offsets fits alike, D is not identifiable, the exponents move with it, and only their ratio is worth reporting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2

from visiontokens.analyze import collect
from visiontokens.analyze.reference import REFERENCE, ResultError, reference

COLUMNS = ("parameters_billion", "tokens", "error")
OFFICIAL_GRID = {
    "amplitude": (0.2, 0.7, 50),
    "alpha": (0.0, 0.2, 100),
    "beta": (0.0, 0.05, 100),
    "offset": (0, 0.3, 10),
}
"""Ends and number of values of the official code's search, which stops at random after a fifth of the grid."""
STEPS = 60

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Fit:
    """One fitted law and the sum of its squared residuals; an offset of minus infinity stands for the limit."""

    amplitude: float
    alpha: float
    beta: float
    offset: float
    sse: float

    @property
    def ratio(self) -> float:
        """Return alpha / beta: how many times as much a larger model helps as more tokens do, in log units."""
        return self.alpha / self.beta

    def predict(self, parameters: Array, tokens: Array) -> Array:
        """Return the error at N in billions and T tokens; the limit has no amplitude and predicts nothing."""
        return self.amplitude * parameters**-self.alpha * tokens**-self.beta + self.offset


@dataclass(frozen=True)
class Study:
    """What a set of points says about the law.

    Attributes:
        points: columns `COLUMNS`.
        profile: the best fit at every offset tried, ascending; columns of `Fit`, `ratio` and `inside`.
        level: confidence of all intervals.
        zero: the fit at offset 0, a law without irreducible error.
        bootstrap: resampled alpha, beta, ratio at offset 0, and the same with the best offset of at least 0
            (`free_*`), one row a resample.
    """

    points: pd.DataFrame
    profile: pd.DataFrame
    level: float
    zero: Fit
    bootstrap: pd.DataFrame

    @property
    def offsets(self) -> tuple[float, float]:
        """Ends of the profile interval of D."""
        inside = self.profile.loc[self.profile["inside"], "offset"]
        return float(inside.min()), float(inside.max())

    @property
    def identifiable(self) -> bool:
        """Whether the data bound D: its interval has a lower end."""
        return bool(np.isfinite(self.offsets[0]))

    def over_offsets(self, name: str) -> tuple[float, float]:
        """Return the least and greatest `alpha`, `beta` or `ratio` among the offsets in the interval.

        In the limit of offsets the exponents vanish; their ratio does not.
        """
        inside = self.profile.loc[self.profile["inside"], name]
        return float(inside.min()), float(inside.max())

    def interval(self, name: str) -> tuple[float, float]:
        """Return the bootstrap interval of a column of `bootstrap`."""
        tail = (1 - self.level) / 2
        low, high = self.bootstrap[name].quantile([tail, 1 - tail])
        return float(low), float(high)


def published_points(folder: Path = REFERENCE) -> pd.DataFrame:
    """Return the points of the paper's fit: Qwen-1.5 of four sizes, 1 to 576 tokens."""
    table = reference("quecc", "scaling", folder)
    wide = table.pivot(index="row", columns="column", values="value").loc[list(dict.fromkeys(table["row"]))]
    return pd.DataFrame({
        "parameters_billion": wide["parameters_billion"], "tokens": wide["tokens"], "error": 1 - wide["accuracy"],
    }).reset_index(drop=True)  # fmt: skip


def own_points(results: Sequence[Path], experiments: Sequence[str], config: Path = Path("config")) -> pd.DataFrame:
    """Return the points of our grid: one per result folder (model size) and experiment (tokens) that was run.

    The error is 1 - the mean over benchmarks on a scale of 1, then over seeds; all points need the same benchmarks.

    Raises:
        ResultError: points do not have the same benchmarks, or a cost record does not name the model's size.
    """
    divisor = collect.benchmarks(config / "benchmarks.tsv")["divisor"]
    rows: list[dict[str, object]] = []
    tested: set[frozenset[str]] = set()
    for folder in results:
        scores, costs = collect.scores(folder), collect.efficiency(folder).set_index("experiment")
        for name in experiments:
            mine = scores[scores["experiment"] == name]
            if mine.empty or name not in costs.index:
                continue
            if "parameters_llm" not in costs:
                raise ResultError(f"{folder}/efficiency/{name}.json: key 'parameters_llm' not found, expected it")
            cost = costs.loc[[name]].iloc[0].to_dict()
            tested |= {frozenset(group["benchmark"]) for _, group in mine.groupby("seed")}
            scaled = mine["value"].astype(float) / mine["benchmark"].map(divisor) / 100
            rows.append({
                "parameters_billion": float(cost["parameters_llm"]) / 1e9, "tokens": float(cost["tokens_mean"]),
                "error": 1 - float(scaled.groupby(mine["seed"]).mean().mean()), "experiment": name,
                "results": folder.as_posix(),
            })  # fmt: skip
    if len(tested) > 1:
        raise ResultError(f"{', '.join(map(str, results))}: found several sets of benchmarks, expected one for all")
    return pd.DataFrame(rows, columns=[*COLUMNS, "experiment", "results"])


def fit(points: pd.DataFrame, offset: float = 0.0) -> Fit:
    """Return the least-squares law at a fixed offset D.

    Raises:
        ValueError: fewer than four points or one size or number of tokens only, or D is not below every error.
    """
    design, error = _arrays(points)
    theta, sse = _solve(design[None], error[None], np.array([offset]))
    return Fit(float(np.exp(theta[0, 0])), float(theta[0, 1]), float(theta[0, 2]), offset, float(sse[0]))


def limit_fit(points: pd.DataFrame) -> Fit:
    """Return the limit of the law as D falls without end: a plane in the logarithms, of which a ratio is left."""
    design, error = _arrays(points)
    coefficients = np.linalg.lstsq(design, error, rcond=None)[0]
    residual = error - design @ coefficients
    return Fit(np.nan, float(coefficients[1]), float(coefficients[2]), -np.inf, float(residual @ residual))


def study(points: pd.DataFrame, *, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> Study:
    """Return the law's fits, the profile interval of D and bootstrap intervals over points.

    An offset is inside if n log(SSE / least SSE) is below the chi-square quantile (one degree of freedom).

    Raises:
        ValueError: see `fit`.
    """
    lowest = float(points["error"].min())
    offsets = [*-np.logspace(2, -2, 81), *np.linspace(0, 0.98 * lowest, 99)]
    fits = [limit_fit(points), *(fit(points, float(offset)) for offset in offsets)]
    profile = pd.DataFrame([{**vars(found), "ratio": found.ratio} for found in fits])
    profile["inside"] = len(points) * np.log(profile["sse"] / profile["sse"].min()) <= chi2.ppf(level, 1)
    profile.loc[0, ["alpha", "beta"]] = 0.0  # the plane's slopes are not exponents
    return Study(points, profile, level, fit(points), _bootstrap(points, resamples, seed))


def grid_search(points: pd.DataFrame) -> Fit:
    """Return the best point of the official code's whole grid (`OFFICIAL_GRID`)."""
    design, error = _arrays(points)
    amplitude, alpha, beta, offset = (np.linspace(*ends) for ends in OFFICIAL_GRID.values())
    exponents = np.stack(np.meshgrid(alpha, beta, indexing="ij"), -1).reshape(-1, 2)
    shape = np.exp(exponents @ design[:, 1:].T)  # [alpha x beta, points]
    squares = (shape**2).sum(1)
    best = Fit(np.nan, np.nan, np.nan, np.nan, np.inf)
    for d in offset:
        rest = error - d
        sse = rest @ rest - 2 * amplitude[:, None] * (shape @ rest) + amplitude[:, None] ** 2 * squares
        a, k = np.unravel_index(sse.argmin(), sse.shape)
        if sse[a, k] < best.sse:
            first, second = map(float, exponents[k])
            best = Fit(float(amplitude[a]), first, second, float(d), float(sse[a, k]))
    return best


def _arrays(points: pd.DataFrame) -> tuple[Array, Array]:
    """Return the design `[n, 3]` = (1, -log N, -log T) and the errors `[n]`."""
    parameters, tokens, error = (points[name].to_numpy(float) for name in COLUMNS)
    sizes = len(set(parameters)), len(set(tokens))
    if len(points) < 4 or min(sizes) < 2:
        raise ValueError(
            f"scaling law: found {len(points)} points of {sizes[0]} model sizes and {sizes[1]} token counts, expected "
            "at least 4 points of 2 and 2"
        )
    return np.stack([np.ones_like(error), -np.log(parameters), -np.log(tokens)], 1), error


def _solve(design: Array, error: Array, offset: Array) -> tuple[Array, Array]:
    """Return (log A, alpha, beta) `[R, 3]` and SSE `[R]` of R problems at once: Gauss-Newton with halved steps.

    It starts from the plane through the logarithms of error - D.
    """
    rest = error - offset[:, None]
    if (rest <= 0).any():
        raise ValueError(
            f"scaling law: found offset {offset.max():g}, expected less than every error ({error.min():g})"
        )
    theta = _normal(design, np.log(rest))
    sse = _sse(design, rest, theta)
    for _ in range(STEPS):
        model = np.exp(np.einsum("rnk,rk->rn", design, theta))
        step = _normal(model[..., None] * design, rest - model)
        for _ in range(20):
            trial = _sse(design, rest, theta + step)
            worse = trial > sse
            if not worse.any():
                break
            step[worse] /= 2
        better = trial < sse
        theta[better] += step[better]
        done = (sse - trial <= 1e-14 * sse).all()
        sse = np.minimum(sse, trial)
        if done:
            break
    return theta, sse


def _normal(design: Array, target: Array) -> Array:
    """Solve R linear least-squares problems `[R, n, k]`, `[R, n]` -> `[R, k]`; a trace of ridge keeps them solvable."""
    gram = np.einsum("rni,rnj->rij", design, design)
    ridge = 1e-13 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(design.shape[-1])
    return np.linalg.solve(gram + ridge, np.einsum("rni,rn->ri", design, target)[..., None])[..., 0]


def _sse(design: Array, rest: Array, theta: Array) -> Array:
    """Return the sums of squared residuals, `[R]`."""
    with np.errstate(over="ignore"):
        found: Array = ((rest - np.exp(np.einsum("rnk,rk->rn", design, theta))) ** 2).sum(1)
    return found


def _bootstrap(points: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Return resampled exponents: points drawn with replacement, those with one size or token count only left out."""
    design, error = _arrays(points)
    draw = np.random.default_rng(seed).integers(0, len(points), (resamples, len(points)))
    varied = [len(np.unique(design[rows, k])) > 1 for rows in draw for k in (1, 2)]
    draw = draw[np.array(varied).reshape(-1, 2).all(1)]
    design, error = design[draw], error[draw]
    tried = np.linspace(0, 0.95, 20)
    fits = [_solve(design, error, share * error.min(1)) for share in tried]
    best = np.stack([sse for _, sse in fits]).argmin(0)
    free = np.stack([theta for theta, _ in fits])[best, np.arange(len(draw))]
    zero = fits[0][0]
    return pd.DataFrame({
        "alpha": zero[:, 1], "beta": zero[:, 2], "ratio": zero[:, 1] / zero[:, 2],
        "free_alpha": free[:, 1], "free_beta": free[:, 2], "free_ratio": free[:, 1] / free[:, 2],
        "free_offset": tried[best] * error.min(1),
    })  # fmt: skip

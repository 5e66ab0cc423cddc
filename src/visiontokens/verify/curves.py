"""Tests of LLaVolta's Figure 1: the redundancy curve and the attention of the answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import pandas as pd

from visiontokens.analyze.reference import reference
from visiontokens.analyze.stats import Z95, Estimate
from visiontokens.verify.claims import Claim
from visiontokens.verify.evidence import Difference, Evidence, NotRun
from visiontokens.verify.kinds import Attention, Curve, CurveValues, Point
from visiontokens.verify.scores import judged, pooled
from visiontokens.verify.verdict import FAIL, NOT_RUN, PASS, Line


def curve(test: Curve, claim: Claim, evidence: Evidence) -> list[Line]:
    """Judge that the mean score falls with the stride at every layer, or rises with the layer at every stride.

    As for rows that fall: the ends are in order beyond noise, and no step goes the other way beyond it.
    """
    grid = _grid(evidence, test.benchmarks)
    layers, strides = (sorted({key[i] for key in grid if key[1] > 1}) for i in (0, 1))
    paths: list[list[tuple[int, int]]] = (
        [[(0, 1), *((layer, stride) for stride in strides)] for layer in layers]
        if test.along == "stride"
        else [[(layer, stride) for layer in reversed(layers)] for stride in strides]
    )
    lines: list[Line] = []
    for path in paths:
        steps = [(path[0], path[-1], "ordering"), *((b, a, "step") for a, b in itertools.pairwise(path))]
        for first, second, kind in steps:
            if first not in grid or second not in grid:
                raise NotRun(f"the curve lacks the point {first if first not in grid else second}")
            found = _gap(grid[first], grid[second])
            what = f"{_name(first)} − {_name(second)}"
            pairs = len(paths) if kind == "ordering" else len(paths) * (len(path) - 1)
            note = f"mean of {', '.join(test.benchmarks)}"
            lines.append(judged(what, found, test.tolerance, kind, pairs=pairs, note=note))
    return lines


def point(test: Point, claim: Claim, evidence: Evidence) -> list[Line]:
    """Judge that one point of the curve is no more than the tolerance below all tokens."""
    grid = _grid(evidence, [test.benchmark])
    key = (test.layer, test.stride)
    if key not in grid:
        raise NotRun(f"the curve lacks the point {_name(key)}")
    found = _gap(grid[key], grid[0, 1])
    return [judged(f"{_name(key)} − all tokens", found, test.tolerance, "level-lower", note=test.benchmark)]


def curve_values(test: CurveValues, claim: Claim, evidence: Evidence) -> list[Line]:
    """Judge every point of the curve against the figure's value."""
    grid = _grid(evidence, [test.benchmark])
    table = reference("volta", "fig1_left", evidence.reference)
    lines = []
    for row in table[table["column"] == test.benchmark].to_dict("records"):
        text = str(row["row"])
        key = tuple(int(n) for n in text.strip("()").split(",")) if text.startswith("(") else (0, 1)
        expected = f"{row['value']:g} ± {test.tolerance:g}"
        if key not in grid:
            lines.append(Line(text, NOT_RUN, "–", expected, "not run at this scale"))
            continue
        ours = _own(grid[key])
        low, high = ours.interval()
        gap = abs(ours.value - row["value"])
        near = min(abs(low - row["value"]), abs(high - row["value"])) <= test.tolerance or low < row["value"] < high
        word = PASS if gap <= test.tolerance else NOT_RUN if near else FAIL
        reason = "" if word != NOT_RUN else "off by more than the tolerance, but our interval still reaches it"
        lines.append(
            Line(text, word, f"{ours.value:.1f} [{low:.1f}, {high:.1f}]", expected, reason, ours.value, low, high)
        )
    return lines


def attention(test: Attention, claim: Claim, evidence: Evidence) -> list[Line]:
    """Judge what the answer attends to: vision below system in the layers behind the first ones, by a factor.

    There is no interval: the table holds means over images; exceptions are allowed in a share of the layers.
    """
    table = evidence.redundancy("attention").pivot(index="layer", columns="target", values="attention").sort_index()
    later = table[table.index >= round(test.after * len(table))]
    exceptions = later[later["vision"] >= later["system"]]
    share, factor = len(exceptions) / len(later), float((later["system"] / later["vision"]).mean())
    where = f"layers {later.index[0]:.0f} to {later.index[-1]:.0f} of {len(table)}"
    below = Line(
        f"vision below system, {where}",
        PASS if share <= test.tolerance else FAIL,
        f"in {len(later) - len(exceptions)} of {len(later)} layers",
        f"in all but {100 * test.tolerance:.0f}% of them",
        value=1 - share,
    )
    ratio = Line(
        f"system over vision, per token, mean of {where}",
        PASS if factor >= test.factor else FAIL,
        f"{factor:.1f}",
        f"at least {test.factor:g}",
        value=factor,
    )
    return [below, ratio]


def _grid(evidence: Evidence, benchmarks: Sequence[str]) -> dict[tuple[int, int], list[dict[str, float]]]:
    """Return (layer, stride) -> one line of the curve per benchmark."""
    table = evidence.redundancy("curve")
    absent = [name for name in benchmarks if name not in set(table["benchmark"])]
    if absent:
        raise NotRun(f"the curve was not drawn for {', '.join(absent)}")
    return {key: list(lines) for key, lines in _by_point(table[table["benchmark"].isin(benchmarks)])}


def _by_point(table: pd.DataFrame) -> Iterator[tuple[tuple[int, int], list[dict[str, float]]]]:
    for key, group in table.sort_values("benchmark").groupby(["layer", "stride"]):
        layer, stride = (int(str(part)) for part in key)
        numbers = group.select_dtypes("number").to_dict("records")
        yield (layer, stride), [{str(name): float(value) for name, value in line.items()} for line in numbers]


def _own(lines: list[dict[str, float]]) -> Estimate:
    """Return a point's mean score over the benchmarks."""
    return pooled([Estimate(line["value"], (line["ci_high"] - line["ci_low"]) / 2 / Z95) for line in lines])


def _gap(first: list[dict[str, float]], second: list[dict[str, float]]) -> Difference:
    """Return first - second, mean over benchmarks.

    Tables hold the paired difference of every point to all tokens. Between a point and all tokens that is the answer;
    between two points the two errors are added as if independent, which is too large. Tables without the columns (made
    before they existed) give the unpaired difference.
    """
    parts = []
    for a, b in zip(first, second, strict=True):
        if "difference_se" in a:
            parts.append(Estimate(a["value"] - b["value"], math.hypot(a["difference_se"], b["difference_se"])))
        else:
            halves = math.hypot(a["ci_high"] - a["ci_low"], b["ci_high"] - b["ci_low"]) / 2
            parts.append(Estimate(a["value"] - b["value"], halves / Z95))
    return Difference(pooled(parts), int(sum(line["n"] for line in first)))


def _name(key: tuple[int, int]) -> str:
    return "all tokens" if key[1] == 1 else f"({key[0]},{key[1]})"

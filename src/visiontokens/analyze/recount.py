"""What recomputing a printed number takes: LLaVolta's counting rules, and one line per number with its arithmetic.

Printed digits are taken as right when they could be a rounding, up or down, of the recomputed value.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from visiontokens.analyze.reference import REFERENCE, reference
from visiontokens.measure.flops import llavolta_tflops
from visiontokens.measure.tokens import pooled_tokens, total_tokens

N_VISION, N_LAYERS = 576, 32
FULL = N_VISION * N_LAYERS
TFLOPS_TOLERANCE = 0.011
MATCHES, DIFFERS = "matches within rounding", "differs"


class Erratum(NamedTuple):
    """One printed number and what recomputation gives."""

    paper: str
    table: str
    row: str
    quantity: str
    printed: float
    recomputed: float
    arithmetic: str
    verdict: str
    note: str = ""


class Scheme(NamedTuple):
    """Mean `#Tokens` over a row's training stages, and how it came about."""

    tokens: float
    arithmetic: str


def pooled_total(layer: int, stride: int, layers: int = N_LAYERS) -> int:
    """Return `#Tokens` of a pool in front of `layer`, for 576 vision tokens."""
    return int(total_tokens(pooled_tokens(N_VISION, layers, layer, stride)))


def pool_text(layer: int, stride: int) -> str:
    """Return the arithmetic of `pooled_total` for 32 layers."""
    if stride == 1:
        return f"{N_LAYERS}*{N_VISION}"
    return f"({layer}*{N_VISION} + {N_LAYERS - layer}*{N_VISION // stride})"


def stages(folder: Path = REFERENCE) -> dict[str, list[tuple[int, int]]]:
    """Return LLaVolta's Table 1 as (layer, stride) per stage, by scheme; (0, 1) is no compression."""
    table = reference("volta", "1", folder)
    found: dict[str, list[tuple[int, int]]] = {}
    for row, group in table.groupby("row", sort=False):
        cells = dict(zip(group["column"], group["value"], strict=True))
        n = sum(name.endswith("_stride") for name in cells)
        found[str(row)] = [
            (int(cells.get(f"stage{i}_layer", 0)), int(cells[f"stage{i}_stride"])) for i in range(1, n + 1)
        ]
    return found


def scheme_of(points: list[tuple[int, int]]) -> Scheme:
    """Return the mean `#Tokens` over stages of equal length, given as (layer, stride)."""
    totals = [pooled_total(layer, stride) for layer, stride in points]
    text = " + ".join(pool_text(layer, stride) for layer, stride in points)
    return Scheme(sum(totals) / len(totals), f"({text}) / {len(totals)}" if len(totals) > 1 else text)


def judge(printed: float, recomputed: float, tolerance: float) -> str:
    """Return `MATCHES` or `DIFFERS`."""
    return MATCHES if abs(printed - recomputed) <= tolerance + 1e-9 else DIFFERS


def ratio_of(printed: float, tokens: float, full: int = FULL) -> tuple[float, str, str]:
    """Return the compression ratio (%), its arithmetic and the verdict (the papers round and truncate, so 1 point)."""
    value = 100 * full / tokens
    return value, f"100 * {full} / {tokens:g}", MATCHES if abs(printed - value) < 1 else DIFFERS


def cells_of(table: str, folder: Path, paper: str = "volta") -> pd.Series:
    """Return a published table's values by (row, column)."""
    frame = reference(paper, table, folder)
    return frame.set_index(["row", "column"])["value"]


def tflops_line(table: str, row: str, quantity: str, printed: float, tokens: float) -> Erratum:
    """Return the line of a printed TFLOPs value, which follows LLaVolta's law."""
    value = llavolta_tflops(tokens)
    verdict = judge(printed, value, TFLOPS_TOLERANCE)
    return Erratum("volta", table, row, quantity, printed, value, f"0.80 + 404.75e-6 * {tokens:g}", verdict)

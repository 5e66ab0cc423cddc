"""Headline numbers as data: nested JSON for metrics, LaTeX macros for text; no value is typed twice."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from visiontokens.provenance import atomic_write, write_json
from visiontokens.report.book import AVERAGE, Book

COSTS = ("tokens_mean", "compression_ratio", "prefill_flops", "prefill_ms", "kv_bytes", "peak_bytes")
_DIGITS = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


def metrics(book: Book) -> dict[str, dict[str, float]]:
    """Return score, half interval and cost by experiment; what was not run is absent."""
    found: dict[str, dict[str, float]] = {}
    for name in book.run:
        values: dict[str, float] = {}
        for bench in [AVERAGE, *book.scored_benchmarks]:
            cell = book.cells.get((name, bench))
            if cell is not None:
                values[bench] = round(cell.value, 2)
                values[f"{bench}_ci"] = round(cell.noise, 2)
        costs = {key: book.cost(name, key) for key in COSTS}
        values |= {key: float(f"{value:.6g}") for key, value in costs.items() if not math.isnan(value)}
        found[name] = values
    return found


def relative(found: dict[str, dict[str, float]], baseline: str = "none") -> dict[str, dict[str, float]]:
    """Return every experiment's share of the baseline's score and cost, in percent."""
    if baseline not in found:
        return {}
    base = found[baseline]
    keys = [key for key in (AVERAGE, "prefill_flops", "prefill_ms", "tokens_mean") if base.get(key)]
    return {
        name: {key: round(100 * values[key] / base[key], 1) for key in keys if key in values}
        for name, values in found.items()
        if name != baseline
    }


def macro(*parts: str) -> str:
    """Return a LaTeX macro name: letters only, digits spelled out (`stf-mbtf`, `gqa` -> `vtStfMbtfGqa`)."""
    words = re.split(r"[^A-Za-z0-9]+", " ".join(parts))
    text = "".join(word[:1].upper() + word[1:] for word in words if word)
    return "vt" + re.sub(r"\d", lambda digit: _DIGITS[int(digit[0])], text)


def write_numbers(book: Book, out: Path) -> list[Path]:
    """Write `metrics.json` (nested), `numbers.json` (flat, as printed) and `numbers.tex` (macros) into `out`."""
    found = metrics(book)
    shares = relative(found)
    flat: dict[str, str] = {}
    for name, values in found.items():
        for key, value in values.items():
            flat[f"{name}/{key}"] = f"{value:g}" if key in COSTS else f"{value:.1f}"
        for key, value in shares.get(name, {}).items():
            flat[f"{name}/{key}/percent"] = f"{value:.0f}"
    nested: dict[str, Any] = {"experiments": found, "percent_of_all_tokens": shares}
    write_json(out / "metrics.json", nested)
    write_json(out / "numbers.json", flat)
    with atomic_write(out / "numbers.tex") as handle:
        for name, text in flat.items():
            handle.write(f"\\newcommand{{\\{macro(*name.split('/'))}}}{{{text}}}\n")
    return [out / name for name in ("metrics.json", "numbers.json", "numbers.tex")]


def summary_frame(book: Book) -> pd.DataFrame:
    """Return one line of plain numbers per experiment: costs, then every benchmark with its half interval."""
    lines: list[dict[str, object]] = []
    for name, values in metrics(book).items():
        lines.append({"experiment": name, "label": book.label(name), **dict.fromkeys(COSTS), **values})
    return pd.DataFrame(lines)

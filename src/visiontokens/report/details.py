"""Tables of our own, in detail: the redundancy grid, training runs, measured cost."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from visiontokens.analyze.stats import minimum_detectable_difference
from visiontokens.report.book import Book
from visiontokens.report.write import NOT_PRINTED, NOT_RUN, Table, duration, integer, number, si, with_spread


def redundancy_grid(curve: pd.DataFrame, published: pd.DataFrame, labels: Mapping[str, str]) -> Table:
    """Return (K, S) x benchmark at test time, beside the paper's GQA (LLaVolta, Fig. 1 left).

    Args:
        curve: as `analyze.collect.redundancy(results, "curve")`.
        published: the paper's points in the same columns.
        labels: benchmark -> heading.
    """
    benchmarks = list(dict.fromkeys(curve["benchmark"]))
    ours = {(int(r["layer"]), int(r["stride"]), str(r["benchmark"])): r for _, r in curve.iterrows()}
    lines = []
    for _, point in published.sort_values(["layer", "stride"]).iterrows():
        key = (int(point["layer"]), int(point["stride"]))
        line = {
            "K of 32": str(key[0]) if key[1] > 1 else NOT_PRINTED,
            "S": str(key[1]),
            "Kept %, paper": number(100 * point["kept"]),
            "GQA, paper": number(point["value"]),
        }
        rows = [ours.get((*key, name)) for name in benchmarks]
        line["Kept %, ours"] = number(100 * rows[0]["kept"]) if rows and rows[0] is not None else NOT_RUN
        for name, row in zip(benchmarks, rows, strict=True):
            line[f"{labels.get(name, name)}, ours"] = _interval(row)
        lines.append(line)
    caption = (
        "LLaVolta, Figure 1 left: the un-retrained model with its vision tokens pooled by S before layer K (layers are "
        "scaled to the model's depth); ± is half the 95% confidence interval over questions. The paper's values are "
        "digitised. S = 1: all tokens." + _detectable(curve, labels)
    )
    return Table(pd.DataFrame(lines), caption)


def _detectable(curve: pd.DataFrame, labels: Mapping[str, str]) -> str:
    """Return the curve's minimum detectable differences in words; empty for curves without paired errors."""
    if curve.empty or "difference_se" not in curve:
        return ""
    errors = curve[curve["stride"] > 1].groupby("benchmark", sort=False)["difference_se"].median()
    values = ", ".join(
        f"{labels.get(str(name), name)} {minimum_detectable_difference(float(se)):.1f}" for name, se in errors.items()
    )
    return f" Minimum detectable difference to all tokens, on the same questions (80% power at 5%, median): {values}."


def _interval(row: pd.Series | None) -> str:
    if row is None:
        return NOT_RUN
    return with_spread(float(row["value"]), (float(row["ci_high"]) - float(row["ci_low"])) / 2)


def redundancy_fall(curve: pd.DataFrame, labels: Mapping[str, str]) -> Table:
    """Return, per benchmark and layer K, whether the score falls with the stride beyond the confidence intervals."""
    lines = []
    for name, part in curve.groupby("benchmark", sort=False):
        full = part[part["stride"] == 1]
        for layer, points in part[part["stride"] > 1].groupby("layer"):
            widest = points.sort_values("stride").iloc[-1]
            ordered = points.sort_values("stride")["value"]
            base = full.iloc[0] if len(full) else None
            clear = base is not None and widest["ci_high"] < base["ci_low"]
            lines.append(
                {
                    "Benchmark": labels.get(str(name), str(name)),
                    "K of 32": str(layer),
                    "All tokens": _interval(base),
                    f"Largest stride (S = {int(widest['stride'])})": _interval(widest),
                    "Falls at every step": "yes" if ordered.is_monotonic_decreasing else "no",
                    "Fall beyond both intervals": "yes" if clear else "no",
                }
            )
    caption = "Does the score fall with the stride? The intervals of the two ends must not overlap."
    return Table(pd.DataFrame(lines), caption)


def training_runs(book: Book) -> Table:
    """Return every training run: steps, final loss, time."""
    lines = []
    for _, row in book.records.sort_values(["experiment", "seed", "stage"]).iterrows():
        lines.append(
            {
                "Experiment": book.label(str(row["experiment"])),
                "Seed": str(row["seed"]),
                "Stage": str(row["stage"]),
                "Steps": integer(row.get("steps", math.nan)),
                "Final loss": number(row.get("loss_last_tenth", row.get("loss_last", math.nan)), 3),
                "Wall time": duration(row.get("wall_seconds", math.nan)),
                "CPU time": duration(row.get("cpu_seconds", math.nan)),
            }
        )
    columns = ["Experiment", "Seed", "Stage", "Steps", "Final loss", "Wall time", "CPU time"]
    return Table(pd.DataFrame(lines, columns=columns), "Training runs; the final loss is the mean of the last tenth.")


def costs(book: Book) -> Table:
    """Return the computed and measured cost of every experiment."""
    lines = []
    for name in [n for n in book.experiments.index if n in book.efficiency.index]:
        low, high = book.cost(name, "prefill_q25_ms"), book.cost(name, "prefill_q75_ms")
        lines.append(
            {
                "Method": book.label(name),
                "Tokens / layer": number(book.cost(name, "tokens_mean"), 0),
                "CR %": number(100 * book.cost(name, "compression_ratio"), 0),
                "Prefill FLOPs": si(book.cost(name, "prefill_flops")),
                "Decode FLOPs": si(book.cost(name, "decode_flops")),
                "KV cache B": si(book.cost(name, "kv_bytes")),
                "Prefill ms": number(book.cost(name, "prefill_ms")),
                "Quartiles ms": f"{number(low)} – {number(high)}",
                "Peak memory B": si(book.cost(name, "peak_bytes")),
                "Connector parameters": si(book.cost(name, "parameters_connector")),
            }
        )
    return Table(pd.DataFrame(lines), f"Cost of one image and its question, batch 1, without the tower. {_where(book)}")


def _where(book: Book) -> str:
    """Return where the times were measured."""
    if book.efficiency.empty:
        return "Not measured at this scale."
    first = book.efficiency.iloc[0]
    text = f"Measured on {first.get('device', '?')}, {first.get('dtype', '?')}, {first.get('threads', '?')} thread(s)"
    return f"{text}, {first.get('text_tokens', '?')} text tokens; FLOPs = 2 x multiply-accumulates, attention included."

"""Published tables in their own shape, with our values in the line below each published one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pandas as pd

from visiontokens.report.book import AVERAGE, Book, Cell
from visiontokens.report.detectable import detectable
from visiontokens.report.write import NOT_PRINTED, NOT_RUN, Table, duration, integer, number, si, with_spread

LABELS: Mapping[str, str] = {
    "tokens": "#Tokens", "cr_percent": "CR %", "tflops": "FLOPs", "tflops_stage_average": "FLOPs, stage mean",
    "latency_ms": "Latency ms", "train_hours": "Training", "parameters_million": "Parameters",
    "parameters": "Parameters",
    "gflops_projector": "FLOPs", "gqa": "GQA", "mmvet": "MM-Vet", "scienceqa": "SQA-IMG", "mme": "MME",
    "textvqa": "TextVQA", "pope": "POPE", "mmbench": "MMB", "mmbench_cn": "MMB-CN", "vqav2": "VQAv2",
    "llava_w": "LLaVA-W", "vizwiz": "VizWiz", "seed_image": "SEED-I", "mmmu": "MMMU", AVERAGE: "Avg",
    "msvd": "MSVD", "msvd_score": "MSVD score", "msrvtt": "MSRVTT", "msrvtt_score": "MSRVTT score",
    "activitynet": "ActivityNet", "activitynet_score": "ActivityNet score", "average_score": "Avg score",
    "msvd_qa": "MSVD-QA EM", "activitynet_qa": "ActivityNet-QA EM",
}  # fmt: skip
"""Headings by reference column."""
COMMON = "Avg, run"
ROW, SOURCE = "Method", "Source"
PAPER, OURS = "paper", "ours"
SPREAD = (
    "±: published = standard deviation of three runs; ours = half the 95% confidence interval over questions for one "
    "seed, standard deviation for several. Bold: the best of our rows where it beats the next beyond both intervals, "
    "seeds included; nothing is bold with one seed, whose spread is not known."
)
SINGLE_DIGIT = {"mme": 0}
STAGED = ("2", "8")
"""Tables in which `#Tokens` and CR are means over the training stages."""


def paper_rows(book: Book, paper: str, table: str) -> list[tuple[str, str | None, str | None]]:
    """Return a table's rows as (label, published row or none, experiment or none), published ones first.

    Experiments that name the table but have no published counterpart that could be read follow in their own order.
    """
    mine = book.rows[(book.rows["paper"] == paper) & (book.rows["table"] == table)]
    experiment = dict(zip(mine["row"], mine["experiment"], strict=True))
    here = book.published[(book.published["paper"] == paper) & (book.published["table"] == table)]
    rows: list[tuple[str, str | None, str | None]] = [(r, r, experiment.get(r)) for r in dict.fromkeys(here["row"])]
    claimed = [name for name, tables in book.experiments["tables"].items() if f"{paper}-{table}" in tables]
    rows += [(book.label(str(name)), None, str(name)) for name in claimed if name not in experiment.values()]
    return rows


def paper_table(book: Book, paper: str, table: str, caption: str, columns: list[str] | None = None) -> Table:
    """Return a published table: for every row a line `paper` and a line `ours`, missing cells as "not run".

    Args:
        book: numbers and results.
        paper: `stf` or `volta`.
        table: number, as in the reference files.
        caption: what the table shows.
        columns: reference columns; default: the published ones in their order; cost and our benchmarks if none are.
    """
    here = book.published[(book.published["paper"] == paper) & (book.published["table"] == table)]
    printed = {(r["row"], r["column"]): r for _, r in here.iterrows()}
    names = columns or list(dict.fromkeys(here["column"])) or ["tokens", "tflops", "latency_ms", *book.averaged]
    common = [name for name in names if name in book.scored_benchmarks]
    lines: list[dict[str, str]] = []
    ours: dict[int, str] = {}
    rules = set()
    for label, published, experiment in paper_rows(book, paper, table):
        rules.add(len(lines))
        if published is not None:
            values = {name: _published(printed.get((published, name))) for name in names}
            values[COMMON] = _published_average(book, printed, published, common)
            lines.append({ROW: label, SOURCE: PAPER} | values)
        ours[len(lines)] = experiment or ""
        values = {name: _measured(book, experiment, name, staged=table in STAGED) for name in names}
        cell = book.average(experiment, common) if experiment and common else None
        values[COMMON] = NOT_RUN if cell is None else _text(cell)
        lines.append({ROW: label if published is None else "", SOURCE: OURS} | values)
    frame = pd.DataFrame(lines, columns=[ROW, SOURCE, *names, COMMON])
    if not common:
        frame = frame.drop(columns=COMMON)
    bold = _bold(book, ours, common)
    heads = {name: LABELS.get(name, name) for name in names}
    text = f"{caption} {SPREAD}" if set(names) & set(book.benchmarks.index) else caption
    if common:
        text += f" '{COMMON}' is the mean over the benchmarks we ran, for both lines ({len(common)}; MME / 20)."
        text += detectable(book, [name for name in ours.values() if name], common)
    return Table(frame.rename(columns=heads), text, frozenset((i, heads.get(c, c)) for i, c in bold), frozenset(rules))


def _text(cell: Cell, digits: int = 1) -> str:
    return with_spread(cell.value, cell.std if cell.seeds > 1 else cell.half, digits)


_PRINTED: Mapping[str, Callable[[float], str]] = {
    "TFLOPs": lambda value: si(value * 1e12),
    "GFLOPs": lambda value: si(value * 1e9),
    "h": lambda value: duration(value * 3600),
    "million": lambda value: si(value * 1e6) if value else "0",
}


def _published(line: pd.Series | None) -> str:
    if line is None:
        return NOT_PRINTED
    value, unit = float(line["value"]), str(line["unit"])
    if unit in _PRINTED:
        return _PRINTED[unit](value)
    if unit == "count":
        return si(value) if line["column"] == "parameters" else integer(value)
    text = str(line["value_text"])
    return f"{text} ±{line['std_text']}" if line["std_text"] else text


def _published_average(book: Book, printed: dict[tuple[str, str], pd.Series], row: str, common: list[str]) -> str:
    found = [printed.get((row, name)) for name in common]
    if not common or any(line is None for line in found):
        return NOT_PRINTED
    values = [
        float(line["value"]) / book.benchmarks["divisor"][name]
        for name, line in zip(common, found, strict=True)
        if line is not None
    ]
    return number(sum(values) / len(values))


def _measured(book: Book, experiment: str | None, column: str, *, staged: bool) -> str:
    """Return our text for one reference column; `staged` = `#Tokens` and CR are means over the training stages."""
    if experiment is None:
        return NOT_RUN
    if (experiment, column) in book.cells and column != AVERAGE:
        return _text(book.cells[experiment, column], SINGLE_DIGIT.get(column, 1))
    tokens = book.training_tokens(experiment) if staged else book.cost(experiment, "tokens_total")
    full = book.cost(experiment, "vision_tokens") * book.cost(experiment, "layers")
    makers = {
        "tokens": lambda: integer(tokens),
        "cr_percent": lambda: number(100 * full / tokens if tokens else math.nan, 0),
        "tflops": lambda: si(book.cost(experiment, "prefill_flops")),
        "latency_ms": lambda: number(book.cost(experiment, "prefill_ms")),
        "train_hours": lambda: duration(book.training_seconds(experiment)),
        "parameters_million": lambda: si(book.cost(experiment, "parameters_compressor")),
        "parameters": lambda: si(book.cost(experiment, "parameters_connector")),
        "gflops_projector": lambda: si(book.cost(experiment, "extra_flops")),
    }
    return makers[column]() if column in makers else NOT_RUN


def _bold(book: Book, ours: dict[int, str], common: list[str]) -> set[tuple[int, str]]:
    """Return (line, column) of our best values that lie beyond the noise of the runner-up."""
    found = set()
    for column in [*common, COMMON]:
        cells = {
            line: cell
            for line, name in ours.items()
            if (cell := book.average(name, common) if column == COMMON else book.cells.get((name, column)))
        }
        best = clear_winner(cells)
        if best is not None:
            found.add((best, column))
    return found


def clear_winner(cells: Mapping[int, Cell]) -> int | None:
    """Return the key of the largest value if it leads the second by more than both intervals together (in squares).

    Values of one seed have no winner: how far another training would move them is not known.
    """
    ranked = sorted(cells, key=lambda key: -cells[key].value)
    if len(ranked) < 2:
        return None
    first, second = cells[ranked[0]], cells[ranked[1]]
    if min(first.seeds, second.seeds) < 2:
        return None
    return ranked[0] if first.value - second.value > math.hypot(first.noise, second.noise) else None

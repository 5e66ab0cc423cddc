"""Tables of our own: summary, sampling error, stage schedules, agreement of orderings, errata."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

import pandas as pd

from visiontokens.analyze.recount import DIFFERS, pooled_total, stages
from visiontokens.compress.schedule import scale_depth
from visiontokens.measure.tokens import compression_ratio, pooled_tokens
from visiontokens.report.book import AVERAGE, Book, Cell
from visiontokens.report.detectable import detectable
from visiontokens.report.tables import LABELS, clear_winner
from visiontokens.report.write import NOT_RUN, Table, integer, number, si, with_spread

LAYERS, VISION = 32, 576

ORDERED = {
    "stf-fig1": "LLaVA-STF, Figure 1",
    **{f"volta-{number}": f"LLaVolta, Table {number}" for number in (2, 3, 4, 5, 7, 9)},
}  # published comparisons of rows that are scored on the nine benchmarks


def summary(book: Book, experiments: list[str] | None = None) -> Table:
    """Return method x benchmark with confidence intervals, vision tokens per layer, FLOPs and measured latency."""
    names = experiments or book.run
    benchmarks = [*book.scored_benchmarks, AVERAGE]
    lines = [_summary_line(book, name, benchmarks) for name in names]
    columns = ["Method", "Tokens", "FLOPs", "Prefill ms", *(_head(book, b) for b in benchmarks)]
    bold = set()
    for bench in benchmarks:
        cells = {i: c for i, name in enumerate(names) if (c := book.cells.get((name, bench)))}
        best = clear_winner(cells)
        if best is not None:
            bold.add((best, _head(book, bench)))
    caption = (
        "Scores with half the 95% confidence interval over questions (several seeds: mean, then half the interval of "
        "question sampling and seed spread together). Tokens: vision tokens of an average decoder layer at test time. "
        "FLOPs and prefill time: one image and the text around it, without the vision tower. Avg: mean with MME / 20. "
        "Bold: the best of a column where it beats the next beyond both intervals, seeds included; nothing is bold "
        "with one seed." + detectable(book, names, book.scored_benchmarks)
    )
    return Table(pd.DataFrame(lines, columns=columns), caption, frozenset(bold))


def _head(book: Book, benchmark: str) -> str:
    return LABELS.get(benchmark) or str(book.benchmarks["label"].get(benchmark, benchmark))


def _summary_line(book: Book, name: str, benchmarks: list[str]) -> dict[str, str]:
    line = {
        "Method": book.label(name),
        "Tokens": number(book.cost(name, "tokens_mean"), 0),
        "FLOPs": si(book.cost(name, "prefill_flops")),
        "Prefill ms": number(book.cost(name, "prefill_ms")),
    }
    for bench in benchmarks:
        cell = book.cells.get((name, bench))
        digits = 0 if bench == "mme" else 1
        line[_head(book, bench)] = NOT_RUN if cell is None else with_spread(cell.value, cell.noise, digits)
    return line


def sampling(book: Book, experiment: str = "none") -> Table:
    """Return how many questions each benchmark has and how far chance alone moves the score of one experiment."""
    lines = []
    for bench in book.scored_benchmarks:
        cell = book.cells.get((experiment, bench))
        row = book.benchmarks.loc[bench]
        lines.append(
            {
                "Benchmark": row["label"],
                "Metric": row["metric"],
                "Questions": integer(float(cell.n)) if cell else NOT_RUN,
                "Score": number(cell.value) if cell else NOT_RUN,
                "95% interval": f"±{cell.half:.1f}" if cell and not math.isnan(cell.half) else NOT_RUN,
                "Chance": f"{row['chance']:g}",
            }
        )
    columns = ["Benchmark", "Metric", "Questions", "Score", "95% interval", "Chance"]
    caption = (
        f"Size and sampling error of the benchmarks ({book.label(experiment)}); intervals are clustered bootstraps."
    )
    return Table(pd.DataFrame(lines, columns=columns), caption)


def schemes(book: Book, layers: int | None = None) -> Table:
    """Return LLaVolta's Table 1: every stage's (layer, stride), printed and recomputed ratio, and ours at our depth."""
    depth = layers or (int(book.cost("none", "layers")) if "none" in book.efficiency.index else 8)
    printed = book.published[(book.published["paper"] == "volta") & (book.published["table"] == "1")]
    ratios = printed.set_index(["row", "column"])["value"]
    lines = []
    for row, points in stages().items():
        line = {"Scheme": row}
        for i in range(4):
            used = i < len(points)
            line[f"Stage {i + 1}"] = _stage(points[i], ratios[row, f"stage{i + 1}_cr_percent"], depth) if used else ""
        lines.append(line)
    caption = (
        "LLaVolta, Table 1: (layer, stride) of each stage, then the compression ratio in percent: printed / recomputed "
        f"for 32 layers / ours with {depth} layers (layers are scaled to the same share of the depth)."
    )
    return Table(pd.DataFrame(lines), caption)


def _stage(point: tuple[int, int], printed: float, depth: int) -> str:
    layer, stride = point
    if stride == 1:
        return "none: 100"
    full = 100 * VISION * LAYERS / pooled_total(layer, stride)
    ours = 100 * compression_ratio(pooled_tokens(VISION, depth, scale_depth(layer, LAYERS, depth), stride), VISION)
    return f"({layer},{stride}): {printed:.0f} / {full:.1f} / {ours:.0f}"


def orderings(book: Book, tables: Mapping[str, str] = ORDERED) -> Table:
    """Return, per published table, how many pairs of rows stand in the same order in our results.

    A pair is `open` when our difference lies within both rows' noise, and is left out when the paper shows a tie.

    Args:
        book: numbers and results.
        tables: name as in the experiment table -> heading, e.g. `{"volta-2": "LLaVolta, Table 2"}`.
    """
    lines = []
    for name, heading in tables.items():
        verdicts = [verdict for *_, verdict in pairs(book, name)]
        counts = {kind: verdicts.count(kind) for kind in ("agrees", "disagrees", "open")}
        against = "; ".join(f"{a} > {b}" for a, b, _, _, verdict in pairs(book, name) if verdict == "disagrees")
        lines.append(
            {
                "Table": heading,
                "Pairs": str(len(verdicts)) if verdicts else NOT_RUN,
                "Agree": str(counts["agrees"]),
                "Disagree": str(counts["disagrees"]),
                "Open": str(counts["open"]),
                "The papers' orders that ours contradict": against or "–",
            }
        )
    caption = (
        "Do the rows stand in the papers' order? Pairs of rows that both have, by the mean over the benchmarks that "
        "both have (MME / 20). Open: our difference is within both rows' noise (intervals taken as independent)."
    )
    return Table(pd.DataFrame(lines), caption)


def pairs(book: Book, name: str) -> Iterator[tuple[str, str, float, float, str]]:
    """Yield (better row, worse row, published difference, our difference, verdict) for the pairs of a table."""
    paper, table = name.split("-", 1)
    published = book.published[(book.published["paper"] == paper) & (book.published["table"] == table)]
    grid = published.pivot(index="row", columns="column", values="value")
    rows = book.rows[(book.rows["paper"] == paper) & (book.rows["table"] == table)]
    common = [b for b in book.scored_benchmarks if b in grid and grid.loc[list(rows["row"]), b].notna().all()]
    if not common:
        return
    means = sum(grid[b] / book.benchmarks["divisor"][b] for b in common) / len(common)
    ours: dict[str, Cell] = {}
    for row, experiment in zip(rows["row"], rows["experiment"], strict=True):
        cell = book.average(experiment, common)
        if cell is not None:
            ours[row] = cell
    for a, b in itertools.combinations(ours, 2):
        better, worse = (a, b) if means[a] >= means[b] else (b, a)
        gap = float(means[better] - means[worse])
        if gap < 0.05:
            continue
        mine = ours[better].value - ours[worse].value
        if abs(mine) <= math.hypot(ours[better].noise, ours[worse].noise):
            verdict = "open"
        else:
            verdict = "agrees" if mine > 0 else "disagrees"
        yield better, worse, gap, mine, verdict


def errata_table(frame: pd.DataFrame, *, only_differences: bool) -> Table:
    """Return the errata as a table of text; all lines, or only those where the printed value differs."""
    chosen = frame[frame["verdict"] == DIFFERS] if only_differences else frame
    text = pd.DataFrame(
        {
            "Paper": chosen["paper"].map({"volta": "LLaVolta", "stf": "LLaVA-STF"}),
            "Table": chosen["table"].map(lambda t: t.replace("fig1_left", "Fig. 1 left").replace("fig1", "Fig. 1")),
            "Row": chosen["row"],
            "Quantity": chosen["quantity"],
            "Printed": chosen["printed"].map(_short),
            "Recomputed": chosen["recomputed"].map(_short),
            "Arithmetic": chosen["arithmetic"].str.replace("*", "×"),  # a star is Markdown's emphasis
            "Verdict": chosen["verdict"],
            "Note": chosen["note"].str.replace("*", "×"),
        }
    )
    if only_differences:
        text = text.drop(columns="Verdict")
    differing = int((frame["verdict"] == DIFFERS).sum())
    caption = f"{len(frame)} printed values recomputed; {differing} differ by more than rounding explains."
    return Table(text, caption)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}".rstrip("0").rstrip(".")

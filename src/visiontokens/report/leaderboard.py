"""The leaderboard: every row that ran, what it costs, what it scores, and how it stands to average pooling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pandas as pd

from visiontokens.config import LeaderboardConfig, load_config
from visiontokens.provenance import atomic_write, read_json
from visiontokens.report.book import AVERAGE, Book, Cell
from visiontokens.report.field import BASELINE, Kind, kinds, profile
from visiontokens.report.partners import Verdict, verdicts
from visiontokens.report.tables import LABELS, clear_winner
from visiontokens.report.write import NOT_PRINTED, NOT_RUN, Table, number, si

PART = "leaderboard"
COSTS = ("tokens_mean", "prefill_flops", "kv_bytes_image", "decode_flops", "prefill_ms")


@dataclass(frozen=True)
class Leaderboard:
    """Rows, their kinds, tokens per layer and verdicts; `book` holds their scores and costs."""

    book: Book
    kinds: Mapping[str, Kind]
    per_layer: Mapping[str, list[float]]
    verdicts: Mapping[str, Verdict]
    tolerance: float

    @classmethod
    def load(cls, results: str | Path, config: str | Path = "config", *, resamples: int = 1000) -> Self:
        """Read what the target `leaderboard` left under `results`; rows without scores are left out.

        Where the target has not run, costs are missing and all rows with scores are there.

        Args:
            results: folder of one scale.
            config: folder of the tables and method files.
            resamples: of the paired bootstrap.
        """
        results, config = Path(results), Path(config)
        settings = results / PART / "config.yaml"
        book = Book.load(results, config, part=PART)
        known = kinds(book.run, config)
        chosen = load_config(settings).leaderboard if settings.is_file() else LeaderboardConfig()
        tolerance = chosen.tolerance
        per_layer = {
            path.stem: read_json(path)["tokens_per_layer"]
            for path in sorted((results / PART).glob("efficiency/*.json"))
        }
        return cls(book, known, per_layer, verdicts(book, results, known, tolerance, resamples), tolerance)

    def cell(self, name: str, benchmark: str = AVERAGE) -> Cell | None:
        """Return a row's score; the average is over the benchmarks that this scale scores."""
        if benchmark == AVERAGE:
            return self.book.average(name, self.book.scored_benchmarks)
        return self.book.cells.get((name, benchmark))

    def speedup(self, name: str) -> float:
        """Return the baseline's measured prefill time over the row's."""
        return self.book.cost(BASELINE, "prefill_ms") / self.book.cost(name, "prefill_ms")

    def kept(self, name: str, benchmark: str = AVERAGE) -> float:
        """Return the row's share of the baseline's score in percent; NaN where either was not run."""
        ours, base = (self.cell(row, benchmark) for row in (name, BASELINE))
        return 100 * ours.value / base.value if ours and base and base.value else math.nan


def leaderboard_table(board: Leaderboard) -> Table:
    """Return the one table, rows by falling budget."""
    book = board.book
    benchmarks = [*book.scored_benchmarks, AVERAGE]
    names = sorted(board.kinds, key=lambda name: -book.cost(name, "tokens_mean"))
    lines = [_line(board, name, benchmarks) for name in names]
    bold = set()
    for bench in benchmarks:
        cells = {i: cell for i, name in enumerate(names) if (cell := board.cell(name, bench))}
        best = clear_winner(cells)
        if best is not None:
            bold.add((best, _head(book, bench)))
    return Table(pd.DataFrame(lines), _caption(board), frozenset(bold))


def _line(board: Leaderboard, name: str, benchmarks: list[str]) -> dict[str, str]:
    book, kind, verdict = board.book, board.kinds[name], board.verdicts[name]
    per_layer = board.per_layer.get(name)
    scores = {_head(book, b): cell_text(board.cell(name, b), 0 if b == "mme" else 1) for b in benchmarks}
    tested = not math.isnan(verdict.difference)
    return {
        "Method": book.label(name),
        "Paper": str(book.experiments["paper"][name]),
        "Weights": "trained" if kind.trained else "training-free",
        "Sees the question": "yes" if kind.query_aware else "no",
        "Tokens": number(book.cost(name, "tokens_mean")),
        "Tokens by layer": NOT_RUN if per_layer is None else profile(per_layer),
        "Prefill FLOPs": si(book.cost(name, "prefill_flops")),
        "KV bytes": si(book.cost(name, "kv_bytes_image")),
        "Decode FLOPs": si(book.cost(name, "decode_flops")),
        "Prefill speed-up": number(board.speedup(name), 2),
        **scores,
        "Kept %": number(board.kept(name)),
        "Pooling partner": _partner(book, verdict.partner),
        "Difference": f"{verdict.difference:+.1f} ±{verdict.half:.1f}" if tested else NOT_PRINTED,
        "Verdict": verdict.text or "baseline",
        "Detectable": number(verdict.detectable) if tested else NOT_PRINTED,
    }


def _partner(book: Book, name: str) -> str:
    return f"{book.label(name)} ({number(book.cost(name, 'tokens_mean'))})" if name else NOT_PRINTED


def cell_text(cell: Cell | None, digits: int = 1) -> str:
    """Return `54.3 [52.4, 56.2]`, with `±0.8` between for the standard deviation over several seeds."""
    if cell is None:
        return NOT_RUN
    spread = f" ±{cell.std:.{digits}f}" if cell.seeds > 1 else ""
    interval = (
        "" if math.isnan(cell.half) else f" [{cell.value - cell.half:.{digits}f}, {cell.value + cell.half:.{digits}f}]"
    )
    return f"{cell.value:.{digits}f}{spread}{interval}"


def _head(book: Book, benchmark: str) -> str:
    return LABELS.get(benchmark) or str(book.benchmarks["label"].get(benchmark, benchmark))


def _caption(board: Leaderboard) -> str:
    seeds = sorted({cell.seeds for cell in board.book.cells.values()})
    text = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else "".join(map(str, seeds)) or "no"
    return (
        f"Leaderboard, {text} seed(s): mean ± standard deviation over seeds, in brackets the 95% interval over "
        "questions. Weights: trained with the method, or the method runs on weights that do not know it. Tokens: "
        "vision tokens of one image, mean over the decoder's layers (the budget), and by layer from the first. "
        "FLOPs: two per multiply-add; prefill of one image and its question without the tower, decode for one token. "
        "KV bytes: the "
        "image's share of the cache. Prefill speed-up: measured, batch 1, over the baseline. Avg: mean with MME / 20; "
        "Kept: its share of the baseline's. Pooling partner (its budget): the row that only averages neighbouring "
        "tokens, trained or training-free as the row is, at the nearest budget within "
        f"{100 * board.tolerance:g}%. Difference: in the average on the same questions, with half its 95% interval "
        "(t interval: bootstrap over images, and the spread of the seeds' differences). Verdict: at 5% after Holm's "
        "correction over all rows. Detectable: true difference that the test finds with probability 0.8 at 5%. Bold: "
        "best of a column beyond both intervals, seeds included; nothing is bold with one seed."
    )


def leaderboard_frame(board: Leaderboard) -> pd.DataFrame:
    """Return one line of plain numbers per row: kind, costs, scores with interval and spread, verdict."""
    lines = []
    for name, kind in board.kinds.items():
        line: dict[str, object] = {"experiment": name, "label": board.book.label(name), **vars(kind)}
        line |= {key: board.book.cost(name, key) for key in COSTS}
        line |= {"prefill_speedup": board.speedup(name), "kept_percent": board.kept(name)}
        for bench in [*board.book.scored_benchmarks, AVERAGE]:
            cell = board.cell(name, bench) or Cell(math.nan, seeds=0)
            line |= {bench: cell.value, f"{bench}_half": cell.half, f"{bench}_std": cell.std}
            line["seeds"] = cell.seeds
        lines.append(line | vars(board.verdicts[name]))
    return pd.DataFrame(lines)


def write_frame(board: Leaderboard, path: Path) -> None:
    """Write `leaderboard_frame` as CSV."""
    with atomic_write(path) as handle:
        leaderboard_frame(board).to_csv(handle, index=False, lineterminator="\n", float_format="%.6g")


def tally(board: Leaderboard) -> Table:
    """Return, by verdict, which rows stand there: the honest summary."""
    lines = []
    for word, said in (
        ("better", "better than average pooling at its budget"),
        ("level", "level with it, within what the test can see"),
        ("worse", "worse than it"),
        ("no partner", "no pooling row near its budget"),
        ("not run", "partner not scored"),
    ):
        names = [board.book.label(name) for name, verdict in board.verdicts.items() if verdict.text == word]
        lines.append({"Verdict": said, "Rows": str(len(names)), "Which": "; ".join(names) or NOT_PRINTED})
    return Table(pd.DataFrame(lines), "How the rows stand to average pooling at equal budget.")

"""The README's results: generated from a finished run, never typed."""

from __future__ import annotations

import shutil
from pathlib import Path

from visiontokens.config import Config
from visiontokens.provenance import atomic_write, read_json
from visiontokens.report.book import Book
from visiontokens.report.comparisons import paired
from visiontokens.report.convergence import convergence, verdict
from visiontokens.report.summaries import orderings, summary
from visiontokens.report.write import markdown

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
FIGURES = ("pareto", "contact_sheet")
PARETO = "leaderboard_pareto"


def update_readme(config: Config, readme: Path, figures: Path) -> None:
    """Replace the text between the markers of `readme` by the results of `config`'s scale; copy figures beside it.

    Raises:
        ValueError: the markers are missing.
        FileNotFoundError: the run has no figures or predictions yet.
    """
    text = readme.read_text(encoding="utf-8")
    figures.mkdir(parents=True, exist_ok=True)
    if BEGIN not in text or END not in text:
        raise ValueError(f"{readme}: expected the markers {BEGIN} and {END}, found none")
    for name in FIGURES:
        shutil.copyfile(config.results_dir / f"paper/figures/{name}.png", figures / f"{name}.png")
    front = config.leaderboard_dir / f"figures/{PARETO}.png"
    if front.is_file():
        shutil.copyfile(front, figures / front.name)
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    with atomic_write(readme) as handle:
        handle.write(head + BEGIN + "\n" + _block(config, figures.relative_to(readme.parent)) + END + tail)


def _leaderboard(config: Config, figures: Path) -> list[str]:
    """Return the leaderboard's part: its table and Pareto figure; nothing where it has not run at this scale."""
    folder = config.leaderboard_dir
    if not (folder / "tables/leaderboard.md").is_file():
        return []
    return [
        "### Leaderboard",
        (folder / "tables/against_pooling.md").read_text(encoding="utf-8").strip(),
        _image("Average score against FLOPs and measured prefill time", figures / f"{PARETO}.png"),
        "<details><summary>All rows</summary>",
        (folder / "tables/leaderboard.md").read_text(encoding="utf-8").strip(),
        "</details>",
        "### Both papers",
    ]


def _block(config: Config, figures: Path) -> str:
    book = Book.load(config.results_dir, config.experiments.table.parent)
    run = read_json(next(iter(sorted(config.results_dir.glob("predictions/none/seed*/record.json")))))["run"]
    seeds = config.experiments.seeds
    gate = verdict(convergence(config.results_dir, dict(book.experiments["label"])).frame)
    origin = (
        f"Our numbers at scale `{config.scale}`, {seeds} seed{'s' if seeds > 1 else ''}: {run['date']}, commit "
        f"`{run['commit']}`, {run['processor']}, {run['cores']} cores."
    )
    parts = [
        *_leaderboard(config, figures),
        origin,
        f"**Convergence gate** (validation split): {gate}",
        markdown(summary(book)).strip(),
        _image("Average score against vision tokens, FLOPs and measured prefill time", figures / "pareto.png"),
        "**The papers' orders and ours**",
        markdown(orderings(book)).strip(),
        "<details><summary>Differences to the baseline, question by question</summary>",
        markdown(paired(book, config.results_dir)).strip(),
        "</details>",
        "<details><summary>What is asked</summary>",
        _image("Samples of the nine benchmarks of the mini world", figures / "contact_sheet.png"),
        "</details>",
    ]
    return "\n\n".join(parts) + "\n"


def _image(text: str, path: Path) -> str:
    return f"![{text}]({path.as_posix()})"

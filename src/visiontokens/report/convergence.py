"""Tables of the validation split: is the baseline converged, and what do its controls get right by chance?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from visiontokens.analyze.gate import gate, read_validations
from visiontokens.report.write import Table, number, with_spread

BASELINE = "none"


def convergence(results: Path, labels: Mapping[str, str], baseline: str = BASELINE) -> Table:
    """Return every trained experiment beside the baseline, on validation questions (the convergence gate).

    Args:
        results: folder of one scale.
        labels: experiment -> name in tables.
        baseline: experiment with all tokens.
    """
    runs = read_validations(results / "validation")
    lines = []
    base = [run["value"] for run in runs if run["experiment"] == baseline]
    if base:
        lines.append(_line(labels.get(baseline, baseline), len(base), sum(base) / len(base), "", "baseline"))
    for row in gate(runs, baseline).to_dict("records"):
        change = f"{row['difference']:+.1f} [{row['ci_low']:+.1f}, {row['ci_high']:+.1f}]"
        name = labels.get(row["experiment"], row["experiment"])
        lines.append(_line(name, row["seeds"], row["value"], change, row["verdict"]))
    caption = (
        "Validation split, exact match, mean over question families (%). Difference to the baseline with 95% interval, "
        f"images resampled and, with several seeds, their spread. {verdict(pd.DataFrame(lines))}"
    )
    return Table(pd.DataFrame(lines), caption)


def verdict(lines: pd.DataFrame) -> str:
    """Return what the table of `convergence` says of the baseline, in a sentence; "" where nothing was validated."""
    if lines.empty:
        return ""
    behind = lines.loc[lines["Verdict"] == "baseline behind", "Method"].tolist()
    if not behind:
        return "No method is ahead of the baseline beyond noise."
    return (
        f"The baseline is behind {', '.join(behind)}: it is not converged, and comparisons with it favour compression."
    )


def _line(name: str, seeds: int, value: float, change: str, verdict: str) -> dict[str, str]:
    return {"Method": name, "Seeds": str(seeds), "Validation": number(value), "Difference": change, "Verdict": verdict}


def controls(results: Path, baseline: str = BASELINE) -> Table:
    """Return the baseline's accuracy by family with its prior and the shuffled-image control (first seed)."""
    runs = [run for run in read_validations(results / "validation") if run["experiment"] == baseline]
    lines = [
        {
            "Family": family,
            "Accuracy": with_spread(row["value"], 1.96 * row["se"]),
            "Commonest answer": number(row["prior"]),
            "Wrong image": number(row["shuffled"]),
            "n": str(row["n"]),
        }
        for family, row in (runs[0]["families"].items() if runs else ())
    ]
    caption = (
        "The baseline on the validation split by question family (%, ± half the 95% interval), beside what the "
        "family's commonest answer would score and what the model scores when every image is swapped for another."
    )
    return Table(pd.DataFrame(lines), caption)

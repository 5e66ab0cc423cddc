"""Is the full-token baseline converged? Only then may a compressor be compared with it.

Trained directly, a 576-token model learns slowest and would end below every compressor: an artefact of too little
training that would make any compressor look good. The gate: on the validation split the baseline is at least level
with every trained method that keeps a quarter of the tokens or fewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from visiontokens.analyze.stats import Estimate, with_seeds
from visiontokens.provenance import read_json

RESAMPLES = 2000


def read_validations(folder: Path) -> list[dict[str, Any]]:
    """Return the contents of every `<folder>/<experiment>/seed<k>.json`."""
    return [read_json(path) for path in sorted(folder.glob("*/seed*.json"))]


def gate(runs: Iterable[Mapping[str, Any]], baseline: str) -> pd.DataFrame:
    """Compare validation results with the baseline's, question by question, over the seeds that both have.

    Columns: experiment, seeds (number), value (mean over families and seeds, percent), difference (to the baseline,
    points), ci_low, ci_high (95 %: images resampled, and the spread over seeds where there are several), verdict:
    `baseline ahead`, `level` or `baseline behind`. The baseline itself is no row.

    Raises:
        ValueError: two results answer different questions.
    """
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        found.setdefault(run["experiment"], {})[run["seed"]] = run
    base = found.pop(baseline, {})
    rows = []
    for name, own in found.items():
        seeds = sorted(set(own) & set(base))
        if not seeds:
            continue
        estimate = _estimate([(base[seed], own[seed]) for seed in seeds])
        low, high = estimate.interval()
        rows.append(
            {
                "experiment": name,
                "seeds": len(seeds),
                "value": float(np.mean([own[seed]["value"] for seed in seeds])),
                "difference": estimate.value,
                "ci_low": low,
                "ci_high": high,
                "verdict": "baseline behind" if low > 0 else "baseline ahead" if high < 0 else "level",
            }
        )
    return pd.DataFrame(rows)


def _estimate(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Estimate:
    """Return the mean difference of pairs (baseline, other), one a seed; all seeds are asked the same questions."""
    for base, other in pairs:
        if [q[:2] for q in other["questions"]] != [q[:2] for q in base["questions"]]:
            raise ValueError(f"validation of {other['experiment']!r}: other questions than {base['experiment']!r}")
    draws = np.mean([_differences(base["questions"], other["questions"]) for base, other in pairs], 0)
    return with_seeds([other["value"] - base["value"] for base, other in pairs], float(draws.std(ddof=1)))


def _differences(ours: list[list[Any]], theirs: list[list[Any]]) -> np.ndarray:
    """Return resampled differences (theirs - ours) of the mean over families, in points, `[RESAMPLES]`.

    The same images are drawn for any two runs.
    """
    families = sorted({row[1] for row in ours})
    images = sorted({row[0].rsplit("-", 1)[0] for row in ours})
    place = {image: i for i, image in enumerate(images)}
    gain = np.zeros((len(images), len(families)))
    count = np.zeros_like(gain)
    for (question, family, mine), (_, _, other) in zip(ours, theirs, strict=True):
        cell = place[question.rsplit("-", 1)[0]], families.index(family)
        gain[cell] += other - mine
        count[cell] += 1
    weights = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), RESAMPLES)
    return 100 * ((weights @ gain) / np.maximum(weights @ count, 1)).mean(1)

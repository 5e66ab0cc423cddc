"""Is the full-token baseline converged? Only then may a compressor be compared with it.

Trained directly, a 576-token model learns slowest and would end below every compressor: an artefact of too little
training that would make any compressor look good. The gate: on the validation split the baseline is at least level
with every trained method that keeps a quarter of the tokens or fewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from visiontokens.provenance import read_json

RESAMPLES = 2000


def read_validations(folder: Path) -> list[dict[str, Any]]:
    """Return the contents of every `<folder>/<experiment>/seed<k>.json`."""
    return [read_json(path) for path in sorted(folder.glob("*/seed*.json"))]


def gate(baseline: Mapping[str, Any], others: Iterable[Mapping[str, Any]], seed: int = 0) -> pd.DataFrame:
    """Compare validation results with the baseline's, question by question.

    Columns: experiment, seed, value (mean over families, percent), difference (to the baseline, points), ci_low,
    ci_high (95 %, images resampled), verdict: `baseline ahead`, `level` or `baseline behind`.

    Raises:
        ValueError: two results answer different questions.
    """
    rows = []
    for other in others:
        if [q[:2] for q in other["questions"]] != [q[:2] for q in baseline["questions"]]:
            raise ValueError(f"validation of {other['experiment']!r}: other questions than {baseline['experiment']!r}")
        draws = _differences(baseline["questions"], other["questions"], seed)
        low, high = np.percentile(draws, [2.5, 97.5])
        verdict = "baseline behind" if low > 0 else "baseline ahead" if high < 0 else "level"
        rows.append(
            {
                "experiment": other["experiment"],
                "seed": other["seed"],
                "value": other["value"],
                "difference": other["value"] - baseline["value"],
                "ci_low": float(low),
                "ci_high": float(high),
                "verdict": verdict,
            }
        )
    return pd.DataFrame(rows)


def _differences(ours: list[list[Any]], theirs: list[list[Any]], seed: int) -> np.ndarray:
    """Return resampled differences (theirs - ours) of the mean over families, in points, `[RESAMPLES]`."""
    families = sorted({row[1] for row in ours})
    images = sorted({row[0].rsplit("-", 1)[0] for row in ours})
    place = {image: i for i, image in enumerate(images)}
    gain = np.zeros((len(images), len(families)))
    count = np.zeros_like(gain)
    for (question, family, mine), (_, _, other) in zip(ours, theirs, strict=True):
        cell = place[question.rsplit("-", 1)[0]], families.index(family)
        gain[cell] += other - mine
        count[cell] += 1
    weights = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)), RESAMPLES)
    return 100 * ((weights @ gain) / np.maximum(weights @ count, 1)).mean(1)

"""A made-up leaderboard: the layout of `results/<scale>` with per-question scores, for the tests of the report."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from synthetic_results import write_results

from visiontokens.evaluate.score import Score, write_score
from visiontokens.evaluate.score.base import MEAN_CORRECT

SCORED = ("gqa", "textvqa")
OTHERS = ("vqav2", "vizwiz", "scienceqa", "pope", "mme", "mmbench", "mmbench_cn")


def write_board(root: Path, rows: dict[str, float], *, seeds: int = 1, questions: int = 400) -> Path:
    """Write rows of the experiment table whose chance of a right answer is given; return `root`.

    All rows answer the same questions, and a row with a smaller chance is right on a subset of a better row's.
    """
    write_results(root, only=list(rows), seeds=seeds, skip=(*OTHERS, *SCORED))
    board = root / "leaderboard"
    board.mkdir()
    shutil.copytree(root / "efficiency", board / "efficiency")
    shutil.copy(root / "config.yaml", board / "config.yaml")
    for place, bench in enumerate(SCORED):
        for seed in range(seeds):
            hard = np.random.default_rng(10 * place + seed).random(questions)
            for name, chance in rows.items():
                _write(root / f"scores/{name}/seed{seed}", bench, hard < chance)
    return root


def _write(folder: Path, bench: str, right: np.ndarray) -> None:
    records = [
        {"question_id": str(i), "group": str(i // 4), "correct": float(ok), "prediction": ""}
        for i, ok in enumerate(right)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    score = Score(bench, "accuracy", 100 * float(right.mean()), {}, records, MEAN_CORRECT)
    write_score(score, folder / f"{bench}.json", resamples=50)

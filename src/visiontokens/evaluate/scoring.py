"""The workflow's scoring job: every benchmark of one run, from prediction files only."""

from __future__ import annotations

import logging
from pathlib import Path

from visiontokens.config import Config
from visiontokens.evaluate.judge import make_judge
from visiontokens.evaluate.score import score_benchmark, write_score
from visiontokens.provenance import read_json

log = logging.getLogger(__name__)

CARRIED = ("weights", "method", "evaluate", "data", "run", "vision_tokens")
"""What a score repeats from the record of its predictions."""


def score_experiment(config: Config, experiment: str, seed: int, predictions: Path, out: Path) -> None:
    """Score `<predictions>/<benchmark>.jsonl` for every configured benchmark into `<out>/<benchmark>.json`.

    Each result also says whose it is and how it was made (scale, experiment, seed, and the predictions' own record).

    Raises:
        FileNotFoundError: a prediction or benchmark file is missing.
        ValueError: predictions and questions do not match; the message names file, line and id.
    """
    settings = config.evaluate
    judge = make_judge(settings.judge)
    judged, runs = (settings.judge.benchmarks, settings.judge.runs) if settings.judge else ([], 1)
    made = read_json(predictions / "record.json")
    extra = {"scale": config.scale, "experiment": experiment, "seed": seed}
    extra |= {f"predicted_{key}": made[key] for key in CARRIED if key in made}
    for name in settings.benchmarks:
        path = predictions / f"{name}.jsonl"
        score = score_benchmark(
            name, path, config.data_dir / "benchmarks", limit=settings.limit, policy=settings.policy,
            judge=judge if name in judged else None, runs=runs,
        )  # fmt: skip
        write_score(
            score,
            out / f"{name}.json",
            extra,
            resamples=settings.bootstrap,
            level=settings.confidence,
            seed=config.seed,
        )
        log.info("%s seed %d: %s %.2f (%s, %d questions)", experiment, seed, name, score.value, score.metric, score.n)

"""The jobs that faults hit: one of every rule, with what must go so that it runs again and how long it takes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from sandbox import BASELINE, RESULTS, WORLD, Sandbox

STF = "stf-mbtf/seed0"


@dataclass(frozen=True)
class Job:
    """One job of the workflow.

    Attributes:
        rule: its name.
        remove: files or folders without which it runs again, relative to the tree.
        target: a file that it makes.
        seconds: about how long its process lives on an idle core.
    """

    rule: str
    remove: tuple[str, ...]
    target: str
    seconds: float = 6.0

    def reset(self, sandbox: Sandbox) -> None:
        """Remove what it made, so that it runs."""
        for name in self.remove:
            path = sandbox / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


WORLD_PARTS = ("world.json", "images.tsv", "pretrain", "instruct", "validation", "benchmarks")
JOBS = {
    job.rule: job
    for job in (
        Job("world", tuple(f"{WORLD}/{part}" for part in WORLD_PARTS), f"{WORLD}/world.json", 3),
        Job("features", (f"{WORLD}/features/test",), f"{WORLD}/features/test/index.json", 7),
        Job("class_states", (f"{WORLD}/features/test.class",), f"{WORLD}/features/test.class/index.json", 7),
        Job("align", (f"{RESULTS}/models/{STF}/align",), f"{RESULTS}/models/{STF}/align/record.json", 9),
        Job("tune", (f"{RESULTS}/models/{STF}/tune",), f"{RESULTS}/models/{STF}/tune/record.json", 9),
        Job(
            "staged_tune",
            (f"{RESULTS}/models/{BASELINE}/seed0/tune",),
            f"{RESULTS}/models/{BASELINE}/seed0/tune/record.json",
            11,
        ),
        Job("search", (f"{RESULTS}/search",), f"{RESULTS}/search/gsearch-test.json", 8),
        Job("predict", (f"{RESULTS}/predictions/{STF}",), f"{RESULTS}/predictions/{STF}/record.json", 7),
        Job("validate", (f"{RESULTS}/validation/{STF}.json",), f"{RESULTS}/validation/{STF}.json", 6),
        Job("score", (f"{RESULTS}/scores/{STF}",), f"{RESULTS}/scores/{STF}/gqa.json", 3),
        Job("probe", (f"{RESULTS}/redundancy",), f"{RESULTS}/redundancy/curve.csv", 9),
        Job("measure", (f"{RESULTS}/efficiency",), f"{RESULTS}/efficiency/stf-mbtf.json", 9),
        Job("notebook", (f"{RESULTS}/notebooks",), f"{RESULTS}/notebooks/01_redundancy.html", 9),
        Job("summary", (f"{RESULTS}/paper/summary.txt",), f"{RESULTS}/paper/summary.txt", 4),
    )
}

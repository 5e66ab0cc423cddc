#!/usr/bin/env python3
"""Stand-in for the command `visiontokens`: writes a verb's output files at once, so that tests can finish a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

BENCHMARKS = "vqav2 gqa vizwiz scienceqa textvqa pope mme mmbench mmbench_cn"
WORLD = "pretrain/blip_laion_cc_sbu_mini.json instruct/llava_v1_5_mix_mini.json validation/instruct.json"
EXPERIMENTS = "none stf-mbtf volta-four-wider-deeper vcc-2-8-test"
PAGES = "index leaderboard gallery methods explorer"
SITE = "assets/a.css data/a.csv figures/pareto.png methods/a.html notebooks/a.html source/a.txt tables/stf-2.csv"
OUTPUTS = {
    "world": [*WORLD.split(), "images.tsv", "world.json", "benchmarks/some.json"],
    "train": ["model.safetensors", "config.json", "log.jsonl", "record.json"],
    "predict": ["record.json", *(f"{name}.jsonl" for name in BENCHMARKS.split())],
    "score-run": [f"{name}.json" for name in BENCHMARKS.split()],
    "redundancy": ["curve.csv", "attention.csv", "similarity.csv", "probe.csv"],
    "efficiency": [f"{name}.json" for name in EXPERIMENTS.split()],
    "explore": ["questions.json", *(f"{name}.json" for name in EXPERIMENTS.split())],
    "verify": ["metrics.json", *(f"ledger.{kind}" for kind in ("json", "csv", "md", "txt", "html"))],
    "summary": ["summary.txt", "metrics.json", "summary.csv", "cards/none.md"],
    "site": [*(f"{name}.html" for name in PAGES.split()), *SITE.split()],
}


def outputs(verb: str, options: dict[str, str]) -> Iterator[Path]:
    """Yield the files a verb declares."""
    scale = Path(options["config"]).parent.name
    if verb == "features":
        yield Path(f"data/world/{scale}/features/{options['set']}/index.json")
    elif verb == "class-states":
        yield Path(f"data/world/{scale}/features/{options['set']}.class/index.json")
    elif verb == "notebook":
        yield from (Path(options["executed"]), Path(options["html"]))
    elif verb == "validate":
        yield Path(options["out"])
    else:
        yield from (Path(options["out"]) / name for name in OUTPUTS[verb])


def main() -> None:
    """Write every output of the verb; what is in it depends on the arguments only."""
    words = sys.argv[1:]
    options = {name.removeprefix("--"): value for name, value in pairwise(words) if name.startswith("--")}
    for path in outputs(words[0], options):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(words) + "\n", encoding="utf-8")


main()

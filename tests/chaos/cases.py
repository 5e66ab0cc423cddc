"""Every fault with the rules it hits; rounds walk through them in an order that mixes them."""

from __future__ import annotations

import random

import faults
from faults import Fault, damaged, unfinished
from jobs import JOBS
from sandbox import BASELINE, RESULTS, WORLD

TRAINED = ("align", "tune", "staged_tune")
MODEL = f"{RESULTS}/models/stf-mbtf/seed0"
PLAIN: tuple[tuple[str, Fault, tuple[str, ...]], ...] = (
    ("kill", faults.kill, (*JOBS, *JOBS)),
    ("terminate", faults.terminate, (*TRAINED, "world", "features", "predict", "search", "notebook")),
    ("headless", faults.headless, ("world", "features", "staged_tune", "search", "predict", "score", "probe")),
    ("power cut", faults.power_cut, (*TRAINED, "world", "features", "class_states", "predict", "summary")),
    ("interrupt", faults.interrupt, ("tune", "predict")),
    ("full disk", faults.full_disk, tuple(JOBS)),
    ("read-only", faults.read_only, ("features", "tune", "predict")),
    ("two runs", faults.two_runs, ("tune", "predict", "summary")),
    ("same job twice", faults.same_job_twice, ("world", "features", "tune", "predict", "score")),
    ("clock", faults.clock, ("staged_tune", "predict", "summary")),
    (
        "environment",
        faults.environment,
        ("world", "features", "tune", "predict", "score", "probe", "notebook", "summary"),
    ),
    ("everything", faults.everything, ("world", "world")),
)
READ: tuple[tuple[str, tuple[str, ...]], ...] = (
    (f"{WORLD}/features/instruct/level*.npy", ("tune", "staged_tune")),
    (f"{WORLD}/features/test/level*.npy", ("predict", "probe")),
    (f"{WORLD}/features/validation/level*.npy", ("validate",)),
    (f"{WORLD}/features/test/index.json", ("predict",)),
    (f"{WORLD}/features/pretrain/index.json", ("align",)),
    (f"{WORLD}/instruct/*.json", ("tune", "search")),
    (f"{WORLD}/validation/instruct.json", ("validate",)),
    (f"{WORLD}/benchmarks/*/*.json*", ("predict", "score")),
    (f"{WORLD}/benchmarks/pope/val2014/*", ("features",)),
    (f"{WORLD}/images.tsv", ("features",)),
    (f"{MODEL}/align/model.safetensors", ("tune",)),
    (f"{MODEL}/tune/model.safetensors", ("predict", "validate")),
    (f"{MODEL}/tune/config.json", ("predict",)),
    (f"{RESULTS}/models/{BASELINE}/seed0/tune/model.safetensors", ("search",)),
    (f"{RESULTS}/predictions/stf-mbtf/seed0/*", ("score", "score")),
    (f"{RESULTS}/scores/*/seed0/*.json", ("summary", "notebook")),
    (f"{RESULTS}/redundancy/*.csv", ("notebook",)),
    (f"{RESULTS}/efficiency/*.json", ("summary",)),
    (f"{RESULTS}/config.yaml", ("predict",)),
    ("data/backbones/*/model.safetensors", ("features", "align")),
)
CHECKPOINT = f"{RESULTS}/runs/*/seed0/*/checkpoints/checkpoint-*"
LEFT: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (f"{CHECKPOINT}/*", f"{CHECKPOINT}/complete.json", (*TRAINED, *TRAINED)),
    (f"{RESULTS}/runs/*/seed0/*/*.json*", f"{CHECKPOINT}/complete.json", ("tune",)),
    (f"{RESULTS}/predictions/stf-mbtf/seed0/*", f"{RESULTS}/predictions/stf-mbtf/seed0/*", ("predict", "predict")),
    (f"{WORLD}/features/test/.*", f"{WORLD}/features/test/.rows*", ("features",)),
)


def _cases() -> list[tuple[str, Fault, str]]:
    """Return (name, fault, rule), mixed."""
    found = [(name, fault, rule) for name, fault, rules in PLAIN for rule in rules]
    found += [(f"damaged {pattern}", damaged(pattern), rule) for pattern, rules in READ for rule in rules]
    found += [(f"unfinished {left}", unfinished(left, seen), rule) for left, seen, rules in LEFT for rule in rules]
    random.Random(0).shuffle(found)
    return found


CASES = _cases()

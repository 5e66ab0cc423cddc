"""Verbs that answer questions, score answers, look inside models and measure them."""

from __future__ import annotations

import argparse
from pathlib import Path

from visiontokens.seals import alone, check, seal, sealing

BENCH_METHODS = (
    "none", "avgpool", "avgpool3", "avgpool-after", "stf", "mbtf", "stf-mbtf", "stf-mbtf-k3", "vcc-2-8", "vcc-2-4",
    "vcc-16-4", "progressive", "random-2-8", "kmeans-2-8", "fastv-2-8", "qformer-32", "prumerge-8", "prumerge-plus-8",
    "visionzip-64", "vistog-64",
)  # fmt: skip
"""Method files that `bench` times unless told otherwise, at 144 and 64 tokens where a method has them; of a registered
method that is not among them the first file that a row of the experiment table uses joins them."""


def predict(args: argparse.Namespace) -> None:
    """Answer every benchmark with one experiment's model; continues a killed run, and shares work under torchrun."""
    from visiontokens.config import load_config
    from visiontokens.data.integrity import check_inputs
    from visiontokens.evaluate.parts import Share
    from visiontokens.evaluate.predict import predict_experiment

    config, share = load_config(args.config), Share.chosen(args.shard)
    check_inputs(config, args.model)
    single = share.count == 1
    with alone(args.out, write=single), sealing(args.out, write=single):
        whole = predict_experiment(config, args.experiment, args.seed, args.model, args.out, share=share)
    if whole and not single:
        seal(args.out)


def validate(args: argparse.Namespace) -> None:
    """Score one experiment's model on the validation split."""
    from visiontokens.config import load_config
    from visiontokens.data.integrity import check_inputs
    from visiontokens.evaluate.validate import validate_experiment

    config = load_config(args.config)
    check_inputs(config, args.model)
    with sealing(args.out):
        validate_experiment(config, args.experiment, args.seed, args.model, args.out)


def score(args: argparse.Namespace) -> None:
    """Score a released answer file against official files and print JSON (no model needed)."""
    import json

    from visiontokens.config import JudgeConfig
    from visiontokens.evaluate.judge import make_judge
    from visiontokens.evaluate.scorefile import score_file
    from visiontokens.provenance import write_json

    if bool(args.judge_url) != bool(args.judge_model):
        raise ValueError("--judge-url and --judge-model: found one of them, expected both or none")
    named = {"url": args.judge_url, "model": args.judge_model, "key_env": args.judge_key_env, "cache": args.judge_cache}
    given = {key: value for key, value in named.items() if value is not None}
    found = score_file(
        args.benchmark, args.answers, args.data, policy=args.policy, runs=args.judge_runs,
        judge=make_judge(JudgeConfig.model_validate(given)) if args.judge_url else None,
    )  # fmt: skip
    if args.out:
        write_json(args.out, found)
    print(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False))


def score_run(args: argparse.Namespace) -> None:
    """Score the predictions of one experiment on every benchmark of the scale (no model needed)."""
    from visiontokens.config import load_config
    from visiontokens.data.integrity import check_world
    from visiontokens.evaluate.scoring import score_experiment

    config = load_config(args.config)
    check_world(config)
    check(args.predictions)
    with sealing(args.out):
        score_experiment(config, args.experiment, args.seed, args.predictions, args.out)


def submission(args: argparse.Namespace) -> None:
    """Write and check the upload file of a benchmark that its organisers' server scores."""
    import json

    from visiontokens.evaluate.submission import write_submission

    print(json.dumps(write_submission(args.benchmark, args.answers, args.data, args.out)))


def redundancy(args: argparse.Namespace) -> None:
    """Pool an un-retrained model's tokens and look inside it."""
    from visiontokens.analyze.redundancy import run_redundancy
    from visiontokens.config import load_config
    from visiontokens.data.integrity import check_inputs

    config = load_config(args.config)
    check_inputs(config, args.model)
    with sealing(args.out):
        run_redundancy(config, args.model, args.out)


def search(args: argparse.Namespace) -> None:
    """Search the per-layer schedule that an experiment's method asks for; continues a killed search."""
    from visiontokens.analyze.search import search
    from visiontokens.config import load_config
    from visiontokens.data.integrity import check_inputs

    config = load_config(args.config)
    check_inputs(config, args.model)
    with alone(args.run_dir), sealing(args.out):
        search(config, args.experiment, args.model, args.run_dir, args.out)


def explore(args: argparse.Namespace) -> None:
    """Trace where the patches of a few test images go, layer by layer, in every experiment's model."""
    from visiontokens.analyze.explorer import explore
    from visiontokens.config import load_config

    with sealing(args.out):
        explore(load_config(args.config), args.out)


def efficiency(args: argparse.Namespace) -> None:
    """Count and measure the cost of every experiment."""
    from visiontokens.config import load_config
    from visiontokens.measure.record import measure_all

    with sealing(args.out):
        measure_all(load_config(args.config), args.out)


def bench(args: argparse.Namespace) -> None:
    """Time every method beside transformers' LLaVA, random weights."""
    import torch

    from visiontokens.compress.base import MethodSpec
    from visiontokens.config import config_folder
    from visiontokens.measure.answers import check_identical
    from visiontokens.measure.bench import run_bench
    from visiontokens.report.bench import write_bench

    torch.set_num_threads(args.threads)
    folder = config_folder()
    names = args.methods or _benched(folder)
    methods = [(name, MethodSpec.from_yaml(folder / "methods" / f"{name}.yaml")) for name in names]
    records = run_bench(args.geometry, methods, repeats=args.repeats, attention=args.attention)
    print(write_bench(records, args.out))
    check_identical(records)


def _benched(folder: Path) -> list[str]:
    """Return the method files of the settings' folder that are timed by default."""
    from visiontokens.compress.base import MethodSpec
    from visiontokens.config import read_experiments

    rows = read_experiments(folder / "experiments.tsv").values()
    names = dict.fromkeys([*BENCH_METHODS, *(row.method for row in rows)])
    registered = {name: MethodSpec.from_yaml(folder / "methods" / f"{name}.yaml").name for name in names}
    known = {registered[name] for name in BENCH_METHODS}
    first = {registered[name]: name for name in reversed(names) if registered[name] not in known}
    return [*BENCH_METHODS, *(name for name in names if name in first.values())]

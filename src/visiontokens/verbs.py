"""What each verb of the command does: read its settings, call one function, print what a user waits for.

Libraries that take seconds to load are imported inside the verbs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from visiontokens.seals import alone, check, seal, sealing

BENCH_METHODS = (
    "none", "avgpool", "avgpool3", "avgpool-after", "stf", "mbtf", "stf-mbtf", "stf-mbtf-k3", "vcc-2-8", "vcc-2-4",
    "vcc-16-4", "progressive", "random-2-8", "kmeans-2-8", "fastv-2-8", "qformer-32", "prumerge-8", "prumerge-plus-8",
    "visionzip-64", "vistog-64",
)  # fmt: skip
"""Method files that `bench` times unless told otherwise, at 144 and 64 tokens where a method has them; of a registered
method that is not among them the first file that a row of the experiment table uses joins them."""
STOPPED = 75
"""Exit code of a run that stopped on request with a checkpoint (`EX_TEMPFAIL`: try again)."""


def world(args: argparse.Namespace) -> None:
    """Write the mini world in the official file formats."""
    from visiontokens.config import load_config
    from visiontokens.data.miniworld.build import build_world

    world = load_config(args.config).world
    if world is None:
        raise ValueError(f"{args.config[-1]}: key 'world': found null, expected sizes: these data are not generated")
    with alone(args.out):
        build_world(args.out, world)


def clips(args: argparse.Namespace) -> None:
    """Write the clips beside the mini world, in the formats of the video benchmarks."""
    from visiontokens.config import load_config
    from visiontokens.data.miniworld.video import build_clips

    sizes = load_config(args.config).video.clips
    if sizes is None:
        raise ValueError(f"{args.config[-1]}: key 'video.clips': found null, expected sizes: no clips are generated")
    with alone(args.out):
        build_clips(args.out, sizes, args.instructions)


def further(args: argparse.Namespace) -> None:
    """Write generated benchmarks beyond the nine of every mini world, in the official file formats."""
    from visiontokens.config import load_config
    from visiontokens.data.miniworld.further import build_further

    with alone(args.out):
        build_further(args.out, load_config(args.config).further, args.names)


def tower(args: argparse.Namespace) -> None:
    """Pretrain the mini vision tower from nothing."""
    from visiontokens.config import load_config
    from visiontokens.train.backbones.tower import pretrain_tower

    with sealing(args.out):
        pretrain_tower(load_config(args.config).backbones.pretrain_tower, args.out)


def llm(args: argparse.Namespace) -> None:
    """Pretrain the mini language model from nothing."""
    from visiontokens.train.backbones.llm import pretrain_llm

    check(args.tower)
    with alone(args.run_dir), sealing(args.out):
        pretrain_llm(args.out, args.run_dir, args.tower)


def features(args: argparse.Namespace) -> None:
    """Compute the frozen tower's features of one image set."""
    from visiontokens.config import load_config
    from visiontokens.data.featurize import featurize
    from visiontokens.data.integrity import check_images

    config = load_config(args.config)
    check_images(config, args.image_set)
    check(config.backbones.tower)
    folder = config.data_dir / "features" / args.image_set
    with alone(folder), sealing(folder):
        featurize(config, args.image_set, args.workers)


def class_states(args: argparse.Namespace) -> None:
    """Compute what some methods need besides the features of one image set: CLS and the levels left out there."""
    from visiontokens.config import load_config
    from visiontokens.data.class_states import class_folder, class_states
    from visiontokens.data.integrity import check_images

    config = load_config(args.config)
    check_images(config, args.image_set)
    check(config.backbones.tower)
    folder = class_folder(config.data_dir / "features" / args.image_set)
    with alone(folder), sealing(folder):
        class_states(config, args.image_set)


def train(args: argparse.Namespace) -> None:
    """Run one training stage of one experiment; continues a killed run."""
    from visiontokens.config import load_config
    from visiontokens.data.integrity import check_inputs
    from visiontokens.report.card import write_card
    from visiontokens.train.processes import Processes, Stopped
    from visiontokens.train.trainer import train_stage

    config = load_config(args.config)
    check_inputs(config, args.init)
    first = Processes.from_environment().first
    with alone(args.run_dir, write=first), sealing(args.out, write=first):
        try:
            train_stage(
                config, args.experiment, args.seed, args.stage, run_dir=args.run_dir, out=args.out, init=args.init
            )
        except Stopped as stopped:
            logging.getLogger(__name__).info("%s", stopped)
            sys.exit(STOPPED)
        if first:
            write_card(args.out, bases=[config.backbones.llm, config.backbones.tower])


def download(args: argparse.Namespace) -> None:
    """Fetch official data and weights that are missing, and verify them."""
    from visiontokens.config import load_config
    from visiontokens.data.fetch import fetch_all
    from visiontokens.data.registry import choose, needed, read_registry

    config = load_config(args.config)
    entries = read_registry(config.downloads.registry)
    fetch_all(config, choose(entries, needed(config, entries), args.role, args.name), args.receipt)


def inspect(args: argparse.Namespace) -> None:
    """Check official files: revision, counts, missing images."""
    from visiontokens.config import load_config
    from visiontokens.data.official import inspect_benchmark, inspect_benchmarks, inspect_stage
    from visiontokens.data.registry import read_registry
    from visiontokens.provenance import write_json

    config = load_config(args.config)
    if args.part in ("align", "tune"):
        inspect_stage(config, args.part, args.out, args.missing)
    elif args.part == "benchmarks":
        inspect_benchmarks(config, args.out)
    else:
        write_json(args.out, inspect_benchmark(config, read_registry(config.downloads.registry), args.part))


def plan(args: argparse.Namespace) -> None:
    """List jobs, GPU-hours, disk and downloads of what is left to run, offline."""
    from visiontokens.measure.plan import plan

    print(plan(args.config, everything=args.everything), end="")


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


def ask(args: argparse.Namespace) -> None:
    """Ask a model about an image."""
    from visiontokens.config import config_folder
    from visiontokens.evaluate.ask import ask
    from visiontokens.models.library import resolve

    described = config_folder() / "methods" / f"{args.method}.yaml"
    method = described if args.method and args.budget is None and described.is_file() else args.method
    answer = ask(_weights(resolve(args.model)), args.image, args.question, method, budget=args.budget)
    print(answer.text)
    tokens = f"{answer.mean_tokens:.0f} of {answer.full_tokens} vision tokens per layer"
    print(f"{tokens}, first token after {1000 * answer.seconds_to_first_token:.0f} ms ({answer.method})")


def convert(args: argparse.Namespace) -> None:
    """Convert a checkpoint from one layout to another."""
    from visiontokens.models.convert import convert
    from visiontokens.report.card import write_card

    done = convert(
        args.source, args.out, layout=args.format, target=args.to, tower=args.tower, llm=args.llm,
        tokenizer=args.tokenizer,
    )  # fmt: skip
    if args.to in {"ours", "llava-hf"}:
        write_card(args.out)
    what = f"{done.tensors} tensors, {done.bytes / 1e9:.2f} GB, method {done.method.name}"
    print(f"{done.source_format} -> {done.target_format}: {what} -> {args.out}")


def card(args: argparse.Namespace) -> None:
    """Write the model card of a folder from its records."""
    from visiontokens.report.card import write_card

    print(write_card(_weights(args.model), scores=args.scores))


def _weights(model: Path) -> Path:
    """Return the folder with weights: `model` itself, or the tuned weights of seed 0 of an experiment's folder."""
    return model / "seed0" / "tune" if (model / "seed0").is_dir() else model


def readme(args: argparse.Namespace) -> None:
    """Put the results of a finished run into README.md."""
    from visiontokens.config import load_config
    from visiontokens.report.readme import update_readme

    update_readme(load_config(args.config), args.readme, args.figures)


def methods(args: argparse.Namespace) -> None:
    """Write the table of all methods into its page, and a figure of where each acts."""
    from visiontokens.report.figures.methods import save_schematics
    from visiontokens.report.methods import all_facts, update_methods

    save_schematics(all_facts(), args.figures)
    print(update_methods(args.page))


def verify(args: argparse.Namespace) -> None:
    """Judge every claim of the papers by the results of a scale: PASS, FAIL or NOT RUN, with the numbers."""
    import shutil

    from visiontokens.config import load_config
    from visiontokens.verify.ledger import Ledger

    config = load_config(args.config)
    out = args.out or config.results_dir / "verify"
    ledger = Ledger.of(config)
    ledger.write(out)
    print(ledger.terminal(shutil.get_terminal_size((150, 24)).columns))
    print(f"With every number, interval and arithmetic: {out / 'ledger.html'}")


def claims(args: argparse.Namespace) -> None:
    """Write the table of claims into the artifact appendix."""
    from visiontokens.verify.appendix import update_claims

    print(update_claims(args.page))


def metadata(args: argparse.Namespace) -> None:
    """Write what archives read about this repository: ro-crate-metadata.json and .zenodo.json."""
    from visiontokens.report.crate import write_metadata

    for path in write_metadata(args.folder):
        print(path)


def notebook(args: argparse.Namespace) -> None:
    """Execute one notebook and render it."""
    from visiontokens.config import load_config
    from visiontokens.data.integrity import check_results
    from visiontokens.report.render import run_notebook

    config = load_config(args.config)
    check_results(config)
    out = args.out or config.results_dir / "paper"
    run_notebook(args.notebook, args.executed, args.html, out, args.config)


def summary(args: argparse.Namespace) -> None:
    """Write the summary table, headline metrics, and the trained rows' model cards."""
    from visiontokens.config import load_config
    from visiontokens.data.integrity import check_results
    from visiontokens.report.card import write_cards
    from visiontokens.report.render import summary

    config = load_config(args.config)
    check_results(config)
    summary(config, args.out)
    write_cards(config, args.out / "cards")


def site(args: argparse.Namespace) -> None:
    """Write the static site of a run: every result as pages that open from a folder."""
    from visiontokens.config import load_config
    from visiontokens.report.site.build import build_site

    print(build_site(load_config(args.config), args.out))


def config_generate(args: argparse.Namespace) -> None:
    """Write config.yaml and schema.json."""
    from visiontokens.config.generate import write_generated

    for path in write_generated(args.folder):
        print(path)


def config_schema(args: argparse.Namespace) -> None:
    """Print the JSON schema of the settings."""
    from visiontokens.config.generate import schema_json

    print(schema_json(), end="")


def config_check(args: argparse.Namespace) -> None:
    """Check settings and tables, and list what would run."""
    from visiontokens.config import load_benchmarks, load_config, load_experiments, load_pooling, seeds_of

    config = load_config(args.files)
    rows = load_experiments(config)
    print(
        f"scale {config.scale}: {len(load_benchmarks(config))} benchmarks, {len(load_pooling(config))} pooling points"
    )
    for name, row in rows.items():
        weights = f"weights of {row.weights_from}" if row.weights_from else f"trained as {row.train_method}"
        schedule = f", schedule {row.schedule}" if row.schedule else ""
        seeds = len(seeds_of(config, rows, name))
        print(f"  {name}: {row.method}, {weights}{schedule}, {seeds} seed{'s' * (seeds != 1)}")


def records_export(args: argparse.Namespace) -> None:
    """Write .snakemake's records to one sorted file without times."""
    from visiontokens.records import export_records

    print(f"{export_records(args.file)} records -> {args.file}")


def records_restore(args: argparse.Namespace) -> None:
    """Bring exported records back after a clone."""
    from visiontokens.records import restore_records

    print(f"{restore_records(args.file)} records restored from {args.file}")

"""The command `visiontokens`: one verb per workflow rule, and nothing but argument parsing.

Libraries that take seconds to load are imported inside the verbs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from visiontokens import __version__

Verb = Callable[[argparse.Namespace], None]
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
"""Environment of every verb unless set otherwise: logs hold our lines, not bars of loaded weights."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return 0, or 2 after an error in what the user gave (printed as one line)."""
    args = build_parser().parse_args(argv)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        args.verb(args)
    except (ValueError, FileNotFoundError) as err:
        if args.traceback:
            raise
        print(f"visiontokens {args.name}: {' '.join(str(err).splitlines())}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every verb."""
    parser = argparse.ArgumentParser(prog="visiontokens", description="Compact vision tokens, step by step.")
    parser.add_argument("--version", action="version", version=f"visiontokens {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error arose")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, dest="name")
    _add_making(verbs)
    _add_running(verbs)
    _add_checkpoints(verbs)
    _add_reporting(verbs)
    _add_housekeeping(verbs)
    return parser


def _add_making(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs that make data, backbones, features and weights."""
    world = _verb(verbs, "world", _world, "write the mini world in the official file formats")
    _paths(world, out="the data folder")
    tower = _verb(verbs, "tower", _tower, "pretrain the mini vision tower from nothing")
    _paths(tower, out="folder for the tower")
    llm = _verb(verbs, "llm", _llm, "pretrain the mini language model from nothing", config=False)
    _run_dir(llm)
    llm.add_argument("--tower", required=True, type=Path, help="folder of the vision tower that it reads at the end")
    _paths(llm, out="folder for the language model")
    features = _verb(verbs, "features", _features, "compute the frozen tower's features of one image set")
    features.add_argument("--set", required=True, help="image set in images.tsv", dest="image_set")
    features.add_argument("--workers", type=int, default=1, help="processes that share the images")
    train = _verb(verbs, "train", _train, "run one training stage of one experiment; continues a killed run")
    _experiment(train)
    train.add_argument("--stage", required=True, choices=("align", "tune"))
    _run_dir(train)
    train.add_argument("--init", type=Path, help="folder with the weights to start from")
    _paths(train, out="folder for the final weights and the record")


def _add_running(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs that evaluate and measure."""
    predict = _verb(verbs, "predict", _predict, "answer every benchmark with one experiment's model")
    _experiment(predict)
    _model(predict)
    _paths(predict, out="folder for one JSONL file per benchmark")
    validate = _verb(verbs, "validate", _validate, "score one experiment's model on the validation split")
    _experiment(validate)
    _model(validate)
    _paths(validate, out="the JSON file to write")
    score = _verb(verbs, "score", _score, "score a folder of predictions (no model needed)")
    _experiment(score)
    score.add_argument("--predictions", required=True, type=Path, help="folder with one JSONL file per benchmark")
    _paths(score, out="folder for scores and per-question records")
    redundancy = _verb(verbs, "redundancy", _redundancy, "pool an un-retrained model's tokens and look inside it")
    _model(redundancy)
    _paths(redundancy, out="folder for the curves")
    efficiency = _verb(verbs, "efficiency", _efficiency, "count and measure the cost of every experiment")
    _paths(efficiency, out="folder for one JSON file per experiment")
    ask = _verb(verbs, "ask", _ask, "ask a model about an image", config=False)
    ask.add_argument("--model", required=True, help="folder with trained or published weights, or their id on the hub")
    ask.add_argument("--image", type=Path, required=True, help="image file")
    ask.add_argument(
        "--method", help="method at test time, if not the trained one: its name, or config/methods/<id>.yaml"
    )
    ask.add_argument(
        "--budget", type=float, help="vision tokens to spend, averaged over layers; --method is then a name"
    )
    ask.add_argument("question")


def _add_checkpoints(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs that bring checkpoints in and out."""
    convert = _verb(verbs, "convert", _convert, "convert a checkpoint from one layout to another", config=False)
    convert.add_argument("--source", required=True, type=Path, help="folder or file")
    _paths(convert, out="folder to make")
    formats = ("llava", "llava-hf", "stf", "stf-projector", "ours")
    convert.add_argument("--format", default="auto", choices=("auto", *formats), help="layout of the source")
    convert.add_argument("--to", default="ours", choices=formats, help="layout to write")
    convert.add_argument("--tower", type=Path, help="CLIP folder, if the source does not hold the vision tower")
    convert.add_argument("--llm", type=Path, help="LLaMA folder, for projectors alone")
    convert.add_argument("--tokenizer", type=Path, help="folder of the tokenizer, if it is not with the weights")
    card = _verb(verbs, "card", _card, "write the model card of a folder from its records", config=False)
    card.add_argument("--model", required=True, type=Path, help="folder with weights")
    card.add_argument("--scores", type=Path, help="folder with one JSON file of scores per benchmark")


def _add_reporting(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs that make what people read."""
    notebook = _verb(verbs, "notebook", _notebook, "execute one notebook and render it")
    notebook.add_argument("notebook", type=Path)
    notebook.add_argument("--executed", required=True, type=Path, help="the executed notebook, kept also on failure")
    notebook.add_argument("--html", required=True, type=Path, help="the rendered page")
    notebook.add_argument("--out", type=Path, help="folder for the notebook's tables and figures")
    summary = _verb(verbs, "summary", _summary, "write the summary table, headline metrics and the page of all results")
    _paths(summary, out="folder for summary.txt, summary.csv, metrics.json and index.html")
    readme = _verb(verbs, "readme", _readme, "put the results of a finished run into README.md")
    readme.add_argument("--readme", type=Path, default=Path("README.md"))
    readme.add_argument("--figures", type=Path, default=Path("docs/figures"), help="folder for the figures it shows")


def _add_housekeeping(verbs: argparse._SubParsersAction) -> None:
    """Add the verbs for settings and for the workflow's records."""
    config = verbs.add_parser("config", help="settings: generate the files in config/, write, check")
    actions = config.add_subparsers(title="actions", metavar="ACTION", required=True, dest="action")
    generate = _verb(actions, "generate", _config_generate, "write config.yaml and schema.json", config=False)
    generate.add_argument("--folder", type=Path, default=Path("config"))
    _verb(actions, "schema", _config_schema, "print the JSON schema of the settings", config=False)
    check = _verb(actions, "check", _config_check, "check settings and tables, and list what would run", config=False)
    check.add_argument("files", nargs="*", type=Path, default=[Path("config/config.yaml")])
    records = verbs.add_parser("provenance", help="the workflow's own records: export to one file, restore")
    actions = records.add_subparsers(title="actions", metavar="ACTION", required=True, dest="action")
    for name, verb, text in (
        ("export", _records_export, "write .snakemake's records to one sorted file without times"),
        ("restore", _records_restore, "bring exported records back after a clone"),
    ):
        action = _verb(actions, name, verb, text, config=False)
        action.add_argument("file", type=Path)


def _verb(
    verbs: argparse._SubParsersAction, name: str, verb: Verb, text: str, *, config: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(verb=verb)
    if config:
        parser.add_argument("--config", required=True, nargs="+", help="settings file; later ones override earlier")
    return parser


def _paths(parser: argparse.ArgumentParser, *, out: str) -> None:
    parser.add_argument("--out", required=True, type=Path, help=out)


def _run_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run-dir", required=True, type=Path, help="folder for checkpoints; a killed run continues")


def _experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--experiment", required=True, help="id in config/experiments.tsv")
    parser.add_argument("--seed", type=int, default=0)


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, type=Path, help="folder with trained weights")


def _world(args: argparse.Namespace) -> None:
    from visiontokens.config import load_config
    from visiontokens.data.miniworld.build import build_world

    world = load_config(args.config).world
    if world is None:
        raise ValueError(f"{args.config[-1]}: key 'world': found null, expected sizes: these data are not generated")
    build_world(args.out, world)


def _tower(args: argparse.Namespace) -> None:
    from visiontokens.config import load_config
    from visiontokens.train.backbones.tower import pretrain_tower

    pretrain_tower(load_config(args.config).backbones.pretrain_tower, args.out)


def _llm(args: argparse.Namespace) -> None:
    from visiontokens.train.backbones.llm import pretrain_llm

    pretrain_llm(args.out, args.run_dir, args.tower)


def _features(args: argparse.Namespace) -> None:
    from visiontokens.config import load_config
    from visiontokens.data.featurize import featurize

    featurize(load_config(args.config), args.image_set, args.workers)


def _train(args: argparse.Namespace) -> None:
    from visiontokens.config import load_config
    from visiontokens.report.card import write_card
    from visiontokens.train.trainer import train_stage

    config = load_config(args.config)
    train_stage(config, args.experiment, args.seed, args.stage, run_dir=args.run_dir, out=args.out, init=args.init)
    write_card(args.out, bases=[config.backbones.llm, config.backbones.tower])


def _predict(args: argparse.Namespace) -> None:
    from visiontokens.config import load_config
    from visiontokens.evaluate.predict import predict_experiment

    predict_experiment(load_config(args.config), args.experiment, args.seed, args.model, args.out)


def _validate(args: argparse.Namespace) -> None:
    from visiontokens.config import load_config
    from visiontokens.evaluate.validate import validate_experiment

    validate_experiment(load_config(args.config), args.experiment, args.seed, args.model, args.out)


def _score(args: argparse.Namespace) -> None:
    from visiontokens.config import load_config
    from visiontokens.evaluate.scoring import score_experiment

    score_experiment(load_config(args.config), args.experiment, args.seed, args.predictions, args.out)


def _redundancy(args: argparse.Namespace) -> None:
    from visiontokens.analyze.redundancy import run_redundancy
    from visiontokens.config import load_config

    run_redundancy(load_config(args.config), args.model, args.out)


def _efficiency(args: argparse.Namespace) -> None:
    from visiontokens.config import load_config
    from visiontokens.measure.record import measure_all

    measure_all(load_config(args.config), args.out)


def _ask(args: argparse.Namespace) -> None:
    from visiontokens.evaluate.ask import ask
    from visiontokens.models.library import resolve

    described = Path("config/methods") / f"{args.method}.yaml"
    method = described if args.method and args.budget is None and described.is_file() else args.method
    answer = ask(_weights(resolve(args.model)), args.image, args.question, method, budget=args.budget)
    print(answer.text)
    tokens = f"{answer.mean_tokens:.0f} of {answer.full_tokens} vision tokens per layer"
    print(f"{tokens}, first token after {1000 * answer.seconds_to_first_token:.0f} ms ({answer.method})")


def _convert(args: argparse.Namespace) -> None:
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


def _card(args: argparse.Namespace) -> None:
    from visiontokens.report.card import write_card

    print(write_card(_weights(args.model), scores=args.scores))


def _weights(model: Path) -> Path:
    """Return the folder with weights: `model` itself, or the tuned weights of seed 0 of an experiment's folder."""
    return model / "seed0" / "tune" if (model / "seed0").is_dir() else model


def _readme(args: argparse.Namespace) -> None:
    from visiontokens.config import load_config
    from visiontokens.report.readme import update_readme

    update_readme(load_config(args.config), args.readme, args.figures)


def _notebook(args: argparse.Namespace) -> None:
    from visiontokens.config import load_config
    from visiontokens.report.render import run_notebook

    out = args.out or load_config(args.config).results_dir / "paper"
    run_notebook(args.notebook, args.executed, args.html, out, args.config)


def _summary(args: argparse.Namespace) -> None:
    from visiontokens.config import load_config
    from visiontokens.report.render import summary

    summary(load_config(args.config), args.out)


def _config_generate(args: argparse.Namespace) -> None:
    from visiontokens.config.generate import write_generated

    for path in write_generated(args.folder):
        print(path)


def _config_schema(args: argparse.Namespace) -> None:
    from visiontokens.config.generate import schema_json

    print(schema_json(), end="")


def _config_check(args: argparse.Namespace) -> None:
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


def _records_export(args: argparse.Namespace) -> None:
    from visiontokens.records import export_records

    print(f"{export_records(args.file)} records -> {args.file}")


def _records_restore(args: argparse.Namespace) -> None:
    from visiontokens.records import restore_records

    print(f"{restore_records(args.file)} records restored from {args.file}")


if __name__ == "__main__":
    sys.exit(main())

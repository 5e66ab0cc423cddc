"""The command `visiontokens`: one verb per workflow rule, and nothing but argument parsing.

What a verb does is in `verbs`; its docstring is the help text.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import os
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path

from safetensors import SafetensorError

from visiontokens import __version__
from visiontokens.verbs import answering, checkpoints, making, showing

Verb = Callable[[argparse.Namespace], None]
QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
"""Environment of every verb unless set otherwise: logs hold our lines, not bars of loaded weights."""
ALONE = ("ask", "bench", "card", "convert", "score")
"""Verbs that need no checkout: an installed package runs them in any folder."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return 0, or 2 after an error in what the user gave (printed as one line).

    Of several processes only the first one speaks, but for warnings.
    """
    args = build_parser().parse_args(argv)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    first = os.environ.get("RANK", "0") == "0"
    for stream in (sys.stdout, sys.stderr):  # a locale without the letters of a table must not end a run
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO if first else logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        args.verb(args)
    except (ValueError, OSError, SafetensorError) as err:
        if args.traceback:
            raise
        if first:
            print(f"visiontokens {args.name}: {' '.join(str(err).splitlines())}{_outside(args, err)}", file=sys.stderr)
        return 2
    return 0


def _outside(args: argparse.Namespace, err: Exception) -> str:
    """Return the end of an error message: where a file is missing because this folder is no checkout, that it is."""
    from visiontokens.config import in_checkout

    if args.name in ALONE or not isinstance(err, FileNotFoundError) or in_checkout():
        return ""
    return (
        f" ('{args.name}' is a part of the workflow and runs in a checkout of the repository, which this folder is not;"
        f" anywhere: {', '.join(ALONE)})"
    )


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every verb."""
    parser = argparse.ArgumentParser(prog="visiontokens", description="Compact vision tokens, step by step.")
    parser.add_argument("--version", action="version", version=f"visiontokens {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error arose")
    parsers = parser.add_subparsers(title="verbs", metavar="VERB", required=True, dest="name")
    _add_making(parsers)
    _add_official(parsers)
    _add_running(parsers)
    _add_scoring(parsers)
    _add_checkpoints(parsers)
    _add_reporting(parsers)
    _add_housekeeping(parsers)
    return parser


def _add_making(parsers: argparse._SubParsersAction) -> None:
    """Add the verbs that make data, backbones, features and weights."""
    world = _verb(parsers, "world", making.world)
    _paths(world, out="the data folder")
    clips = _verb(parsers, "clips", making.clips)
    clips.add_argument("--instructions", required=True, type=Path, help="image mix of which some records join")
    _paths(clips, out="the data folder")
    further = _verb(parsers, "further", making.further)
    further.add_argument("names", nargs="+", help="benchmarks to write: seed, mmmu")
    _paths(further, out="the data folder")
    tower = _verb(parsers, "tower", making.tower)
    _paths(tower, out="folder for the tower")
    llm = _verb(parsers, "llm", making.llm, config=False)
    _run_dir(llm)
    llm.add_argument("--tower", required=True, type=Path, help="folder of the vision tower that it reads at the end")
    _paths(llm, out="folder for the language model")
    features = _verb(parsers, "features", making.features)
    features.add_argument("--set", required=True, help="image set in images.tsv", dest="image_set")
    features.add_argument("--workers", type=int, default=1, help="processes that share the images")
    states = _verb(parsers, "class-states", making.class_states)
    states.add_argument("--set", required=True, help="image set in images.tsv", dest="image_set")
    train = _verb(parsers, "train", making.train)
    _experiment(train)
    train.add_argument("--stage", required=True, choices=("align", "tune"))
    _run_dir(train)
    train.add_argument("--init", type=Path, help="folder with the weights to start from")
    _paths(train, out="folder for the final weights and the record")


def _add_official(parsers: argparse._SubParsersAction) -> None:
    """Add the verbs for official data and weights, and for what a run costs."""
    download = _verb(parsers, "download", making.download)
    download.add_argument("--role", action="append", default=[], help="only this role (column in data/registry.tsv)")
    download.add_argument("--name", action="append", default=[], help="this entry, also if the scale does not use it")
    download.add_argument("--receipt", type=Path, help="where the receipt of a single entry goes")
    inspected = _verb(parsers, "inspect", making.inspect)
    inspected.add_argument("--part", required=True, help="align, tune, benchmarks, or one benchmark")
    inspected.add_argument("--out", required=True, type=Path, help="the annotation file or record to write")
    inspected.add_argument("--missing", type=Path, default=Path("missing.txt"), help="list of missing images")
    plan = _verb(parsers, "plan", making.plan)
    plan.add_argument("--all", action="store_true", dest="everything", help="as if nothing had run")


def _add_running(parsers: argparse._SubParsersAction) -> None:
    """Add the verbs that evaluate and measure."""
    predict = _verb(parsers, "predict", answering.predict)
    _experiment(predict)
    _model(predict)
    predict.add_argument(
        "--shard", metavar="I/N", help="answer share I (from 0) of N; the last of the N runs joins their answers"
    )
    _paths(predict, out="folder for one JSONL file per benchmark")
    validate = _verb(parsers, "validate", answering.validate)
    _experiment(validate)
    _model(validate)
    _paths(validate, out="the JSON file to write")
    score_run = _verb(parsers, "score-run", answering.score_run)
    _experiment(score_run)
    score_run.add_argument("--predictions", required=True, type=Path, help="folder with one JSONL file per benchmark")
    _paths(score_run, out="folder for scores and per-question records")
    submission = _verb(parsers, "submission", answering.submission, config=False)
    submission.add_argument("benchmark", help="vqav2, vizwiz, mmbench, mmbench_cn, seed or mmmu")
    submission.add_argument("--answers", required=True, type=Path, help="answer file")
    submission.add_argument("--data", required=True, type=Path, help="folder that holds the benchmarks' folders")
    _paths(submission, out="the file to upload")
    redundancy = _verb(parsers, "redundancy", answering.redundancy)
    _model(redundancy)
    _paths(redundancy, out="folder for the curves")
    explore = _verb(parsers, "explore", answering.explore)
    _paths(explore, out="folder for the questions and one JSON file per experiment")
    search = _verb(parsers, "search", answering.search)
    search.add_argument("--experiment", required=True, help="id in config/experiments.tsv")
    _model(search)
    _run_dir(search)
    _paths(search, out="the JSON file to write")
    efficiency = _verb(parsers, "efficiency", answering.efficiency)
    _paths(efficiency, out="folder for one JSON file per experiment")
    bench = _verb(parsers, "bench", answering.bench, config=False)
    bench.add_argument("--geometry", default="auto", help="7b, 13b (GPU) or cpu; auto: 7b on a GPU, else cpu")
    bench.add_argument("--methods", nargs="+", help="ids in config/methods; default: one per method, and 64 tokens")
    bench.add_argument("--repeats", type=int, default=0, help="timed rounds; 0 = the geometry's own number")
    bench.add_argument("--threads", type=int, default=2, help="CPU threads")
    bench.add_argument("--attention", default="auto", help="kernel: auto, sdpa, flash_attention_2, flash_attention_3")
    _paths(bench, out="folder for <geometry>.csv and <geometry>.md")
    ask = _verb(parsers, "ask", checkpoints.ask, config=False)
    ask.add_argument("--model", required=True, help="folder with trained or published weights, or their id on the hub")
    ask.add_argument("--image", type=Path, required=True, help="image file")
    ask.add_argument(
        "--method", help="method at test time, if not the trained one: its name, or config/methods/<id>.yaml"
    )
    ask.add_argument(
        "--budget", type=float, help="vision tokens to spend, averaged over layers; --method is then a name"
    )
    ask.add_argument("question")


def _add_scoring(parsers: argparse._SubParsersAction) -> None:
    """Add the verb that scores answers of whatever model; docs/benchmarks.md lists formats and policies."""
    score = _verb(parsers, "score", answering.score, config=False)
    score.add_argument("benchmark", metavar="BENCHMARK", help="vqav2, gqa, ...: see docs/benchmarks.md")
    score.add_argument("--answers", required=True, type=Path, help="answer file as released; MME: or the tool's folder")
    score.add_argument("--data", required=True, type=Path, help="folder of the official files, or the one above it")
    score.add_argument(
        "--policy", default="official",
        help="official: quirks of official scripts as published numbers have them (default); correct: what the scripts "
        "mean; mvbench also stf: LLaVA-STF's own rule",
    )  # fmt: skip
    score.add_argument("--out", type=Path, help="also write the JSON object to this file")
    score.add_argument("--judge-url", help="OpenAI-compatible endpoint that judges free answers, up to /v1")
    score.add_argument("--judge-model", help="the judge's name there; without a judge a labelled stand-in replies")
    score.add_argument("--judge-key-env", help="environment variable that holds the key (OPENAI_API_KEY)")
    score.add_argument("--judge-cache", type=Path, help="file of replies (data/judge/replies.jsonl)")
    score.add_argument("--judge-runs", type=int, default=1, help="times that every answer is judged")


def _add_checkpoints(parsers: argparse._SubParsersAction) -> None:
    """Add the verbs that bring checkpoints in and out."""
    convert = _verb(parsers, "convert", checkpoints.convert, config=False)
    convert.add_argument("--source", required=True, type=Path, help="folder or file")
    _paths(convert, out="folder to make")
    formats = ("llava", "llava-hf", "stf", "stf-projector", "ours")
    convert.add_argument("--format", default="auto", choices=("auto", *formats), help="layout of the source")
    convert.add_argument("--to", default="ours", choices=formats, help="layout to write")
    convert.add_argument("--tower", type=Path, help="CLIP folder, if the source does not hold the vision tower")
    convert.add_argument("--llm", type=Path, help="LLaMA folder, for projectors alone")
    convert.add_argument("--tokenizer", type=Path, help="folder of the tokenizer, if it is not with the weights")
    card = _verb(parsers, "card", checkpoints.card, config=False)
    card.add_argument("--model", required=True, type=Path, help="folder with weights")
    card.add_argument("--scores", type=Path, help="folder with one JSON file of scores per benchmark")


def _add_reporting(parsers: argparse._SubParsersAction) -> None:
    """Add the verbs that make what people read."""
    notebook = _verb(parsers, "notebook", showing.notebook)
    notebook.add_argument("notebook", type=Path)
    notebook.add_argument("--executed", required=True, type=Path, help="the executed notebook, kept also on failure")
    notebook.add_argument("--html", required=True, type=Path, help="the rendered page")
    notebook.add_argument("--out", type=Path, help="folder for the notebook's tables and figures")
    summary = _verb(parsers, "summary", showing.summary)
    _paths(summary, out="folder for summary.txt, summary.csv, metrics.json and the cards")
    site = _verb(parsers, "site", showing.site)
    _paths(site, out="folder of the site")
    readme = _verb(parsers, "readme", showing.readme)
    readme.add_argument("--readme", type=Path, default=Path("README.md"))
    readme.add_argument("--figures", type=Path, default=Path("docs/figures"), help="folder for the figures it shows")
    verify = _verb(parsers, "verify", showing.verify)
    verify.add_argument("--out", type=Path, help="folder for the ledger; default results/<scale>/verify")
    claims = _verb(parsers, "claims", showing.claims, config=False)
    claims.add_argument("--page", type=Path, default=Path("ARTIFACT.md"))
    methods = _verb(parsers, "methods", showing.methods, config=False)
    methods.add_argument("--page", type=Path, default=Path("docs/methods.md"))
    methods.add_argument("--figures", type=Path, default=Path("docs/figures/methods"), help="folder, one file a method")


def _add_housekeeping(parsers: argparse._SubParsersAction) -> None:
    """Add the verbs for settings and for the workflow's records."""
    metadata = _verb(parsers, "metadata", showing.metadata, config=False)
    metadata.add_argument("--folder", type=Path, default=Path(), help="the checkout")
    config = parsers.add_parser("config", help="settings: generate the files in config/, write, check")
    actions = config.add_subparsers(title="actions", metavar="ACTION", required=True, dest="action")
    generate = _verb(actions, "generate", showing.config_generate, config=False)
    generate.add_argument("--folder", type=Path, default=Path("config"))
    _verb(actions, "schema", showing.config_schema, config=False)
    check = _verb(actions, "check", showing.config_check, config=False)
    check.add_argument("files", nargs="*", type=Path, default=[Path("config/config.yaml")])
    records = parsers.add_parser("provenance", help="the workflow's own records: export to one file, restore")
    actions = records.add_subparsers(title="actions", metavar="ACTION", required=True, dest="action")
    for name, verb in (("export", showing.records_export), ("restore", showing.records_restore)):
        action = _verb(actions, name, verb, config=False)
        action.add_argument("file", type=Path)
    store = parsers.add_parser("published", help="finished runs without weights, in git: pack, unpack, list")
    actions = store.add_subparsers(title="actions", metavar="ACTION", required=True, dest="action")
    for name, verb in (
        ("pack", showing.published_pack), ("unpack", showing.published_unpack), ("list", showing.published_list)
    ):  # fmt: skip
        action = _verb(actions, name, verb)
        action.add_argument("--store", type=Path, help="folder of the archives; default results/published/<scale>")


def _verb(
    parsers: argparse._SubParsersAction, name: str, verb: Verb, *, config: bool = True
) -> argparse.ArgumentParser:
    text = inspect.getdoc(verb) or ""
    parser: argparse.ArgumentParser = parsers.add_parser(
        name, help=text[:1].lower() + text[1:].rstrip("."), description=text
    )
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


if __name__ == "__main__":
    sys.exit(main())

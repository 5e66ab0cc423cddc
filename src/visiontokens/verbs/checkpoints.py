"""Verbs about one checkpoint: convert it, describe it, ask it."""

from __future__ import annotations

import argparse
from pathlib import Path


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


def card(args: argparse.Namespace) -> None:
    """Write the model card of a folder from its records."""
    from visiontokens.report.card import write_card

    print(write_card(_weights(args.model), scores=args.scores))


def _weights(model: Path) -> Path:
    """Return the folder with weights: `model` itself, or the tuned weights of seed 0 of an experiment's folder."""
    return model / "seed0" / "tune" if (model / "seed0").is_dir() else model

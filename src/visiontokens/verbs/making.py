"""Verbs that make data, backbones, features and weights, and those of official files."""

from __future__ import annotations

import argparse
import logging
import sys

from visiontokens.seals import alone, check, sealing

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

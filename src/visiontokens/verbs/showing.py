"""Verbs that make what people read, and keep settings and records."""

from __future__ import annotations

import argparse
from pathlib import Path


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


def published_pack(args: argparse.Namespace) -> None:
    """Write finished runs, without their weights, as archives that travel with the repository."""
    from visiontokens.analyze.published import pack
    from visiontokens.config import load_config

    config = load_config(args.config)
    paths = pack(config.results_dir, args.store or _store(config.scale))
    print(f"{len(paths)} archives, {sum(path.stat().st_size for path in paths) / 1e6:.1f} MB -> {paths[0].parent}")


def published_unpack(args: argparse.Namespace) -> None:
    """Bring published runs back into the results of a scale, to be looked at, tabled and scored anew."""
    from visiontokens.analyze.published import ARCHIVES, unpack
    from visiontokens.config import load_config

    config = load_config(args.config)
    store = args.store or _store(config.scale)
    archives = sorted(store.glob(ARCHIVES))
    if not archives:
        raise FileNotFoundError(f"{store}: nothing is published there, expected {ARCHIVES}")
    print(f"{unpack(archives, config.results_dir)} files from {len(archives)} archives -> {config.results_dir}")


def published_list(args: argparse.Namespace) -> None:
    """Print the ids of the experiments of a scale that are published with all their seeds, as `experiments.only`."""
    from visiontokens.analyze.published import published
    from visiontokens.config import load_config, load_experiments, seeds_of

    config = load_config(args.config)
    there = set(published(args.store or _store(config.scale)))
    rows = load_experiments(config)
    whole = [name for name in rows if {(name, seed) for seed in seeds_of(config, rows, name)} <= there]
    print(",".join(whole))


def _store(scale: str) -> Path:
    return Path("results/published", scale)

"""The whole `reviewer` scale, offline, on a tiny checkpoint and benchmark files that a user has placed already.

Nothing is stood in for: the rules that fetch, check, answer, score, measure and render are those of the real run, and
so are the scale's benchmarks and notebooks. A second settings file makes the work small.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from clone import Clone, working_files
from hub_llava import write_checkpoint
from official_files import ROWS, corpus, overlay, write_official

from visiontokens.config import Config, load_config, load_experiments

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
SCALE = "config/scales/reviewer.yaml"
HERE = (
    "Snakefile", "config/", "data/reference/", "data/registry.tsv", "docs/", "environment.yml", "notebooks/",
    "profiles/",
)  # fmt: skip
CHECKPOINT = "data/backbones/llava-1.5-7b-hf"
NOWHERE = "http://127.0.0.1:9"
"""No hub answers here, so nothing can be downloaded by mistake."""


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A checkout with all files of the scale where the scale expects them."""
    folder = tmp_path_factory.mktemp("reviewer")
    for name in working_files():
        if name.startswith((*HERE, "workflow/", "src/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    data = folder / "data/official"
    write_official(data, folder / "data/registry.tsv")
    write_checkpoint(folder / CHECKPOINT, corpus(data))
    overlay(folder / "tiny.yaml")
    return Clone(folder)


@pytest.fixture(scope="module")
def done(placed: Clone) -> Clone:
    """The same after the scale's final target."""
    run(placed, "--cores", "2")
    return placed


def run(clone: Clone, *arguments: str) -> str:
    """Run snakemake at this scale without a hub."""
    before = os.environ.get("HF_ENDPOINT")
    os.environ["HF_ENDPOINT"] = NOWHERE
    try:
        return clone.run("snakemake", "--configfile", SCALE, "tiny.yaml", *arguments)
    finally:
        os.environ.pop("HF_ENDPOINT") if before is None else os.environ.update(HF_ENDPOINT=before)


def settings(clone: Clone) -> Config:
    """Return the settings of the run."""
    return load_config([clone / "config/config.yaml", clone / SCALE, clone / "tiny.yaml"])


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_row_is_scored_on_every_benchmark(done: Clone) -> None:
    config = settings(done)
    rows = load_experiments(config)
    assert list(rows) == ROWS
    results = done / "results/reviewer"
    for name in rows:
        for benchmark in config.evaluate.benchmarks:
            score = read(results / f"scores/{name}/seed0/{benchmark}.json")
            assert (score["scale"], score["experiment"], score["benchmark"]) == ("reviewer", name, benchmark)
            assert 0 <= score["ci_low"] <= score["value"] <= score["ci_high"]
            answers = (results / f"predictions/{name}/seed0/{benchmark}.jsonl").read_text(encoding="utf-8")
            assert len(answers.splitlines()) >= score["n"] > 0


def test_nothing_was_trained_or_downloaded(done: Clone) -> None:
    assert not (done / "results/reviewer/models").exists()
    receipt = read(done / f"{CHECKPOINT}/download.json")
    assert {"config.json", "model.safetensors.index.json", "tokenizer.model"} <= set(receipt["files"])
    assert not list((done / "data/official").rglob("*.part"))
    links = [path for path in (done / "data/official/benchmarks").rglob("*") if path.is_symlink()]
    assert {path.relative_to(done / "data/official/benchmarks").as_posix() for path in links} == {
        "pope/val2014", "gqa/images", "textvqa/train_images",
    }  # fmt: skip


def test_costs_are_those_of_the_methods(done: Clone) -> None:
    costs = {path.stem: read(path) for path in (done / "results/reviewer/efficiency").glob("*.json")}
    assert costs["none"]["tokens_mean"] == 576
    assert costs["avgpool-test"]["tokens_mean"] == 144
    assert costs["none"]["prefill_flops"] > costs["avgpool-test"]["prefill_flops"]


def test_the_redundancy_tables_cover_the_grid(done: Clone) -> None:
    tables = {}
    for name in ("curve", "attention", "similarity"):
        with (done / f"results/reviewer/redundancy/{name}.csv").open(encoding="utf-8") as handle:
            tables[name] = list(csv.DictReader(handle))
    assert len(tables["curve"]) == 1 + len((done / "config/pooling.tsv").read_text().splitlines()) - 1
    assert {row["target"] for row in tables["attention"]} == {"vision", "system", "text"}
    assert {row["n"] for row in tables["similarity"]} == {"2"}


def test_notebooks_and_summary_are_there(done: Clone) -> None:
    results = done / "results/reviewer"
    for notebook in settings(done).report.notebooks:
        assert (results / f"notebooks/{notebook}.html").stat().st_size > 10_000
    summary = (results / "paper/summary.txt").read_text(encoding="utf-8")
    assert "reviewer" in summary
    for label in ("LLaVA-1.5, all tokens", "AvgPool 2x2, test only"):
        assert label in summary
    assert (results / "site/index.html").stat().st_size > 0


def test_a_second_run_has_nothing_to_do(done: Clone) -> None:
    assert "Nothing to be done" in run(done, "-n")

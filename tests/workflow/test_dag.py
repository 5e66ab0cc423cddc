"""The workflow's plan: every scale and target builds, does what the tables say, and follows the house rules."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from planning import ROOT, Run, job_counts, tool

from visiontokens.config import load_config, load_experiments, seeds_of

TARGETS = {
    "data": {"world", "features"},
    "redundancy": {"align", "tune", "probe"},
    "train": {"align", "tune"},
    "evaluate": {"predict", "score"},
    "efficiency": {"measure"},
    "notebooks": {"notebook", "measure", "probe"},
    "verify": {"ledger", "measure", "score"},
    "paper": {"summary", "notebook", "ledger", "site"},
    "site": {"explore", "site", "summary", "notebook", "ledger"},
    "backbones": {"tower", "llm"},
    "leaderboard": {"measure_leaderboard", "leaderboard_notebook", "predict"},
}
SNAPSHOT = Path(__file__).with_name("jobs.json")


@pytest.mark.parametrize("scale", ["smoke", "mini", "mini-full"])
def test_number_of_jobs_is_the_recorded_one(snakemake: Run, scale: str) -> None:
    """A change here is a change of what a run costs: check it, then edit jobs.json."""
    found = job_counts(snakemake("-n", "--configfile", f"config/scales/{scale}.yaml"))
    assert found == json.loads(SNAPSHOT.read_text(encoding="utf-8"))[scale]


def test_public_weights_are_evaluated_without_training(snakemake: Run) -> None:
    """Planned offline; one checkpoint is all the weights that are fetched."""
    done = snakemake("-n", "--configfile", "config/scales/reviewer.yaml")
    assert job_counts(done) == json.loads(SNAPSHOT.read_text(encoding="utf-8"))["reviewer"]
    assert "data/backbones/llava-1.5-7b-hf/download.json" in done.stdout + done.stderr


@pytest.mark.parametrize("over", ["", "-13b", "-lora"])
def test_the_papers_own_recipe_is_planned_offline(snakemake: Run, over: str) -> None:
    """Days of GPUs and their downloads are planned without a file of them and without a network."""
    scales = [f"config/scales/paper{part}.yaml" for part in dict.fromkeys(("", over))]
    found = job_counts(snakemake("-n", "--configfile", *scales))
    assert found == json.loads(SNAPSHOT.read_text(encoding="utf-8"))[f"paper{over}"]


@pytest.mark.parametrize("target", TARGETS)
def test_every_named_target_plans_its_rules(snakemake: Run, target: str) -> None:
    found = set(job_counts(snakemake("-n", "--configfile", "config/scales/smoke.yaml", "--", target)))
    assert TARGETS[target] <= found
    assert "tower" not in found or target == "backbones", "shipped backbones must not be rebuilt"


def test_the_leaderboard_adds_the_field_and_seeds_and_leaves_the_rest_alone(snakemake: Run) -> None:
    """The default run knows nothing of it; the target trains main and field rows with every seed."""
    everything = snakemake("-n")
    assert "results/mini/leaderboard" not in everything.stdout + everything.stderr
    done = snakemake("-n", "--", "leaderboard")
    text, counts = done.stdout + done.stderr, job_counts(done)
    config = load_config(ROOT / "config/config.yaml").for_leaderboard()
    rows = load_experiments(config)
    runs = {(name, seed) for name in rows for seed in seeds_of(config, rows, name)}
    assert {row.set for row in rows.values()} == {"main", "field"} and max(seed for _, seed in runs) == 2
    assert counts["predict"] == counts["score"] == len(runs)
    assert counts["tune"] == len([name for name, _ in runs if rows[name].trained])
    assert {"measure", "summary", "validate", "probe", "notebook"}.isdisjoint(counts)
    assert "results/mini/models/avgpool/seed2/tune/model.safetensors" in text


def test_without_arguments_the_mini_scale_is_planned_with_the_profile(snakemake: Run) -> None:
    done = snakemake("-n")
    assert "Using workflow specific profile profiles/default" in done.stdout + done.stderr
    assert "results/mini/site/index.html" in done.stdout + done.stderr


def test_the_profile_is_really_loaded(snakemake: Run, tmp_path: Path) -> None:
    """The number of cores comes from nowhere else, and without it nothing starts."""
    (tmp_path / "visiontokens").write_text("#!/bin/sh\necho stand-in; exit 3\n", encoding="utf-8")
    (tmp_path / "visiontokens").chmod(0o755)
    target = ("--configfile", "config/scales/smoke.yaml", "--", "data/world/smoke/images.tsv")
    without = snakemake("--workflow-profile", "none", *target, fails=True, tools=tmp_path)
    assert "stand-in" not in without.stdout + without.stderr
    done = snakemake(*target, fails=True, tools=tmp_path)
    assert "Provided cores: 2" in done.stdout + done.stderr
    assert "stand-in" in done.stdout + done.stderr
    profile = (ROOT / "profiles/default/config.yaml").read_text(encoding="utf-8")
    assert "max-checksum-file-size: 10000000000" in profile


def test_baseline_training_and_short_runs_share_alignments(snakemake: Run) -> None:
    done = snakemake("-n", "--configfile", "config/scales/smoke.yaml", "--", "train")
    counts = job_counts(done)
    assert counts["tune"] > counts["align"]
    assert "models/volta-four-wider-deeper/seed0/align" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--config", "experiments={only: [stf-mbft]}"], ["unknown experiment 'stf-mbft'", "'stf-mbtf'"]),
        (["--config", "evaluate={benchmarks: [popee]}"], ["unknown benchmark 'popee'", "'pope'"]),
        (["--config", "sead=1"], ["unknown key 'sead'", "'seed'"]),
    ],
)
def test_bad_settings_stop_the_plan_with_a_clear_message(snakemake: Run, change: list[str], words: list[str]) -> None:
    done = snakemake("-n", *change, fails=True)
    for word in words:
        assert word in done.stdout + done.stderr


def test_a_typo_in_a_settings_file_names_the_file(snakemake: Run, checkout: Path) -> None:
    (checkout / "typo.yaml").write_text("train: {tune: {learning_rat: 1}}\n", encoding="utf-8")
    done = snakemake("-n", "--configfile", "typo.yaml", fails=True)
    assert "typo.yaml: unknown key 'train.tune.learning_rat'; did you mean 'train.tune.learning_rate'?" in (
        done.stdout + done.stderr
    )


def test_lint_finds_nothing(snakemake: Run) -> None:
    assert "Lints for" not in snakemake("--lint").stderr


def test_snakefiles_are_formatted() -> None:
    call = [tool("snakefmt"), "--check", "Snakefile", "workflow"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_snakefile_is_a_table_of_contents() -> None:
    assert len((ROOT / "Snakefile").read_text(encoding="utf-8").splitlines()) < 100

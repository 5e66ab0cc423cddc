"""The whole workflow at smoke scale, from nothing to the page of results, by `dvc repro`; and what comes after."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
from clone import SCALE, Clone

from visiontokens.config import load_config, load_experiments

pytestmark = pytest.mark.slow

NOTHING = "Nothing to be done"


def test_every_result_is_there(finished: Clone) -> None:
    config = load_config(["config/config.yaml", f"config/scales/{SCALE}.yaml"])
    results = finished / f"results/{SCALE}"
    for name in load_experiments(config):
        assert (results / f"efficiency/{name}.json").is_file()
        for benchmark in config.evaluate.benchmarks:
            assert (results / f"predictions/{name}/seed0/{benchmark}.jsonl").is_file()
            score = json.loads((results / f"scores/{name}/seed0/{benchmark}.json").read_text())
            assert (score["benchmark"], score["experiment"], score["scale"]) == (benchmark, name, SCALE)
            assert score["ci_low"] <= score["value"] <= score["ci_high"]
    for notebook in config.report.notebooks:
        assert (results / f"notebooks/{notebook}.html").stat().st_size > 10_000
        assert (results / f"notebooks/{notebook}.ipynb").is_file()
    for name in ("paper/summary.txt", "paper/summary.csv", "paper/metrics.json", "site/index.html"):
        assert (results / name).stat().st_size > 0
    for name in load_experiments(config):
        assert json.loads((results / f"explorer/{name}.json").read_text())["items"]
    for name in (name for name, row in load_experiments(config).items() if row.trained):
        assert "\n| pope | " in (results / f"paper/cards/{name}.seed0.md").read_text(encoding="utf-8")
    assert list((results / "paper/figures").glob("*.pdf"))
    assert list((results / "paper/tables").glob("*.tex"))


def test_a_second_run_does_nothing_and_says_so_within_seconds(finished: Clone) -> None:
    before = os.times().children_user
    assert NOTHING in finished.snakemake()
    assert os.times().children_user - before < 20, "processor seconds: the wall clock depends on what else runs"
    assert "didn't change" in finished.run("dvc", "repro")


def test_metrics_and_plots_show_the_headline_results(finished: Clone) -> None:
    shown = finished.run("dvc", "metrics", "show")
    assert "metrics.json" in shown
    finished.run("dvc", "plots", "show", "--json")


def test_a_question_can_be_asked(finished: Clone) -> None:
    image = next((finished / f"data/world/{SCALE}/benchmarks/gqa").rglob("*.jpg"), None) or next(
        (finished / f"data/world/{SCALE}").rglob("*.png")
    )
    model = f"results/{SCALE}/models/stf-mbtf"
    told = finished.run(
        "visiontokens", "ask", "--model", model, "--image", str(image), "Is there a red square in the image?"
    )
    assert "144 of 576 vision tokens" in told
    assert "first token after" in told


def test_comments_do_not_rerun_anything_but_code_and_settings_do(finished: Clone) -> None:
    source = finished / "src/visiontokens/evaluate/score/pope.py"
    before = source.read_text()
    source.write_text(before + "\n# a remark\n")
    assert NOTHING in finished.snakemake("-n")
    source.write_text(before + "\nUNUSED = 1\n")
    plan = finished.snakemake("-n")
    assert "rule score:" in plan
    assert "rule predict:" not in plan
    source.write_text(before)
    assert NOTHING in finished.snakemake("-n")
    plan = finished.snakemake("-n", "--config", "train={tune: {learning_rate: 0.001}}")
    assert "rule tune:" in plan
    assert "rule align:" not in plan


def test_a_fresh_clone_is_restored_and_still_notices_edits(
    finished: Clone, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = tmp_path_factory.mktemp("store")
    finished.run("dvc", "remote", "modify", "--local", "store", "url", str(store))
    finished.run("dvc", "push")
    finished.git("add", "-A")
    written = ("paper/metrics.json", "paper/summary.csv", "verify/metrics.json")
    finished.git("add", "-f", *(f"results/{SCALE}/{name}" for name in written))
    finished.git("commit", "-qm", "results")
    folder = tmp_path_factory.mktemp("restored") / "clone"
    finished.git("clone", "-q", str(finished.folder), str(folder))
    clone = Clone(folder)
    clone.run("dvc", "remote", "modify", "--local", "store", "url", str(store))
    clone.run("dvc", "pull")
    clone.run("visiontokens", "provenance", "restore", f"results/{SCALE}/records.json")
    assert NOTHING in clone.snakemake("-n")
    assert "didn't change" in clone.run("dvc", "repro")

    clone.snakemake("--", "data")  # the features are not stored; with them, only what an edit touches runs
    assert NOTHING in clone.snakemake("-n")
    method = clone / "config/methods/stf-mbtf.yaml"
    method.write_text(method.read_text() + "\n# edited afterwards\n")
    plan = clone.snakemake("-n")
    assert "models/stf-mbtf/seed0/tune" in plan
    assert "output: results/smoke/models/none/" not in plan


def test_published_runs_are_tables_and_verdicts_in_a_clone_without_data_or_weights(
    finished: Clone, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = ["--config", "config/config.yaml", f"config/scales/{SCALE}.yaml"]
    finished.run("visiontokens", "published", "pack", *settings)
    folder = tmp_path_factory.mktemp("published") / "clone"
    finished.git("clone", "-q", str(finished.folder), str(folder))
    clone = Clone(folder)
    store = f"results/published/{SCALE}"
    shutil.copytree(finished / store, clone / store)
    clone.run("visiontokens", "published", "unpack", *settings)
    rows = load_experiments(load_config(["config/config.yaml", f"config/scales/{SCALE}.yaml"]))
    assert clone.run("visiontokens", "published", "list", *settings).strip() == ",".join(rows)
    plan = clone.snakemake("-n")
    made = {"notebook", "summary", "ledger", "site", "all"}
    assert set(re.findall(r"rule (\w+):", plan)) == made, plan[-4000:]
    clone.snakemake("--", "verify")
    ledger = f"results/{SCALE}/verify/ledger.csv"
    assert (clone / ledger).read_bytes() == (finished / ledger).read_bytes()

"""The bill of a scale, from a fresh checkout and without a network: jobs, GPU-hours, downloads with licences, disk."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from planning import ROOT

from visiontokens.config import Config, load_config
from visiontokens.data.registry import destination, needed, read_registry
from visiontokens.measure.budget import Budget
from visiontokens.measure.plan import FINAL, Job, _disk, _downloads, planned, read_jobs

SNAPSHOT = Path(__file__).with_name("jobs.json")
DEAD = "http://127.0.0.1:9"
LINE = re.compile(r"^(\w+) +([\d,]+) +([\d.,]+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def bill(checkout: Path):  # type: ignore[no-untyped-def]
    """Return a function: the bill of a scale, planned once, where every address leads nowhere."""
    env = {**os.environ, "http_proxy": DEAD, "https_proxy": DEAD, "HF_ENDPOINT": DEAD, "OMP_NUM_THREADS": "1"}
    env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    @cache
    def make(scale: str) -> str:
        call = [sys.executable, "-m", "visiontokens", "plan"]
        call += ["--config", "config/config.yaml", f"config/scales/{scale}.yaml"]
        done = subprocess.run(call, cwd=checkout, env=env, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return make


def settings(scale: str) -> Config:
    return load_config([ROOT / "config/config.yaml", ROOT / f"config/scales/{scale}.yaml"])


def job_lines(text: str) -> dict[str, tuple[int, float]]:
    """Return jobs and GPU-hours by rule."""
    return {
        name: (int(jobs.replace(",", "")), float(hours.replace(",", ""))) for name, jobs, hours in LINE.findall(text)
    }


@pytest.mark.parametrize("scale", ["smoke", "reviewer", "paper"])
def test_jobs_are_those_of_the_workflow(bill, scale: str) -> None:  # type: ignore[no-untyped-def]
    found = {name: jobs for name, (jobs, _) in job_lines(bill(scale)).items()}
    assert found == json.loads(SNAPSHOT.read_text(encoding="utf-8"))[scale]


@pytest.mark.parametrize("scale", ["reviewer", "paper"])
def test_the_documented_bill_is_the_bill(bill, scale: str) -> None:  # type: ignore[no-untyped-def]
    text = (ROOT / "docs/reproduce.md").read_text(encoding="utf-8")
    line = re.search(rf"^\| `{scale}` \| (\d+) \| ([\d,]+)[^|]*\| (\d+) GB and (\d+) of", text, re.MULTILINE)
    assert line
    jobs, hours, size, unknown = (int(number.replace(",", "")) for number in line.groups())
    total = job_lines(bill(scale))["total"]
    assert (jobs, hours) == (total[0], round(total[1]))
    assert re.search(rf"^total +{size}\.\d+  and {unknown} of unknown size$", bill(scale), re.MULTILINE)


def test_smoke_costs_nothing(bill) -> None:  # type: ignore[no-untyped-def]
    text = bill("smoke")
    assert {hours for _, hours in job_lines(text).values()} == {0.0}
    assert "No job needs a GPU" in text
    assert "Downloads: none." in text


@pytest.mark.parametrize("scale", ["reviewer", "paper"])
def test_every_download_is_listed_with_size_and_licence(bill, scale: str) -> None:  # type: ignore[no-untyped-def]
    text = bill(scale)
    wanted = needed(settings(scale), read_registry(ROOT / "data/registry.tsv"))
    for entry in wanted.values():
        size = f"{entry.gigabytes:.3f}" if entry.gigabytes else "?"
        line = rf"^{re.escape(entry.name)} +{re.escape(size)}  {re.escape(entry.licence or 'not stated')}"
        assert re.search(line, text, re.MULTILINE), entry.name
        assert entry.source or f"[by hand: {entry.note}]" in text
    unknown = sum(entry.gigabytes is None for entry in wanted.values())
    total = sum(entry.gigabytes or 0 for entry in wanted.values())
    assert re.search(rf"^total +{total:.3f}  and {unknown} of unknown size$", text, re.MULTILINE)


def test_papers_gpu_hours_are_the_sum_of_its_jobs(bill) -> None:  # type: ignore[no-untyped-def]
    """Training dominates, and the formula of one run gives the line of its rule."""
    lines = job_lines(bill("paper"))
    hours = {name: value for name, (_, value) in lines.items() if name != "total"}
    assert sum(hours.values()) == pytest.approx(lines["total"][1], abs=0.5)
    assert hours["tune"] > hours["predict"] > 0
    assert {name for name, value in hours.items() if value} == {"align", "tune", "predict", "probe", "measure"}
    budget = Budget(settings("paper"))
    assert 2 * budget.hours("tune", "avgpool") < 1.5 * budget.hours("tune", "none"), "a quarter of the tokens"
    days = re.search(r"Wall clock with 8 GPUs always busy: ([\d,.]+) days", bill("paper"))
    assert days is not None
    assert float(days[1]) == pytest.approx(lines["total"][1] / 8 / 24, abs=0.1)


def test_jobs_are_read_from_a_dry_run() -> None:
    text = "rule tune:\n    input: a\n    wildcards: experiment=none, seed=0\n\nlocalrule all:\n    input: b\n"
    assert list(read_jobs(text)) == [Job("tune", {"experiment": "none", "seed": "0"}), Job("all", {})]


def test_what_is_there_is_not_billed(tmp_path: Path) -> None:
    config = settings("paper").model_copy(update={"data": tmp_path})
    registry = read_registry(ROOT / "data/registry.tsv")
    jobs = [Job("download", {"entry": name}) for name in ("mme", "pope-random", "coco-train2017")]
    assert "coco-train2017" in "\n".join(_downloads(config, jobs))
    destination(registry["coco-train2017"], config).mkdir(parents=True)
    text = "\n".join(_downloads(config, jobs))
    assert "coco-train2017" not in text
    assert re.search(r"^total +0\.200  and 1 of unknown size$", text, re.MULTILINE)


def test_disk_counts_every_model_that_is_kept() -> None:
    """Aligned and tuned weights in 16 bits, with the method's own projector and compressor."""
    config = settings("paper")
    jobs = [Job(rule, {"experiment": name, "seed": "0"}) for rule in ("align", "tune") for name in ("none", "stf-mbtf")]
    llava, connector = 6_738_415_616 + 303_507_456, {"none": 20_979_712, "stf-mbtf": 134_238_208 + 37_753_856}
    assert {name: Budget(config).weights(name) for name in connector} == {n: llava + c for n, c in connector.items()}
    models = FINAL["bf16"] * 2 * sum(llava + count for count in connector.values()) / 1e9
    text = "\n".join(_disk(config, jobs))
    assert re.search(rf"models of both stages +{models:,.0f} GB", text)
    assert re.search(rf"rolling checkpoints +{2 * 14 * (llava + connector['stf-mbtf']) / 1e9:,.0f} GB", text)


def test_a_workflow_that_cannot_be_planned_says_why(monkeypatch: pytest.MonkeyPatch, checkout: Path) -> None:
    from visiontokens.measure.plan import PlanError

    monkeypatch.chdir(checkout)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    (checkout / "broken.yaml").write_text("experiments: {only: [stf-mbft]}\n", encoding="utf-8")
    with pytest.raises(PlanError, match="unknown experiment 'stf-mbft'"):
        planned(["config/config.yaml", "broken.yaml"])

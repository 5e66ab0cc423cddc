"""dvc.yaml names milestones of the workflow and nothing that the workflow does not make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from planning import ROOT, Run

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = PIPELINE["stages"]
SCALE = PIPELINE["vars"][0]["scale"]
OWN = {f"results/{SCALE}/config.yaml", f"results/{SCALE}/records.json"}


def listed(stage: str, *kinds: str) -> dict[str, dict]:
    """Return a stage's entries of the given kinds: path -> flags."""
    entries = [entry for kind in kinds for entry in STAGES[stage].get(kind, [])]
    pairs = [next(iter(e.items())) if isinstance(e, dict) else (e, {}) for e in entries]
    return {path.replace("${scale}", SCALE): flags for path, flags in pairs}


def outs(stage: str) -> dict[str, dict]:
    return listed(stage, "outs", "metrics", "plots")


def test_stages_are_the_five_milestones_in_order() -> None:
    assert list(STAGES) == ["data", "redundancy", "train", "evaluate", "paper"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_output_persists_or_dvc_would_delete_it_before_the_stage(stage: str) -> None:
    assert all(flags.get("persist") is True for flags in outs(stage).values())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_one_call_of_snakemake_for_the_target_of_its_name(stage: str) -> None:
    command = STAGES[stage]["cmd"]
    lines = command if isinstance(command, list) else [command]
    calls = [line for line in lines if line.startswith("snakemake")]
    assert len(calls) == 1
    assert stage in calls[0].split(" -- ")[1].split()


def test_outputs_are_made_by_the_workflow(snakemake: Run) -> None:
    done = snakemake("-n", "--configfile", f"config/scales/{SCALE}.yaml")
    made = set(re.findall(rf"(?:data/world|results)/{SCALE}/[^\s,]+", "\n".join(_lines(done.stdout + done.stderr))))
    for stage in STAGES:
        for path in outs(stage):
            known = path in OWN or any(file == path or file.startswith(f"{path}/") for file in made)
            assert known or path.endswith(("benchmarks", "paper/tables", "paper/figures")), path


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip().startswith(("output:", "log:"))]


def test_dependencies_exist_or_are_outputs_of_an_earlier_stage() -> None:
    made: set[str] = set()
    for stage in STAGES:
        for path in listed(stage, "deps"):
            assert path in made or (ROOT / path).exists(), f"{stage}: {path}"
        made |= set(outs(stage))


def test_parameters_are_sections_of_the_settings() -> None:
    settings = yaml.safe_load(Path("config/config.yaml").read_text(encoding="utf-8"))
    for stage in STAGES.values():
        for entry in stage.get("params", []):
            assert set(entry["config/config.yaml"]) <= set(settings)

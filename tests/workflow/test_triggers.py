"""What re-runs what, on finished results made by a stand-in for the real command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from planning import Run, copy_workflow, job_counts, runner

SMOKE = ("--configfile", "config/scales/smoke.yaml")
STAND_IN = Path(__file__).with_name("stand_in.py")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of this module's own, because results come into it."""
    return copy_workflow(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def finished(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The workflow after a complete run at smoke scale."""
    tools = tmp_path_factory.mktemp("tools")
    shutil.copy(STAND_IN, tools / "visiontokens")
    (tools / "visiontokens").chmod(0o755)
    run = runner(checkout)
    run(*SMOKE, tools=tools)
    return run


def planned(run: Run, *arguments: str) -> set[str]:
    """Return the rules that would run."""
    done = run("-n", *SMOKE, *arguments)
    return set() if "Nothing to be done" in done.stdout + done.stderr else set(job_counts(done)) - {"all", "total"}


def test_nothing_changed_nothing_runs(finished: Run) -> None:
    assert planned(finished) == set()


def test_the_report_shows_figures_tables_and_notebooks_with_captions_and_labels(finished: Run, checkout: Path) -> None:
    finished(*SMOKE, "--report", "report.html")
    text = (checkout / "report.html").read_text(encoding="utf-8")
    for category in ("Figures", "Tables", "Notebooks"):
        assert f'"{category}"' in text
    for label in ('"figure": "pareto"', '"table": "stf-2"', '"notebook": "01_redundancy"'):
        assert label in text
    for caption in ("Figure <tt class=", "Table <tt class=", "The executed notebook"):
        assert caption in text


def test_pages_are_made_again_when_a_leaderboard_comes_and_nothing_else_is(finished: Run, checkout: Path) -> None:
    path = checkout / "results/smoke/leaderboard/tables/leaderboard.csv"
    path.parent.mkdir(parents=True)
    path.write_text("Method", encoding="utf-8")
    found = planned(finished)
    path.unlink()
    path.parent.rmdir()
    assert found == {"site"}


@pytest.mark.parametrize(
    ("change", "runs", "stays"),
    [
        (
            "train={tune: {learning_rate: 0.001}}",
            {"tune", "predict", "score"},
            {"world", "features", "align", "measure"},
        ),
        ("evaluate={bootstrap: 77}", {"score", "notebook"}, {"tune", "predict"}),
        ("evaluate={batch_size: 7}", {"predict", "validate", "probe"}, {"tune"}),
        ("world={seed: 7}", {"world", "features", "align", "tune"}, {"tower", "llm"}),
        ("efficiency={repeats: 3}", {"measure", "notebook"}, {"predict", "probe"}),
    ],
)
def test_a_changed_setting_reruns_what_reads_it(finished: Run, change: str, runs: set[str], stays: set[str]) -> None:
    found = planned(finished, "--config", change)
    assert runs <= found
    assert not stays & found


def test_a_scale_that_shares_the_data_does_not_make_them_again(finished: Run) -> None:
    found = planned(finished, "--config", "scale=twin", "data=data/world/smoke")
    assert "tune" in found
    assert not {"world", "features"} & found


def test_planning_with_other_settings_leaves_the_file_of_a_run_alone(finished: Run, checkout: Path) -> None:
    before = (checkout / "results/smoke/config.yaml").read_bytes()
    finished("-n", *SMOKE, "--config", "train={tune: {learning_rate: 0.001}}")
    assert (checkout / "results/smoke/config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "rules"),
    [
        ("config/methods/stf-mbtf.yaml", {"align", "tune", "measure", "predict", "score", "validate", "explore"}),
        ("config/pooling.tsv", {"probe"}),
        ("config/schedules/four-wider-deeper.yaml", {"tune", "predict", "score", "validate", "explore"}),
    ],
)
def test_an_edited_file_reruns_what_reads_it(finished: Run, checkout: Path, file: str, rules: set[str]) -> None:
    path = checkout / file
    before = path.read_text(encoding="utf-8")
    path.write_text(before + "\n", encoding="utf-8")
    try:
        assert planned(finished) == rules | {"notebook", "ledger", "summary", "site"}
    finally:
        path.write_text(before, encoding="utf-8")
    assert planned(finished) == set()


def test_a_new_row_runs_itself_only(finished: Run) -> None:
    rows = "[none, stf-mbtf, volta-four-wider-deeper, vcc-2-8-test, random-2-8-test]"
    done = finished("-n", *SMOKE, "--config", f"experiments={{only: {rows}}}")
    counts = job_counts(done)
    assert (counts["predict"], counts["score"]) == (1, 1)
    assert "tune" not in counts

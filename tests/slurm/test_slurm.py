"""Part of the smoke DAG on a real SLURM, with accidents, ends with what a local run gives."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab import Lab, wait_for

sys.path.insert(0, str(Path(__file__).parents[1] / "artifact"))
from clone import Clone, copy_tree

pytestmark = pytest.mark.slow

EXPERIMENT = "stf-mbtf"
SETTINGS = [
    "gpus=2",
    f"experiments={{only: [{EXPERIMENT}]}}",
    "train={align: {epochs: 8, micro_batch_size: 4}, tune: {epochs: 8, micro_batch_size: 4}}",
    "evaluate={benchmarks: [gqa, pope]}",
]
MINE = ("date", "commit", "dirty")


def arguments() -> list[str]:
    """Return the call's arguments: trainings long enough to be disturbed, two processes each."""
    targets = [f"results/smoke/scores/{EXPERIMENT}/seed0/{name}.json" for name in ("gqa", "pope")]
    return ["--configfile", "config/scales/smoke.yaml", "--config", *SETTINGS, "--", *targets]


def profile(folder: Path) -> Path:
    """Write the shipped profile, edited as docs/slurm.md says, for the small cluster."""
    shipped = yaml.safe_load((Path(__file__).parents[2] / "profiles/slurm/config.yaml").read_text())
    del shipped["default-resources"]["slurm_account"]
    shipped["default-resources"] |= {"slurm_partition": "gpu", "mem_mb": 1500, "runtime": 30}
    for wanted in shipped["set-resources"].values():
        wanted |= {"gpu_model": "fake", "mem_mb": 4000, "cpus_per_task": 1, "runtime": 30}
    shipped |= {"slurm-init-seconds-before-status-checks": 3, "latency-wait": 10}
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(shipped))
    return folder


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, Clone]:
    """Two checkouts of the same commit, one of them finished by a local run."""
    folder = tmp_path_factory.mktemp("slurm-run")
    (folder / "local").mkdir()
    local = copy_tree(folder / "local")
    shutil.copytree(local.folder, folder / "cluster")
    local.run("snakemake", "--resources", "gpu=2", *arguments())
    return local, Clone(folder / "cluster")


def checkpoint(clone: Clone, stage: str) -> Callable[[], bool]:
    """Return a function that tells whether a stage has written a checkpoint and goes on."""
    run = clone.folder / f"results/smoke/runs/{EXPERIMENT}/seed0/{stage}/checkpoints"
    return lambda: bool(list(run.glob("checkpoint-*/complete.json")))


def accidents(lab: Lab, clone: Clone) -> Iterator[str]:
    """Requeue the first training midway; kill the node's daemon in the second one, then cancel it."""
    wait_for("checkpoint of align", checkpoint(clone, "align"), 400)
    first = lab.job_of("align")
    assert first, "align was over before it could be requeued"
    lab.call("scontrol", "requeue", first)
    wait_for("requeued job", lambda: lab.jobs()[first][0] == "PENDING", 90)
    lab.call("scontrol", "update", f"JobId={first}", "StartTime=now")
    yield "requeued align"
    wait_for("checkpoint of tune", checkpoint(clone, "tune"), 600)
    lab.kill_node_daemon()
    time.sleep(1)
    lab.start_node()
    yield "node daemon killed and restarted"
    second = lab.job_of("tune")
    assert second, "tune did not outlive the node's daemon, or was over too soon"
    lab.call("scancel", "--signal=TERM", second)  # what --signal sends ahead of a time limit
    wait_for("end of the stopped job", lambda: lab.ended(second), 120)
    yield "tune stopped ahead of its time limit"
    wait_for("second attempt of tune", lambda: lab.job_of("tune") not in (None, second), 300)
    third = lab.job_of("tune")
    assert third
    lab.call("scancel", third)
    yield "tune cancelled"


def results(clone: Clone) -> dict[str, Any]:
    """Return hashes of weights and predictions, and the scores without who made them."""
    base = clone / "results/smoke"
    hashed = [*base.glob("models/**/model.safetensors"), *base.glob("predictions/**/*.jsonl")]
    found: dict[str, Any] = {
        str(path.relative_to(base)): hashlib.sha256(path.read_bytes()).hexdigest() for path in hashed
    }
    for path in base.glob("scores/**/*.json"):
        scores = json.loads(path.read_text())
        found[str(path.relative_to(base))] = {key: value for key, value in scores.items() if key not in MINE}
    return found


def test_the_cluster_gives_what_a_local_run_gives(slurm: Lab, clones: tuple[Clone, Clone], tmp_path: Path) -> None:
    local, cluster = clones
    tools = f"{Path(sys.executable).parent}:{slurm.env['PATH']}"
    env = {**slurm.env, "PATH": tools, "PYTHONPATH": str(cluster.folder / "src"), "OMP_NUM_THREADS": "1"}
    call = ["timeout", "-k", "5", "1500", "snakemake", "--workflow-profile", str(profile(tmp_path / "profile"))]
    said = tmp_path / "said.txt"
    with said.open("w") as out:
        run = subprocess.Popen([*call, *arguments()], cwd=cluster.folder, env=env, stdout=out, stderr=out)
        try:
            happened = list(accidents(slurm, cluster))
            assert run.wait(1500) == 0, said.read_text()[-8000:]
        except BaseException:
            print(said.read_text()[-8000:])
            raise
        finally:
            run.kill()
    assert len(happened) == 4
    logs = "\n".join(path.read_text() for path in (cluster / ".snakemake/slurm_logs").rglob("*.log"))
    assert "stopped on request after step" in logs
    assert logs.count("continuing from") >= 2
    wanted, found = results(local), results(cluster)
    assert any("tune/model.safetensors" in name for name in wanted)
    assert any(name.startswith("scores/") for name in wanted)
    assert found == wanted


def test_gpus_are_handed_out_and_limited(slurm: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    job = ["--wait", "--mem", "100", "-o", str(out), "--wrap", "echo $CUDA_VISIBLE_DEVICES"]
    slurm.call("sbatch", "--gpus=fake:1", *job)
    assert out.read_text().strip() in {"0", "1"}
    with pytest.raises(RuntimeError, match="not available"):
        slurm.call("sbatch", "--gpus=fake:3", *job)


def test_nothing_of_the_system_is_used(slurm: Lab) -> None:
    settings = Path(slurm.env["SLURM_CONF"]).read_text()
    paths = [word for line in settings.splitlines() for word in line.split("=")[1:] if word.startswith("/")]
    assert all(path.startswith((str(slurm.folder), "/bin/true")) for path in paths)
    assert os.environ.get("SLURM_CONF") != slurm.env["SLURM_CONF"]

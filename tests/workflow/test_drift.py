"""Generated files say what they are generated from."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from visiontokens.config.generate import default_yaml, schema_json

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXPORT = "export --frozen --extra dev --extra slurm --prune torch --no-emit-project --no-header -q"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def locked() -> dict[str, str]:
    """Return the pinned versions of the lock by normalised name."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text("requirements-pip.lock"), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


def test_settings_files_are_generated_from_the_classes() -> None:
    assert text("config/config.yaml") == default_yaml(), "run: visiontokens config generate"
    assert text("config/schema.json") == schema_json(), "run: visiontokens config generate"


def test_the_lock_holds_every_direct_dependency_at_an_allowed_version() -> None:
    extras = PROJECT["optional-dependencies"]
    pins = locked()
    for line in [*PROJECT["dependencies"], *extras["dev"], *extras["slurm"]]:
        wanted = Requirement(line)
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        assert name in pins, f"{line} is not in requirements-pip.lock: run make lock"
        assert wanted.specifier.contains(pins[name], prereleases=True), f"{line}: locked {pins[name]}"


def test_both_lock_files_pin_the_same_versions() -> None:
    pins = re.compile(r"^([A-Za-z0-9._-]+==[^\s\\]+)", re.MULTILINE)
    assert pins.findall(text("requirements.lock")) == pins.findall(text("requirements-pip.lock"))


@pytest.mark.parametrize(("name", "more"), [("requirements.lock", []), ("requirements-pip.lock", ["--no-hashes"])])
def test_lock_files_are_exported_from_uv_lock(name: str, more: list[str]) -> None:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    call = [uv, *EXPORT.split(), *more]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
    assert text(name) == "torch==2.13.0\n" + done.stdout, "run: make lock"


def test_conda_environments_point_to_the_lock_and_a_supported_python() -> None:
    main = yaml.safe_load(text("environment.yml"))
    python = next(d for d in main["dependencies"] if isinstance(d, str) and d.startswith("python"))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.split("=")[-1])
    pip = next(d for d in main["dependencies"] if isinstance(d, dict))["pip"]
    assert pip == ["-r requirements-pip.lock", "-e ."]


def test_the_gpu_overlay_pins_what_the_lock_resolved() -> None:
    packages = {p["name"]: p["version"] for p in tomllib.loads(text("uv.lock"))["package"] if "version" in p}
    overlay = yaml.safe_load(text("environment.gpu.yml"))
    for pin in next(d for d in overlay["dependencies"] if isinstance(d, dict))["pip"]:
        name, version = pin.split("==")
        assert packages[name] == version


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_stripped(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        assert not cell.get("outputs"), f"{path.name}: run nbstripout"
        assert cell.get("execution_count") is None

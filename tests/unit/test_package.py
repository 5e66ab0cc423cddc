"""What is published: an sdist that is the repository, and a wheel that works in an empty folder."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from smoke_world import smoke_world
from tiny_home import make_home, weights

from visiontokens import __version__
from visiontokens.cli import ALONE
from visiontokens.data.benchmarks import find_benchmark
from visiontokens.evaluate.predictions import answer_record, write_predictions

ROOT = Path(__file__).parents[2]
LARGEST = 20e6
"""Bytes: a package index refuses nothing of this size, and a world or a result would be far beyond it."""

pytestmark = pytest.mark.slow


def command(*words: str | Path, cwd: Path, fails: bool = False) -> str:
    """Run a command without this checkout's code on its path; return its output, of a failure its error."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == fails, (done.stdout + done.stderr)[-4000:]
    return done.stderr if fails else done.stdout


def build(source: Path, out: Path, *targets: str) -> None:
    """Build from a folder with the backend that pyproject.toml names, without a package index."""
    command(sys.executable, "-m", "hatchling", "build", *(f"-t{t}" for t in targets), "-d", out, cwd=source)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out, "wheel", "sdist")
    return out


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    return built / f"visiontokens-{__version__}.tar.gz"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"visiontokens-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of an environment with the wheel and, from this one, all that it depends on."""
    folder = tmp_path_factory.mktemp("installed")
    command(sys.executable, "-m", "venv", folder, cwd=folder)
    python = folder / "bin/python"
    command(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    own = next((folder / "lib").glob("python*/site-packages"))
    # A plain line makes the other environment's packages importable, but not what its own .pth files point to.
    (own / "dependencies.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()), encoding="utf-8")
    return folder / "bin"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


def test_an_sdist_holds_the_repositorys_files_and_no_others(sdist: Path) -> None:
    listed = command("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert names == {name for name in listed if (ROOT / name).is_file()} | {"PKG-INFO"}
    assert sdist.stat().st_size < LARGEST


def test_a_wheel_of_the_sdist_is_the_wheel_of_the_checkout(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    build(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "dist", "wheel")
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(tmp_path / "dist" / wheel.name) as theirs:
        assert {n: ours.read(n) for n in ours.namelist()} == {n: theirs.read(n) for n in theirs.namelist()}


def test_a_wheel_holds_the_package_and_the_settings(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = [path for path in (ROOT / "src/visiontokens").rglob("*") if path.is_file()]
    expected = {path.relative_to(ROOT / "src").as_posix() for path in package if "__pycache__" not in path.parts}
    settings = [path.relative_to(ROOT / "config") for path in (ROOT / "config").rglob("*") if path.is_file()]
    assert names == expected | {f"visiontokens/config/files/{path.as_posix()}" for path in settings}
    assert any(not name.endswith(".py") for name in expected), "templates and the typing marker"


def test_ask_finds_the_settings_that_the_wheel_carries(installed: Path, home: Path, tmp_path: Path) -> None:
    question = ("--image", home / "image.png", "What color is the circle?")
    text = command(installed / "visiontokens", "ask", "--model", weights(home), "--method", "vcc-2-2", *question,
                   cwd=tmp_path)  # fmt: skip
    assert "of 16 vision tokens per layer" in text
    assert text.endswith("(vcc)\n")


def test_load_is_the_installed_packages(installed: Path, home: Path, tmp_path: Path) -> None:
    code = (
        "import sys, visiontokens\nmodel = visiontokens.load(sys.argv[1], method='avgpool', budget=4)\n"
        "print(model.method.name, visiontokens.__file__)"
    )
    name, file = command(installed / "python", "-c", code, weights(home), cwd=tmp_path).split()
    assert name == "avgpool"
    assert Path(file).is_relative_to(installed.parent)


def test_answers_are_scored_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    data = smoke_world() / "benchmarks"
    questions = find_benchmark("vizwiz").read(data)
    write_predictions(tmp_path / "answers.jsonl", [answer_record(question, "red", "m") for question in questions])
    code = (
        "import sys\nfrom pathlib import Path\nfrom visiontokens.evaluate.score import score_benchmark\n"
        "score = score_benchmark('vizwiz', *map(Path, sys.argv[1:]))\n"
        "print(score.n, score.value, 'torch' in sys.modules)"
    )
    n, value, torch = command(installed / "python", "-c", code, "answers.jsonl", data, cwd=tmp_path).split()
    assert int(n) == len(questions)
    assert 0 <= float(value) <= 100
    assert torch == "False"


def test_every_verb_that_needs_no_checkout_is_one_and_explains_itself(installed: Path, tmp_path: Path) -> None:
    for verb in ALONE:
        assert f"visiontokens {verb}" in command(installed / "visiontokens", verb, "--help", cwd=tmp_path)
    beside = command(
        installed / "visiontokens", "bench", "--methods", "nothing", "--out", "x", cwd=tmp_path, fails=True
    )
    assert "files/methods holds: " in beside
    assert not list(tmp_path.iterdir())


def test_verbs_of_the_workflow_say_that_they_need_a_checkout(installed: Path, tmp_path: Path) -> None:
    text = command(installed / "visiontokens", "plan", "--config", "config/config.yaml", cwd=tmp_path, fails=True)
    assert "config/config.yaml" in text
    assert "runs in a checkout" in text
    assert text.count("\n") == 1

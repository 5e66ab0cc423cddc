"""The documents are true: files and commands they name exist, and the code in docs/extend.md runs as it stands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from planning import ROOT, copy_workflow, runner
from snakemake.cli import get_argument_parser
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from visiontokens import compress
from visiontokens.cli import build_parser, main
from visiontokens.compress import registry
from visiontokens.compress.base import MethodSpec
from visiontokens.config import Config, load_benchmarks, load_config, load_experiments, read_experiments
from visiontokens.data import benchmarks
from visiontokens.data.benchmarks import Benchmark
from visiontokens.evaluate import score
from visiontokens.evaluate.score import MEAN_CORRECT, Scorer, score_benchmark
from visiontokens.measure.record import cost_record, timed_prompt
from visiontokens.models.build import load_model
from visiontokens.provenance import read_json
from visiontokens.report.methods import all_facts

DOCS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "notebooks/*.md", "results/*.md")
    for path in ROOT.glob(pattern)
)
PACKAGE = ROOT / "src/visiontokens"
METHODS = "src/visiontokens/compress"
GENERATED = ("results/", "data/world", "data/official", "docs/api", ".venv", ".snakemake")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE_BLOCK = re.compile(r"`([\w./-]+)`[^`]*?:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_spans(name: str) -> list[str]:
    """Return inline code and the lines of shell blocks."""
    page = text(name)
    lines = [line for kind, body in FENCE.findall(page) if kind == "sh" for line in body.splitlines()]
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", page)) + lines


def new_files() -> dict[str, str]:
    """Return the files that docs/extend.md asks a reader to write, by path."""
    return dict(FILE_BLOCK.findall(text("docs/extend.md")))


def rows_for(table: str) -> list[str]:
    """Return the tab-separated rows of docs/extend.md that belong into a table."""
    columns = text(table).splitlines()[0].count("\t")
    blocks = [body for kind, body in FENCE.findall(text("docs/extend.md")) if kind == "tsv"]
    return [row for body in blocks for row in body.splitlines() if row.count("\t") == columns]


# -- what the documents name -------------------------------------------------------------------------------------------


def test_every_document_is_looked_at() -> None:
    wanted = {"README.md", "ARTIFACT.md", "notebooks/README.md", "results/README.md"}
    wanted |= {f"docs/{name}.md" for name in ("design", "reproduce", "slurm", "extend", "data", "log")}
    assert wanted <= set(DOCS)


@pytest.mark.parametrize("name", DOCS)
def test_links_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", FENCE.sub("", text(name)))
    missing = [t for t in targets if not re.match(r"[a-z]+:", t) and not ((ROOT / name).parent / t).exists()]
    assert not [target for target in missing if not target.startswith(GENERATED)]


def exists(path: str) -> bool:
    """Tell whether a named file or folder is there; what follows a placeholder such as `<k>` or `*` is not checked."""
    fixed = re.split(r"[<{*]", path)[0]
    fixed = fixed if fixed == path else fixed.rpartition("/")[0]
    return any((base / fixed).exists() for base in (ROOT, PACKAGE))


@pytest.mark.parametrize("name", DOCS)
def test_named_files_exist(name: str) -> None:
    tops = {path.name for base in (ROOT, PACKAGE) for path in base.iterdir() if path.is_dir()}
    words = {word.rstrip(".,;:") for span in code_spans(name) for word in span.split()}
    paths = {word for word in words if "/" in word and word.split("/")[0] in tops}
    new = set(new_files()) if name == "docs/extend.md" else set()
    assert not sorted(path for path in paths - new if not path.startswith(GENERATED) and not exists(path))


@pytest.mark.parametrize("name", DOCS)
def test_named_commands_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    verbs = set(build_parser()._subparsers._group_actions[0].choices)  # type: ignore[union-attr, arg-type]
    for span in code_spans(name):
        if found := re.match(r"make ([a-z]+)", span):
            assert found[1] in targets, span
        if found := re.match(r"visiontokens ([a-z]+)", span):
            assert found[1] in verbs, span


@pytest.mark.parametrize("name", ["README.md", "docs/reproduce.md", "docs/slurm.md"])
def test_snakemake_understands_its_commands(name: str) -> None:
    """Misspelt options and missing settings files would only be noticed by a reader."""
    for span in code_spans(name):
        if span.startswith("snakemake ") and "..." not in span:
            found = get_argument_parser().parse_args(shlex.split(span, comments=True)[1:])
            profile = found.workflow_profile
            assert all((ROOT / file).is_file() for file in found.configfile or []), span
            assert profile is None or (ROOT / profile / "config.yaml").is_file(), span


@pytest.mark.parametrize("name", DOCS)
def test_named_settings_exist(name: str) -> None:
    for span in code_spans(name):
        section, *keys = span.split(".")
        if section not in Config.model_fields or not keys or not re.fullmatch(r"[a-z_.]+", span) or keys == ["py"]:
            continue
        value: Any = load_config(ROOT / "config/config.yaml")
        for key in (section, *keys):
            assert hasattr(value, key), f"{name}: no setting {span}"
            value = getattr(value, key)


def test_the_counts_on_the_data_page_are_those_of_the_settings() -> None:
    world = load_config(ROOT / "config/config.yaml").world
    assert world is not None
    pope = -(-world.pope_questions // 6)
    wanted = {
        "vqav2": (world.vqav2_questions, world.vqav2_images),
        "gqa": (world.gqa_questions, world.gqa_images),
        "vizwiz": (world.vizwiz_questions, world.vizwiz_questions),
        "scienceqa": (world.scienceqa_image + world.scienceqa_text, world.scienceqa_image),
        "pope": (3 * 6 * pope, pope),
        "mme": (14 * world.mme_lines, 7 * world.mme_lines),
        "mmbench": (world.mmbench_questions, world.mmbench_questions),
        "mmbench_cn": (world.mmbench_questions, world.mmbench_questions),
    }
    rows = re.findall(r"^\| (\w+) \| ([\d,]+) \| ([\d,]+) \|", text("docs/data.md"), re.MULTILINE)
    found = {name: (int(questions.replace(",", "")), int(images.replace(",", ""))) for name, questions, images in rows}
    assert wanted.items() <= found.items()
    assert found["pretrain"][0] == world.pretrain
    assert found["instruct"] == (world.instruct + world.text_only, world.instruct)
    assert found["textvqa"][0] == world.textvqa_questions


# -- docs/extend.md ----------------------------------------------------------------------------------------------------


@pytest.fixture
def extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files of docs/extend.md, whose modules the package finds as if they lay in it."""
    monkeypatch.setattr(registry, "_METHODS", registry.methods())
    for name, body in new_files().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, encoding="utf-8")
    for package, folder in ((compress, "compress"), (benchmarks, "data/benchmarks"), (score, "evaluate/score")):
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "src/visiontokens" / folder)])
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_method_takes_one_file_one_yaml_one_row(
    extended: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new row trains, its model keeps every second token, cost is as declared, and it answers a question."""
    files = [name for name in new_files() if "every.py" in name or "every-2" in name]
    assert files == ["src/visiontokens/compress/every.py", "config/methods/every-2.yaml"]
    row, borrowing = rows_for("config/experiments.tsv")
    shutil.copytree(ROOT / "config", extended / "config", dirs_exist_ok=True)
    with (extended / "config/experiments.tsv").open("a", encoding="utf-8") as table:
        table.write(f"{row}\n{borrowing}\n")
    rows = read_experiments(extended / "config/experiments.tsv")
    assert (rows["every-2"].trained, rows["every-2-test"].weights_from) == (True, "none")

    monkeypatch.syspath_prepend(ROOT / "tests/unit")
    from tiny_training import config_of, make_world

    world = extended / "tiny"
    make_world(world, count=12)
    shutil.copy(extended / "config/methods/every-2.yaml", world / "config/methods")
    with (world / "config/experiments.tsv").open("a", encoding="utf-8") as table:
        table.write(f"{row}\n")
    settings = world / "settings.yaml"
    settings.write_text(yaml.safe_dump(config_of(world, epochs=1).model_dump(mode="json")))
    command = ["train", "--config", settings, "--experiment", "every-2", "--stage", "tune"]
    assert main([*map(str, command), "--run-dir", str(world / "run"), "--out", str(world / "out")]) == 0
    assert read_json(world / "out/record.json")["run"]["method"] == {"name": "every", "params": {"stride": 2}}
    _check_cost(load_model(world / "out"), [8.0] * 4)
    (world / "llm").rename(world / "gone")
    asked = ["ask", "--model", world / "out", "--image", world / "data/images/0.png", "What color is the image?"]
    assert main([str(word) for word in asked]) == 0
    assert "8 of 16 vision tokens per layer" in capsys.readouterr().out


def test_a_new_method_is_planned_in_all_targets(extended: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its file, YAML and rows alone bring it into `make reproduce`, the leaderboard and the page of methods."""
    checkout = copy_workflow(tmp_path_factory.mktemp("extended"))
    shutil.copytree(extended / "config/methods", checkout / "config/methods", dirs_exist_ok=True)
    rows = rows_for("config/experiments.tsv")
    with (checkout / "config/experiments.tsv").open("a", encoding="utf-8") as table:
        table.write("".join(f"{row}\n" for row in rows))
    shutil.copytree(ROOT / "src", checkout / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(extended / METHODS, checkout / METHODS, dirs_exist_ok=True)
    run = runner(checkout, {"PYTHONPATH": str(checkout / "src")})
    wanted = {
        "leaderboard": ["models/every-2/seed2/tune/model.safetensors", "leaderboard/efficiency/every-2-test.json"],
        "paper": ["models/every-2/seed0/tune/model.safetensors", "scores/every-2-test/seed0/gqa.json"],
    }
    for target, files in wanted.items():
        done = run("-n", "--", target)
        assert [file for file in files if file not in done.stdout + done.stderr] == [], target
    found = {fact.id: fact for fact in all_facts(checkout / "config")}
    assert (found["every-2"].tokens, found["every-2"].weights) == ((288.0,) * 32, "trained, training-free")
    assert found["every-2"].places == ("before the LLM",)


def test_a_method_inside_the_language_model(extended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests/unit")
    from tiny_home import make_home, weights

    home = make_home(extended)
    spec = MethodSpec(name="every_inside", params={"layer": "8/32", "stride": 4})
    _check_cost(load_model(weights(home), spec), [16.0, 4.0, 4.0, 4.0])


def _check_cost(model: Any, tokens: list[float]) -> None:
    """Compare declared tokens, cache and FLOPs with what a prefill of one image (16 patches) leaves and does."""
    inputs = timed_prompt(model, 10)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.inference_mode():
        cache = model.prefill(**inputs).cache
    declared = cost_record(model, text_tokens=10)
    assert declared["tokens_per_layer"] == tokens
    assert [length - 10 for length in cache.lengths()] == tokens
    assert declared["prefill_flops"] == counter.get_total_flops()


def test_a_benchmark(extended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loader, scorer and the three lines that make them known score a file of answers."""
    from visiontokens.evaluate.score.signs import score_signs  # type: ignore[import-not-found]

    from visiontokens.data.benchmarks import signs  # type: ignore[attr-defined]

    names = {"Benchmark": Benchmark, "Scorer": Scorer, "MEAN_CORRECT": MEAN_CORRECT, "score_signs": score_signs}
    lines = [body for kind, body in FENCE.findall(text("docs/extend.md")) if kind == "python" and "\n" not in body[:-1]]
    entry, scorer = (line.strip() for line in lines)
    monkeypatch.setitem(benchmarks.BENCHMARKS, "signs", eval(entry, {**names, "signs": signs}))
    monkeypatch.setitem(score.SCORERS, "signs", eval(f"{{{scorer}}}", names)["signs"])

    questions = [{"id": i, "image": "a.jpg", "question": "What number?", "answer": str(i)} for i in (1, 2)]
    folder = extended / "official/signs"
    folder.mkdir(parents=True)
    (folder / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    answers = extended / "answers.jsonl"
    answers.write_text("".join(json.dumps({"question_id": i, "text": "1"}) + "\n" for i in (1, 2)))
    assert score_benchmark("signs", answers, extended / "official").value == 50

    table = extended / "benchmarks.tsv"
    table.write_text(text("config/benchmarks.tsv") + rows_for("config/benchmarks.tsv")[0] + "\n")
    settings = extended / "settings.yaml"
    settings.write_text("evaluate: {benchmarks: [gqa, signs]}\n")
    assert load_benchmarks(load_config(settings), table)["signs"].label == "Signs"


def test_a_scale(extended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(["config/config.yaml", extended / "config/scales/half.yaml"])
    assert config.scale == "half"
    assert config.world is not None
    default = load_config("config/config.yaml").world
    assert default is not None
    assert 2 * config.world.instruct == default.instruct
    assert config.world.vqav2_questions == default.vqav2_questions
    assert set(load_experiments(config)) == {"none", "stf-mbtf"}

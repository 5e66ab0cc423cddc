"""The package is a one-way street: a part imports only parts to its left."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from visiontokens.sources import ROOT, imports

STREET = [
    ("provenance", "seals"),
    ("config",),
    ("sources", "records"),
    ("data",),
    ("compress",),
    ("models",),
    ("train",),
    ("evaluate",),
    ("measure",),
    ("analyze",),
    ("report",),
    ("verify",),
    ("verbs",),
    ("cli",),
    ("__main__",),
]
PLACE = {part: place for place, parts in enumerate(STREET) for part in parts}
MODULES = sorted(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in ROOT.rglob("*.py"))
LIGHT = ("evaluate.score", "evaluate.scoring", "evaluate.predictions", "data.benchmarks", "data.miniworld", "config")
HEAVY = ("torch", "transformers")
EXEMPT = {"data.miniworld.tokenizer", "data.miniworld.chinese"}


def part(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def source(module: str) -> Path:
    stem = ROOT.joinpath(*module.split("."))
    return stem.with_suffix(".py") if stem.with_suffix(".py").is_file() else stem / "__init__.py"


@pytest.mark.parametrize("module", [m for m in MODULES if m != "__init__"])
def test_imports_run_one_way(module: str) -> None:
    own = PLACE[part(module)]
    for other in sorted(imports(source(module))):
        assert PLACE[part(other)] <= own, f"{module} imports {other}"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {m.removesuffix(".__init__"): imports(source(m)) - {m} for m in MODULES if m != "__init__"}
    state: dict[str, int] = {}

    def visit(module: str, trail: tuple[str, ...]) -> None:
        if state.get(module) == 1:
            raise AssertionError(" -> ".join([*trail[trail.index(module) :], module]))
        if state.get(module) == 2:
            return
        state[module] = 1
        for other in sorted(graph.get(module, ())):
            if other != module:
                visit(other, (*trail, module))
        state[module] = 2

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith(LIGHT) and m not in EXEMPT])
def test_light_parts_load_no_heavy_library(module: str) -> None:
    tree = ast.parse(source(module).read_text(encoding="utf-8"))
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not {name for name in names if name.split(".")[0] in HEAVY}

"""What archives read is generated from the project's files, and holds what their formats demand."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from visiontokens import __version__
from visiontokens.provenance import tracked
from visiontokens.report.crate import FILES, PROFILES, read_project, texts

ROOT = Path(__file__).parents[2]
SOURCES = ("CITATION.cff", "pyproject.toml", "README.md", "LICENSE", "Snakefile")

pytestmark = pytest.mark.usefixtures("at_home")


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def graph() -> dict[str, dict[str, Any]]:
    return {entity["@id"]: entity for entity in json.loads((ROOT / FILES[0]).read_text())["@graph"]}


@pytest.mark.parametrize("name", FILES)
def test_generated_files_are_those_of_the_project(name: str) -> None:
    if not tracked("README.md"):
        pytest.skip("not a git checkout: what is tracked is not known")
    assert (ROOT / name).read_text(encoding="utf-8") == texts()[name], "run: visiontokens metadata"


def test_the_crate_is_flat_and_whole(graph: dict[str, dict[str, Any]]) -> None:
    entities = json.loads((ROOT / FILES[0]).read_text())["@graph"]
    assert len(graph) == len(entities), "an @id stands twice"
    assert all("@type" in entity for entity in entities)
    outside = {*PROFILES, "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"}
    outside.add("https://snakemake.readthedocs.io")
    for entity in entities:
        for value in entity.values():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    assert set(item) == {"@id"}, "entities refer to one another, none is nested"
                    assert item["@id"] in graph or item["@id"] in outside


def test_the_crate_has_what_ro_crate_demands(graph: dict[str, dict[str, Any]]) -> None:
    descriptor, root = graph[FILES[0]], graph["./"]
    assert descriptor["about"] == {"@id": "./"}
    assert [profile["@id"] for profile in descriptor["conformsTo"]] == list(PROFILES)
    for key in ("name", "description", "datePublished", "license", "hasPart", "mainEntity", "author"):
        assert root[key], key
    assert graph[root["license"]["@id"]]["identifier"] == "Apache-2.0"
    for part in root["hasPart"]:
        path = part["@id"]
        assert (ROOT / path).is_dir() == path.endswith("/"), path
        assert (ROOT / path).exists(), path
        types = graph[path]["@type"]
        assert ("Dataset" if path.endswith("/") else "File") in ([types] if isinstance(types, str) else types)


def test_the_workflow_is_the_main_entity(graph: dict[str, dict[str, Any]]) -> None:
    main = graph[graph["./"]["mainEntity"]["@id"]]
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow"} == set(main["@type"])
    assert graph[main["programmingLanguage"]["@id"]]["name"] == "Snakemake"
    included = {f"workflow/rules/{path.name}" for path in (ROOT / "workflow/rules").glob("*.smk")}
    assert {part["@id"] for part in main["hasPart"]} == included
    assert graph["README.md"]["about"] == {"@id": "./"}


def test_results_of_the_crate_are_those_that_are_committed(graph: dict[str, dict[str, Any]]) -> None:
    committed = set(tracked("results"))
    assert committed == {name for name in graph if name.startswith("results/")}
    assert any(name.endswith("metrics.json") for name in committed)


def test_a_deposit_names_version_people_licence_and_both_papers() -> None:
    deposit = json.loads((ROOT / FILES[1]).read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert deposit["version"] == citation["version"] == __version__
    assert deposit["upload_type"] == "software"
    assert len(deposit["creators"]) == len(citation["authors"])
    assert deposit["license"] == citation["license"]
    cited = {entry["identifier"] for entry in deposit["related_identifiers"]}
    assert cited == {i["value"] for paper in citation["references"] for i in paper["identifiers"]}


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("CITATION.cff", f"version: {__version__}", "version: 9.9.9", "key 'version': found '9.9.9'"),
        ("CITATION.cff", "license: Apache-2.0", "license: MIT", "key 'license': found 'MIT', expected 'Apache-2.0'"),
        ("README.md", "## Where things are", "## Map", "expected a block under '## Where things are'"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    for name in SOURCES:
        shutil.copy(ROOT / name, tmp_path)
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_project(tmp_path)


def test_the_citation_file_is_valid_yaml_of_its_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "date-released", "license"} <= set(citation)
    year = subprocess.run(["date", "+%Y"], capture_output=True, text=True, check=True).stdout
    assert 2026 <= citation["date-released"].year <= int(year)

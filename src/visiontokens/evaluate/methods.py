"""The method that an experiment is tested with: its file, completed by the result of a search where it asks for one."""

from __future__ import annotations

from pathlib import Path

from visiontokens.compress.base import MethodSpec
from visiontokens.config import Config
from visiontokens.provenance import read_json


def method_path(config: Config, method: str) -> Path:
    """Return the file that describes a method."""
    return config.experiments.table.parent / "methods" / f"{method}.yaml"


def search_path(config: Config, experiment: str) -> Path:
    """Return where the result of an experiment's search lies."""
    return config.results_dir / "search" / f"{experiment}.json"


def tested_method(config: Config, experiment: str, method: str) -> MethodSpec:
    """Return the method of an experiment, ready to run.

    Raises:
        FileNotFoundError: no such method, or its search has not run; the message says how to run it.
        ValueError: the search was after something else than the method file is.
    """
    described = method_path(config, method)
    spec = MethodSpec.from_yaml(described)
    if spec.search is None:
        return spec
    path = search_path(config, experiment)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: found no such file, expected the result of the search that {described} asks for: run "
            f"`visiontokens search --experiment {experiment}` (`snakemake {path}` does)"
        )
    result = read_json(path)
    goal = spec.search.model_dump(exclude_none=True)
    if result.get("goal") != goal:
        raise ValueError(f"{path}: key 'goal': found {result.get('goal')}, expected {goal} as in {described}")
    return MethodSpec(name=spec.name, params={**spec.params, **result["params"]}, note=spec.note)

"""Settings: defaults, layering, and errors that name file, key and the closest known key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from visiontokens.config import Config, ConfigError, load_config, parse_config
from visiontokens.config.generate import default_yaml, schema_json, write_resolved


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_later_files_override_earlier_ones_key_by_key(tmp_path: Path) -> None:
    base = write(tmp_path / "a.yaml", "train: {tune: {batch_size: 4, epochs: 2}}\nseed: 1")
    over = write(tmp_path / "b.yaml", "train: {tune: {batch_size: 8}}")
    config = load_config([base, over])
    assert (config.train.tune.batch_size, config.train.tune.epochs, config.seed) == (8, 2, 1)
    assert config.train.tune.learning_rate == Config().train.tune.learning_rate


def test_folders_follow_the_scale_unless_data_is_set() -> None:
    config = parse_config({"scale": "tiny"}, "test")
    assert (config.data_dir, config.results_dir) == (Path("data/world/tiny"), Path("results/tiny"))
    assert parse_config({"data": "elsewhere"}, "test").data_dir == Path("elsewhere")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {tune: {learning_rat: 1}}", ["train.tune.learning_rat'", "'train.tune.learning_rate'"]),
        ("sead: 3", ["'sead'", "'seed'"]),
        ("zzz: 3", ["'zzz'", "known: backbones"]),
        ("train: {tune: {learning_rate: -1}}", ["train.tune.learning_rate", "-1", "greater than 0"]),
        ("train: {tune: {epochs: many}}", ["train.tune.epochs", "'many'"]),
        ("world: {pretrain: 0}", ["world.pretrain", "0"]),
        ("- a\n- b", ["list", "mapping"]),
        ("seed: [", ["not valid YAML"]),
    ],
)
def test_errors_name_file_and_key(tmp_path: Path, text: str, words: list[str]) -> None:
    good = write(tmp_path / "good.yaml", "seed: 1")
    bad = write(tmp_path / "bad.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_config([good, bad])
    assert "bad.yaml" in str(caught.value)
    assert "good.yaml" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3  # type: ignore[misc]


def test_generated_yaml_is_the_defaults_and_explains_every_setting() -> None:
    text = default_yaml()
    assert parse_config(yaml.safe_load(text), "generated") == Config()
    lines = text.splitlines()
    settings = [n for n, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")]
    assert all(lines[n - 1].lstrip().startswith("#") for n in settings)


def test_schema_accepts_the_defaults_and_refuses_a_typo() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(schema_json())
    values = yaml.safe_load(default_yaml())
    jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values | {"sead": 1}, schema)


def test_resolved_settings_round_trip(tmp_path: Path) -> None:
    config = parse_config({"scale": "tiny", "train": {"tune": {"samples": 7}}}, "test")
    write_resolved(config, tmp_path / "out.yaml")
    assert load_config(tmp_path / "out.yaml") == config


@pytest.mark.parametrize("path", sorted(Path("config/scales").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_scale_is_valid_and_named_like_its_file(path: Path) -> None:
    assert load_config(["config/config.yaml", path]).scale == path.stem

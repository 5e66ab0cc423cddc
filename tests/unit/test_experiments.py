"""The experiment, benchmark and pooling tables: contents and errors that name file, line and column."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from visiontokens.config import (
    ConfigError,
    Experiment,
    load_benchmarks,
    load_config,
    load_experiments,
    load_pooling,
    parse_config,
    read_experiments,
    seeds_of,
    weights_root,
)

TABLE = Path("config/experiments.tsv")
HEAD = TABLE.read_text(encoding="utf-8").splitlines()[0]
BASE = "base\tBase\tllava\tvolta-2\tnone\tnone\t\t\tmain\t3\t\t"


def table(folder: Path, *rows: str, head: str = HEAD) -> Path:
    for kind in ("methods", "schedules"):
        shutil.copytree(Path("config") / kind, folder / kind, dirs_exist_ok=True)
    path = folder / "experiments.tsv"
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def test_the_shipped_table_is_valid_and_holds_the_main_rows() -> None:
    rows = read_experiments(TABLE)
    main = {name for name, row in rows.items() if row.set == "main"}
    assert {"none", "avgpool", "stf", "stf-mbtf", "vcc-2-8", "qformer-32"} <= main
    core = [row for row in rows.values() if row.set in {"main", "full", "13b"}]
    assert {row.paper for row in core} == {"llava", "stf", "volta"}
    assert all(row.tables for row in core)


@pytest.mark.parametrize(
    ("row", "line", "words"),
    [
        (BASE, 3, ["duplicate id 'base'"]),
        ("a\tA\tstf\tstf-3\tstff\tstf\t\t\tmain\t3\t\t", 3, ["column 'method'", "'stff'", "'stf'"]),
        ("a\tA\tstf\tstf-3\tstf\tavgpol\t\t\tmain\t3\t\t", 3, ["column 'train_method'", "'avgpol'", "'avgpool'"]),
        ("a\tA\tvolta\tvolta-2\tnone\tnone\ttwoo\t\tmain\t3\t\t", 3, ["unknown schedule 'twoo'", "'two'"]),
        ("a\tA\tvolta\tvolta-3\tnone\t\t\tbasis\tmain\t3\t\t", 3, ["unknown experiment 'basis'", "'base'"]),
        ("a\tA\tvolta\tvolta-3\tnone\t\t\t\tmain\t3\t\t", 3, ["needs a train_method"]),
        ("a\tA\tvolta\tvolta-3\tnone\tnone\t\tbase\tmain\t3\t\t", 3, ["leave train_method and schedule empty"]),
        ("a\tA\tvolta\tvolta-3\tnone\t\t\ta\tmain\t3\t\t", 3, ["circle: a -> a"]),
        ("a\tA\tother\tvolta-3\tnone\tnone\t\t\tmain\t3\t\t", 3, ["column 'paper'", "'other'"]),
        ("a\tA\tstf\tstf-3\tnone\tnone\t\t\tmain\tfew\t\t", 3, ["column 'seeds'", "'few'"]),
        ("a\tA\tstf", 3, ["found 3 columns, expected 12"]),
    ],
)
def test_a_bad_row_is_reported_with_file_line_and_closest_name(
    tmp_path: Path, row: str, line: int, words: list[str]
) -> None:
    path = table(tmp_path, BASE, row)
    with pytest.raises(ConfigError) as caught:
        read_experiments(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    for word in words:
        assert word in str(caught.value)


def test_a_longer_circle_and_main_on_full_weights_are_refused(tmp_path: Path) -> None:
    borrow = "{}\tX\tvolta\tvolta-3\tnone\t\t\t{}\tmain\t3\t\t"
    with pytest.raises(ConfigError, match="circle: a -> b -> a"):
        read_experiments(table(tmp_path, borrow.format("a", "b"), borrow.format("b", "a")))
    with pytest.raises(ConfigError, match="its weights 'base' are in set 'full'"):
        read_experiments(table(tmp_path, BASE.replace("\tmain\t", "\tfull\t"), borrow.format("a", "base")))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (HEAD.replace("method", "metod", 1), "unknown column 'metod'; did you mean 'method'"),
        ("id\tlabel", "expected id,"),
    ],
)
def test_a_bad_header_is_reported(tmp_path: Path, head: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_experiments(table(tmp_path, head=head))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tsv"):
        read_experiments(tmp_path / "nowhere.tsv")


def test_scales_choose_rows_and_seeds() -> None:
    mini = load_config(["config/config.yaml", "config/scales/mini.yaml"])
    full = load_config(["config/config.yaml", "config/scales/mini-full.yaml"])
    rows = read_experiments(TABLE)
    assert set(load_experiments(mini)) < set(load_experiments(full))
    assert set(load_experiments(full)) == {name for name, row in rows.items() if row.set in {"main", "full"}}
    assert list(seeds_of(mini, load_experiments(mini), "vcc-2-8-test")) == [0]
    assert list(seeds_of(full, load_experiments(full), "vcc-2-8-test")) == [0, 1, 2]


def test_only_brings_the_weights_along_and_reports_a_typo() -> None:
    chosen = load_experiments(parse_config({"experiments": {"only": ["vcc-2-8-test"]}}, "test"))
    assert list(chosen) == ["none", "vcc-2-8-test"]
    assert weights_root(chosen, "vcc-2-8-test") == "none"
    with pytest.raises(ConfigError, match=r"unknown experiment 'stf-mbft'.*'stf-mbtf'"):
        load_experiments(parse_config({"experiments": {"only": ["stf-mbft"]}}, "test"))


def test_chosen_rows_bring_the_redundancy_studys_model_along() -> None:
    assert list(load_experiments(parse_config({"experiments": {"only": ["stf-mbtf"]}}, "test"))) == ["none", "stf-mbtf"]
    with pytest.raises(ConfigError, match=r"redundancy\.model: unknown experiment 'non'.*'none'"):
        load_experiments(parse_config({"redundancy": {"model": "non"}}, "test"))


def test_benchmarks_keep_the_order_of_the_setting_and_a_typo_is_reported() -> None:
    config = parse_config({"evaluate": {"benchmarks": ["pope", "gqa"]}}, "test")
    assert list(load_benchmarks(config)) == ["pope", "gqa"]
    with pytest.raises(ConfigError, match=r"unknown benchmark 'popee'.*'pope'"):
        load_benchmarks(parse_config({"evaluate": {"benchmarks": ["popee"]}}, "test"))


def test_pooling_grid_is_that_of_figure_1() -> None:
    points = {(point.layer, point.stride) for point in load_pooling(parse_config({}, "test"))}
    assert points == {(layer, stride) for layer in (2, 8, 16) for stride in (4, 8, 16, 64)}


def test_tables_are_split_and_an_empty_tolerance_is_none() -> None:
    row = read_experiments(TABLE)["none"]
    assert isinstance(row, Experiment)
    assert "volta-2" in row.tables
    assert row.tolerance is None

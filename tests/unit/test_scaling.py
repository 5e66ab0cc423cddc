"""The scaling law: the published fit is recomputed, and what the data cannot say is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_training import config_of, make_world

from visiontokens.analyze.collect import benchmarks
from visiontokens.analyze.reference import ResultError
from visiontokens.analyze.scaling import Study, fit, grid_search, own_points, published_points, study
from visiontokens.compress import MethodSpec
from visiontokens.config import load_config, load_experiments
from visiontokens.models.build import CheckpointError, build_model
from visiontokens.report.figures import scaling_figure
from visiontokens.report.scaling import scaling_table

# Recomputed before from the official code's own points, as printed: offset, alpha, beta, squared residuals.
PRINTED = [
    ("0", ".071", ".015", "3.80e-4"),
    (".0333333333", ".076", ".016", "3.92e-4"),
    (".1", ".087", ".0185", "4.21e-4"),
    (".3", ".159", ".0335", "6.91e-4"),
]


def unit(text: str) -> float:
    """One unit of the last printed digit."""
    mantissa, _, power = text.partition("e")
    return float(10.0 ** (int(power or 0) - len(mantissa.partition(".")[2])))


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    return published_points()


@pytest.fixture(scope="module")
def published(points: pd.DataFrame) -> Study:
    return study(points, resamples=300)


@pytest.mark.parametrize(("offset", "alpha", "beta", "sse"), PRINTED)
def test_the_fit_at_a_fixed_offset_is_the_printed_one(points, offset, alpha, beta, sse) -> None:
    found = fit(points, float(offset))
    assert found.alpha == pytest.approx(float(alpha), abs=unit(alpha))
    assert found.beta == pytest.approx(float(beta), abs=unit(beta))
    assert found.sse == pytest.approx(float(sse), abs=2 * unit(sse))  # the points are typed with four digits


def test_the_whole_official_grid_has_the_printed_optimum(points: pd.DataFrame) -> None:
    found = grid_search(points)
    got = (found.amplitude, found.alpha, found.beta, found.offset, found.sse)
    for value, text in zip(got, (".5571", ".0747", ".0162", ".0333", "3.96e-4"), strict=True):
        assert value == pytest.approx(float(text), abs=0.51 * unit(text))


def test_no_least_squares_fit_is_worse_than_a_grid_point(points: pd.DataFrame) -> None:
    best = grid_search(points)
    assert fit(points, best.offset).sse <= best.sse


def test_the_offset_is_not_identifiable_and_the_ratio_is(published: Study) -> None:
    assert not published.identifiable
    alpha, ratio = published.over_offsets("alpha"), published.over_offsets("ratio")
    assert alpha[0] == 0.0 < alpha[1]
    assert ratio[1] / ratio[0] < 1.02
    low, high = published.interval("ratio")
    assert low < published.zero.ratio < high
    assert low < ratio[0] and ratio[1] < high


def grid(offset: float, noise: float = 0.0) -> pd.DataFrame:
    """Points of a known law over two decades of both quantities."""
    size, tokens = (a.ravel() for a in np.meshgrid([0.1, 1.0, 10.0, 100.0], [1.0, 10.0, 100.0, 1000.0]))
    error = 0.5 * size**-0.3 * tokens**-0.1 + offset
    draw = np.random.default_rng(0).normal(0, noise, len(error))
    return pd.DataFrame({"parameters_billion": size, "tokens": tokens, "error": error + draw})


def test_a_known_law_is_found_again() -> None:
    found = fit(grid(0.05), 0.05)
    got = (found.amplitude, found.alpha, found.beta)
    assert got == pytest.approx((0.5, 0.3, 0.1), rel=1e-6)
    assert found.sse < 1e-20


def test_strong_curvature_identifies_the_offset() -> None:
    told = study(grid(0.05, noise=1e-3), resamples=50)
    assert told.identifiable
    assert told.offsets[0] <= 0.05 <= told.offsets[1]
    assert told.offsets[1] - told.offsets[0] < 0.05
    low, high = told.interval("free_alpha")
    assert low < 0.3 < high


@pytest.mark.parametrize("keep", [slice(0, 4), slice(0, 3), slice(0, 16, 4)])
def test_too_few_points_are_refused(keep: slice) -> None:
    with pytest.raises(ValueError, match="expected at least 4 points of 2 and 2"):
        fit(grid(0.0).iloc[keep])


def test_an_offset_above_an_error_is_refused(points: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="expected less than every error"):
        fit(points, 0.6)


def write_point(folder: Path, experiment: str, size: int, tokens: float, values: dict[str, float]) -> None:
    for seed in (0, 1):
        place = folder / "scores" / experiment / f"seed{seed}"
        place.mkdir(parents=True)
        for name, value in values.items():
            record = {"benchmark": name, "metric": "accuracy", "value": value + seed, "n": 10}
            (place / f"{name}.json").write_text(json.dumps(record))
    cost = {"tokens_total": 8 * tokens, "tokens_mean": tokens, "compression_ratio": 1, "prefill_flops": 1}
    cost |= {"prefill_ms": 1, "parameters_llm": size}
    (folder / "efficiency").mkdir(exist_ok=True)
    (folder / "efficiency" / f"{experiment}.json").write_text(json.dumps(cost))


def test_our_own_grid_is_collected(tmp_path: Path) -> None:
    for size in (2, 8):
        write_point(tmp_path / f"s{size}", "none", size * 10**6, 576, {"gqa": 50.0, "mme": 1000.0})
        write_point(tmp_path / f"s{size}", "avgpool", size * 10**6, 144, {"gqa": 40.0, "mme": 900.0})
    found = own_points([tmp_path / "s2", tmp_path / "s8"], ["none", "avgpool", "missing"])
    assert found["parameters_billion"].tolist() == [0.002, 0.002, 0.008, 0.008]
    assert found["tokens"].tolist() == [576, 144, 576, 144]
    divisor = benchmarks()["divisor"]
    wanted = 1 - np.mean([50.5 / divisor["gqa"], 1000.5 / divisor["mme"]]) / 100
    assert found["error"].iloc[0] == pytest.approx(wanted)
    shutil.rmtree(tmp_path / "s8/scores/none/seed1")
    (tmp_path / "s8/scores/none/seed0/mme.json").unlink()
    with pytest.raises(ResultError, match="several sets of benchmarks"):
        own_points([tmp_path / "s2", tmp_path / "s8"], ["none", "avgpool"])


def test_table_and_figure_show_results_or_their_absence(published: Study) -> None:
    table = scaling_table({"Published": published, "Mini": None}).frame
    assert table.loc[0, "D identifiable"] == "no"
    assert set(table.loc[1].tolist()) == {"Mini", "not run"}
    drawn = scaling_figure(published)
    assert [len(axis.lines) for axis in drawn.axes] == [8, 4]
    assert not scaling_figure(None).axes[0].lines


def test_the_grid_of_the_scale_has_five_token_counts_and_three_sizes() -> None:
    base = ["config/config.yaml", "config/scales/mini-scaling.yaml"]
    configs = [
        load_config([*base, *over])
        for over in ([], ["config/scales/mini-scaling-4.yaml"], ["config/scales/mini-scaling-2.yaml"])
    ]
    assert [config.backbones.llm_layers for config in configs] == [None, 4, 2]
    assert len({config.results_dir for config in configs}) == 3
    assert len({config.data_dir for config in configs}) == 1
    windows = []
    for row in load_experiments(configs[0]).values():
        params = MethodSpec.from_yaml(Path(f"config/methods/{row.method}.yaml")).params
        windows.append(int(params.get("window", 1)))
    assert sorted(576 // window**2 for window in windows) == [1, 16, 36, 144, 576]


def test_a_cut_model_is_the_first_layers_of_the_whole_one(tmp_path: Path) -> None:
    make_world(tmp_path, count=6)
    folders = config_of(tmp_path).backbones
    whole = build_model(folders.tower, folders.llm, MethodSpec(), 0)
    cut = build_model(folders.tower, folders.llm, MethodSpec(), 0, llm_layers=1)
    text = cut.config.text_config
    assert text.num_hidden_layers == len(cut.model.language_model.layers) == cut.geometry.llm_layers == 1
    names = dict(whole.named_parameters())
    assert all((names[name] == value).all() for name, value in cut.named_parameters())
    with pytest.raises(CheckpointError, match="expected at least llm_layers 99"):
        build_model(folders.tower, folders.llm, MethodSpec(), 0, llm_layers=99)

"""Figures: drawn from full, partial and absent results, byte-stable, legible."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from synthetic_results import write_results

from visiontokens.analyze import collect
from visiontokens.analyze.reference import reference
from visiontokens.report.book import Book
from visiontokens.report.figures import (
    attention_by_layer,
    feature_similarity,
    pareto,
    redundancy_curves,
    tower_probe,
    training_curves,
)
from visiontokens.report.figures.ablation import bars_of
from visiontokens.report.figures.efficiency import COSTS, cost_points, front, place_labels
from visiontokens.report.figures.inside import published_attention
from visiontokens.report.figures.radar import radar_of
from visiontokens.report.figures.redundancy import published_curve
from visiontokens.report.style import FAMILIES, OTHER, method_style, new_figure, save_figure

MAIN = ["none", "avgpool", "stf-mbtf", "vcc-2-8", "vcc-2-8-test"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("mini"), only=MAIN)


@pytest.fixture(scope="module")
def nothing(tmp_path_factory):
    return tmp_path_factory.mktemp("nothing")


def figures(root):
    """Return every figure of the report, drawn from the results under `root`."""
    book = Book.load(root)
    labels = dict(book.benchmarks["label"])
    return {
        "curves": redundancy_curves(
            collect.redundancy(root, "curve"), published_curve(reference("volta", "fig1_left")), labels
        ),
        "attention": attention_by_layer(
            collect.redundancy(root, "attention"), published_attention(reference("volta", "fig1_right"))
        ),
        "similarity": feature_similarity(collect.redundancy(root, "similarity")),
        "probe": tower_probe(collect.redundancy(root, "probe")),
        "training": training_curves(collect.training_logs(root), dict(book.experiments["label"])),
        "radar": radar_of(book, "stf", "fig1"),
        "bars": bars_of(book, ["volta-2", "volta-3"]),
        "pareto": pareto(cost_points(book), COSTS),
    }


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.fixture(scope="module")
def drawn(results):
    return figures(results)


def test_every_figure_is_drawn(drawn):
    assert all(figure.axes for figure in drawn.values())
    assert not any("not run" in text for name in drawn for text in texts(drawn[name]) if name != "bars")


def test_without_results_every_figure_says_so(nothing):
    for name, figure in figures(nothing).items():
        assert any("not run at this scale" in text for text in texts(figure)), name


def test_saving_twice_gives_the_same_bytes(results, tmp_path):
    points = cost_points(Book.load(results))
    first, second = (
        [path.read_bytes() for path in save_figure(pareto(points, COSTS[:1]), tmp_path / name)] for name in ("a", "b")
    )
    assert first == second
    assert first[0].startswith(b"\x89PNG") and first[1].startswith(b"%PDF")


def test_methods_differ_in_colour_and_marker():
    styles = [*FAMILIES.values(), OTHER]
    assert len({style.marker for style in styles}) == len(styles)
    for a, b in itertools.combinations(FAMILIES.values(), 2):
        assert sum((x - y) ** 2 for x, y in zip(to_rgb(a.color), to_rgb(b.color), strict=True)) > 0.02


def test_styles_follow_the_longest_family():
    assert method_style("stf-mbtf-k3") == FAMILIES["stf-mbtf"]
    assert method_style("stf") == FAMILIES["stf"]
    assert method_style("vcc-2-8-test") == FAMILIES["vcc"]
    assert method_style("something-new") == OTHER


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(0, 100)), min_size=1, max_size=20))
def test_the_front_is_what_nothing_dominates(points):
    cost, score = zip(*points, strict=True)
    kept = front(cost, score)
    for i in kept:
        assert not any(c <= cost[i] and s > score[i] for c, s in points)
    for c, s in points:
        assert any(cost[i] <= c and score[i] >= s for i in kept)


def test_labels_do_not_cover_each_other():
    figure = new_figure(7, 4)
    axis = figure.subplots()
    xs = [100, 101, 102, 104, 400, 576]
    ys = [70, 70.2, 70.1, 69.9, 71, 71.2]
    axis.plot(xs, ys, "o")
    axis.margins(0.12)
    figure.draw_without_rendering()
    place_labels(axis, xs, ys, [f"A method, number {i}" for i in range(6)])
    boxes = [t.get_window_extent() for t in axis.texts if t.get_text()]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_published_curve_holds_the_printed_points():
    curve = published_curve(reference("volta", "fig1_left"))
    assert len(curve) == 13
    row = curve[(curve["layer"] == 8) & (curve["stride"] == 4)].iloc[0]
    assert (row["kept"], row["value"]) == (0.4375, 59.06)
    assert curve.loc[curve["stride"] == 1, "kept"].item() == 1


def test_cost_points_have_score_and_cost(results):
    points = cost_points(Book.load(results))
    assert set(points["experiment"]) == set(MAIN)
    assert isinstance(points, pd.DataFrame) and points.notna().all().all()

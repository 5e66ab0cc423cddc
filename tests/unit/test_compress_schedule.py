"""Stages: depths that scale, fractions that add up, files that are checked."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visiontokens.compress.base import Geometry
from visiontokens.compress.schedule import Depth, Schedule, Stage, official_forward_counting
from visiontokens.train.stages import CountedSchedule

SCHEDULES = Path(__file__).parents[2] / "config" / "schedules"


@pytest.mark.parametrize(
    ("text", "layers", "index"),
    [
        ("2/32", 32, 2),
        ("2/32", 8, 1),
        ("1/32", 8, 1),
        ("8/32", 8, 2),
        ("16/32", 8, 4),
        (16, 8, 4),
        (-1, 8, -1),
        ("2/4", 4, 2),
    ],
)
def test_depths_scale(text, layers, index):
    assert Depth.parse(text).at(layers) == index


def test_tower_levels_scale():
    mini, paper = Geometry(128, 8, (24, 24), 128, 8), Geometry(1024, 24, (24, 24), 4096, 32)
    blocks = (-2, 21, 18, 15, 12, 9, 6, 3)
    assert [paper.level(b) for b in blocks] == [23, 21, 18, 15, 12, 9, 6, 3]
    assert [mini.level(b) for b in blocks] == [7, 7, 6, 5, 4, 3, 2, 1]
    assert mini.default_level == 7


@given(st.lists(st.floats(0.01, 0.99), min_size=0, max_size=4, unique=True), st.integers(1, 400))
def test_every_step_has_one_stage_and_stages_only_advance(ends, total):
    stages = [Stage(layer="2/32", stride=2, until=end) for end in [*sorted(ends), 1.0]]
    numbers = [Schedule(stages=tuple(stages)).index_at(step, total) for step in range(total)]
    assert numbers == sorted(numbers)
    for number, stage in enumerate(stages):
        done = sum(n <= number for n in numbers)
        assert abs(done - stage.until * total) <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("unit", "untils", "ends"),
    [
        ("run", (0.25, 0.5), [30, 60, 120]),
        ("epochs", (0.5, 1.5), [20, 60, 120]),
        ("steps", (7, 110), [7, 110, 120]),
        ("steps", (7, 500), [7, 120, 120]),
    ],
)
def test_stages_end_at_shares_of_the_run_epochs_or_steps(unit, untils, ends):
    stages = (*(Stage(layer="2/32", stride=2, until=until) for until in untils), Stage())
    schedule = Schedule(stages=stages, unit=unit)
    assert schedule.ends(total=120, epochs=3.0) == ends
    first = next(step for step in range(120) if schedule.index_at(step, 120, 3.0) > 0)
    assert first == ends[0]


def test_mistakes_in_schedules(tmp_path):
    with pytest.raises(ValueError, match="must rise"):
        Schedule(stages=(Stage(until=0.5), Stage(until=0.5), Stage()))
    with pytest.raises(ValueError, match="lasts to the end"):
        Schedule(stages=(Stage(until=0.5),))
    with pytest.raises(ValueError, match="lasts to the end"):
        Schedule(stages=(Stage(until=5), Stage(until=10)), unit="steps")
    with pytest.raises(ValueError, match="share of the run"):
        Schedule(stages=(Stage(until=300), Stage()))
    with pytest.raises(ValueError, match=r"outside 0\.\.9"):
        Schedule(stages=(Stage(),)).at(10, 10)
    path = tmp_path / "s.yaml"
    path.write_text("- {layer: 0, stride: 2}\n")
    with pytest.raises(ValueError, match=r"(?s)s\.yaml: .*needs layer >= 1"):
        Schedule.from_yaml(path)
    with pytest.raises(FileNotFoundError, match="holds: s"):
        Schedule.from_yaml(tmp_path / "t.yaml")


@pytest.mark.parametrize("path", sorted(SCHEDULES.glob("*.yaml")), ids=lambda p: p.stem)
def test_schedule_files(path):
    schedule = CountedSchedule.from_yaml(path)
    assert {schedule.index_at(step, 1000) for step in range(1000)} == set(range(len(schedule.stages)))


def test_official_counting_refuses_uneven_lists():
    with pytest.raises(ValueError, match="as many strides as layers"):
        list(official_forward_counting([8, 1], [2], [3], 1))

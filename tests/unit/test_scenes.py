import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visiontokens.data.miniworld import scenes as world
from visiontokens.data.miniworld.scenes import SPLITS, Scenes, digit_bank, digit_instances


def boxes(scenes: Scenes, i: int) -> list[tuple[int, int, int, int]]:
    """The drawn extent (left, top, right, bottom; half-open, px) of everything in scene i."""
    found = []
    for o in np.flatnonzero(scenes.present[i]):
        half = int(np.ceil(world.RADII[scenes.size[i, o]]))
        x, y = int(scenes.x[i, o]), int(scenes.y[i, o])
        found.append((x - half, y - half, x + half, y + half))
    if scenes.plate[i]:
        x, y, px = int(scenes.plate_x[i]), int(scenes.plate_y[i]), int(scenes.digit_px[i])
        width, height = world.plate_size(np.array(px), scenes.n_digits[i].astype(int))
        margin = world.PLATE_MARGIN
        found.append((x - margin, y - margin, x + int(width) + margin, y + int(height) + margin))
    return found


def test_same_arguments_give_the_same_scenes_and_other_seeds_others():
    first, again, other = (Scenes.sample(40, seed, "train", blur=0.3) for seed in (1, 1, 2))
    for name in first.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.x, other.x)


def test_splits_own_disjoint_digit_scans_that_cover_the_bank():
    owned = [set(digit_instances(s).tolist()) for s in SPLITS]
    assert sum(map(len, owned)) == len(set.union(*owned)) == len(digit_bank()[1])
    for rows in owned:
        share = np.bincount(digit_bank()[1][sorted(rows)], minlength=10) / len(rows)
        assert share.min() > 0.08


def test_splits_are_disjoint_by_scene_and_by_digit_instance():
    drawn = {s: Scenes.sample(2000, 0, s) for s in SPLITS}
    for code, split in enumerate(SPLITS):
        used = drawn[split].digit_index[drawn[split].digits >= 0]
        assert set(used.tolist()) <= set(digit_instances(split).tolist())
        assert set((drawn[split].noise_seed % len(SPLITS)).tolist()) == {code}
    seeds = [set(d.noise_seed.tolist()) for d in drawn.values()]
    assert not seeds[0] & seeds[1] and not seeds[0] & seeds[2] and not seeds[1] & seeds[2]


def test_digits_are_the_classes_of_their_scans_and_numbers_have_no_leading_zero():
    scenes = Scenes.sample(800, 3, "validation")
    used = scenes.digits >= 0
    np.testing.assert_array_equal(scenes.digits[used], digit_bank()[1][scenes.digit_index[used]])
    np.testing.assert_array_equal(used.sum(1), scenes.n_digits)
    numbers = [s.number for s in scenes if s.number]
    assert len({len(n) for n in numbers}) == world.MAX_DIGITS
    assert not any(n[0] == "0" for n in numbers if len(n) > 1)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), split=st.sampled_from(SPLITS), plate=st.sampled_from([0.0, 0.8, 1.0]))
def test_nothing_overlaps_or_leaves_the_image(seed, split, plate):
    scenes = Scenes.sample(12, seed, split, plate=plate, objects=(5, 5))
    for i in range(len(scenes)):
        found = boxes(scenes, i)
        assert all(a >= 0 and b >= 0 and c <= 96 and d <= 96 for a, b, c, d in found)
        for k, (a, b, c, d) in enumerate(found):
            assert all(c <= e or g <= a or d <= f or h <= b for e, f, g, h in found[k + 1 :])


def test_objects_are_as_many_as_asked_for_and_off_the_patch_grid():
    scenes = Scenes.sample(3000, 0, "train", objects=(2, 4))
    count = scenes.present.sum(1)
    assert count.max() == 4 and (count < 2).mean() < 0.005
    phase = np.bincount(scenes.x[scenes.present] % 4, minlength=4) / scenes.present.sum()
    assert phase.min() > 0.2


def test_everything_is_drawn_about_equally_often():
    scenes = Scenes.sample(4000, 0, "train")
    for name, words in (("color", 8), ("shape", 6), ("size", 2), ("texture", 2)):
        share = np.bincount(getattr(scenes, name)[scenes.present], minlength=words) / scenes.present.sum()
        assert np.abs(share * words - 1).max() < 0.15, name
    for values in (scenes.n_digits[scenes.plate], scenes.digit_px[scenes.plate]):
        share = np.unique(values, return_counts=True)[1] / scenes.plate.sum()
        assert np.abs(share * len(share) - 1).max() < 0.1
    assert abs(scenes.plate.mean() - 0.8) < 0.03


def test_views_speak_in_words():
    scenes = Scenes.sample(200, 0, "train", blur=0.5)
    i = int(np.flatnonzero(scenes.plate & (scenes.blur == 0) & (scenes.present.sum(1) > 1))[0])
    view, o = scenes[i], int(np.flatnonzero(scenes.present[i])[0])
    assert view.objects[0].color == world.COLORS[scenes.color[i, o]]
    assert view.objects[0].row == scenes.y[i, o] // 24 and view.objects[0].col == scenes.x[i, o] // 24
    assert view.number == "".join(map(str, scenes.digits[i, : scenes.n_digits[i]])) and view.legible
    assert view.plate_xy == (scenes.plate_x[i], scenes.plate_y[i])
    bare = scenes[int(np.flatnonzero(~scenes.plate)[0])]
    assert bare.number is None and bare.plate_xy is None and not bare.legible
    assert not any(scenes[int(j)].legible for j in np.flatnonzero(scenes.blur > 0))


def test_select_takes_positions_masks_and_slices():
    scenes = Scenes.sample(10, 0, "test")
    assert len(scenes.select([3, 3])) == 2
    np.testing.assert_array_equal(scenes.select(scenes.plate).x, scenes.x[scenes.plate])
    np.testing.assert_array_equal(scenes.select(slice(2, 4)).noise_seed, scenes.noise_seed[2:4])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"'dev'.*train, validation, test"):
        Scenes.sample(1, 0, "dev")
    with pytest.raises(ValueError, match=r"objects.*\(3, 6\)"):
        Scenes.sample(1, 0, "train", objects=(3, 6))

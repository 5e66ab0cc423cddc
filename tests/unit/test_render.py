import time

import numpy as np
import pytest

from visiontokens.data.miniworld import render as draw
from visiontokens.data.miniworld.render import patch_labels, render
from visiontokens.data.miniworld.scenes import RADII, Scenes, digit_bank


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes.sample(200, 0, "train", blur=0.2)


@pytest.fixture(scope="module")
def images(scenes):
    return render(scenes)


def test_images_are_rgb_bytes_and_depend_on_their_own_scene_only(scenes, images):
    assert images.shape == (200, 96, 96, 3) and images.dtype == np.uint8
    picked = [150, 7, 80]
    np.testing.assert_array_equal(render(scenes.select(picked)), images[picked])


def test_objects_show_their_colour_at_their_place(scenes, images):
    where = scenes.present & (scenes.texture == 0) & (scenes.shape != 4) & (scenes.blur == 0)[:, None]  # no rings
    image, slot = np.nonzero(where)
    shown = images[image, scenes.y[image, slot], scenes.x[image, slot]].astype(float)
    wanted = draw.PALETTE[scenes.color[image, slot]]
    assert len(image) > 100
    assert np.abs(shown - wanted).max() < 5 * draw.NOISE_SIGMA


def test_neighbours_do_not_cut_into_each_other():
    crowd = Scenes.sample(300, 1, "train", objects=(5, 5))
    canvas = draw.blank(np.zeros((300, 3)), np.zeros(300, int))
    objects = draw.objects_of(crowd)
    draw.stamp_objects(canvas, objects)
    area = draw.sprites()[objects.shape, objects.size, objects.texture].sum((1, 2)) * draw.PALETTE[objects.color, 0]
    np.testing.assert_allclose(canvas[..., 0].sum((1, 2)), np.bincount(objects.image, area, 300), rtol=1e-4)


def test_shapes_sizes_and_textures_are_all_different():
    bank = draw.sprites().reshape(24, -1)
    distance = np.abs(bank[:, None] - bank[None]).sum(-1) + 1e9 * np.eye(24)
    assert distance.min() > 10
    for j, radius in enumerate(RADII):
        rows = draw.sprites()[0, j, 0].sum(1)
        assert (rows > 0).sum() == pytest.approx(2 * radius, abs=1)


def test_digits_are_legible_as_ink_on_a_white_plate():
    scenes = Scenes.sample(300, 2, "test", plate=1.0, objects=(0, 0))
    pixels = render(scenes)
    for px in (8, 12, 16):
        digits = draw.digits_of(scenes)
        m = digits.px == px
        places = zip(digits.image[m], digits.x[m], digits.y[m], strict=True)
        ink = 1 - np.stack([pixels[i, y : y + px, x : x + px, 0] for i, x, y in places]) / draw.PLATE_COLOR
        own = draw.digit_sprites(px)
        distance = (own**2).sum((1, 2)) - 2 * np.einsum("nij,mij->nm", ink, own)
        nearest = digit_bank()[1][distance.argmin(1)]
        assert (nearest == digit_bank()[1][digits.scan[m]]).mean() > 0.9


def test_blur_takes_the_number_away_and_leaves_the_mean():
    sharp = Scenes.sample(100, 3, "train", plate=1.0)
    soft = Scenes.sample(100, 3, "train", plate=1.0, blur=1.0)
    np.testing.assert_array_equal(sharp.digit_index, soft.digit_index)
    a, b = render(sharp).astype(float), render(soft).astype(float)
    digits = draw.digits_of(sharp)
    contrast = [[im[i, y : y + p, x : x + p].std() for i, x, y, p, _ in zip(*digits, strict=True)] for im in (a, b)]
    assert np.mean(contrast[1]) < 0.35 * np.mean(contrast[0])
    assert np.abs(a.mean((1, 2)) - b.mean((1, 2))).mean() < 3


def test_labels_name_the_patches_under_things(scenes):
    labels = patch_labels(scenes)
    assert labels.shape == (200, 5, 24, 24)
    image, slot = np.nonzero(scenes.present & (scenes.size == 1))
    at = labels[image, :4, scenes.y[image, slot] // 4, scenes.x[image, slot] // 4]
    kinds = [getattr(scenes, k)[image, slot] for k in draw.LABELS[:4]]
    np.testing.assert_array_equal(at, 1 + np.stack(kinds, 1))
    digits = draw.digits_of(scenes)
    centre = labels[digits.image, 4, (digits.y + digits.px // 2) // 4, (digits.x + digits.px // 2) // 4]
    assert (centre == 1 + digit_bank()[1][digits.scan]).mean() > 0.99
    assert not ((labels[:, 4] > 0) & (labels[:, 0] > 0)).any()
    assert (labels == 0).mean() > 0.8


def test_drawing_is_fast():
    scenes = Scenes.sample(500, 0, "train", blur=0.05)
    render(scenes.select(slice(0, 8)))
    start = time.process_time()
    render(scenes)
    assert (time.process_time() - start) / 500 < 2e-3  # seconds per image; about 0.35e-3 on an idle core

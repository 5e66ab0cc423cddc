"""Dense crops for the mini tower: packed with number plates and objects, so that every training token teaches.

A whole scene spends most of its patches on background. A crop is filled in strips, each one either number plates of
one digit size or objects; the positions stay free of the patch grid.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visiontokens.data.miniworld import render as draw
from visiontokens.data.miniworld import scenes as world

SIDE = 48  # px
MIX = (0.15, 0.35, 0.3, 0.2)  # chances of a strip of objects, and of digits of 8, 12 and 16 px
_OBJECTS = 0  # the kind of a strip: objects, or the px of its digits
_KINDS = (_OBJECTS, *world.DIGIT_SIZES)
_TRIES = 14  # tries at a further strip, and at a further plate in a strip: what does not fit is passed over


class Crops(NamedTuple):
    """Images `[N, side, side, 3]` uint8 and their patch labels `[N, 5, grid, grid]` (channels of `render.LABELS`)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int16]


def sample_crops(
    n: int, rng: np.random.Generator, split: str, kinds: tuple[float, ...] = MIX, side: int = SIDE
) -> Crops:
    """Draw `n` crops of `split`; `kinds` are the chances of a strip of objects and of 8, 12 and 16 px digits.

    `side` is the width and height in px, up to a whole image's.
    """
    layouts = [_layout(rng, kinds, side) for _ in range(n)]
    placed = np.array([(i, *place) for i, layout in enumerate(layouts) for place in layout])
    images = draw.blank(rng.integers(20, 90, (n, 3)), rng.integers(len(world.BACKGROUNDS), size=n), side)
    labels = np.zeros((n, len(draw.LABELS), side // draw.PATCH, side // draw.PATCH), np.int16)
    are_objects = placed[:, 3] == _OBJECTS
    objects = _random_objects(placed[are_objects], rng)
    draw.stamp_objects(images, objects)
    draw.label_objects(labels, objects)
    plates = draw.Plates(*placed[~are_objects].T)
    digits = _random_digits(plates, rng, split)
    draw.stamp_plates(images, plates)
    draw.stamp_digits(images, digits)
    draw.label_digits(labels, digits)
    return Crops(draw.finish(images, np.zeros(n), rng.integers(2**40, size=n)), labels)


def _layout(rng: np.random.Generator, kinds: tuple[float, ...], side: int) -> list[tuple[int, int, int, int]]:
    """Lay out one crop: strips from top to bottom, each from left to right, with small random gaps.

    Returns:
        x, y (of an object's centre or a plate's first digit), px of the digits or 0, size or number of digits.
    """
    placed, margin, top = [], world.PLATE_MARGIN, int(rng.integers(0, 3))
    for px in rng.choice(_KINDS, _TRIES, p=kinds).tolist():
        size = int(rng.integers(2)) if px == _OBJECTS else 0
        half = int(world.HALF_BOX[size])
        height = 2 * half if px == _OBJECTS else px + 2 * margin
        if top + height > side:
            continue
        left = int(rng.integers(0, 4))
        for count in rng.integers(1, world.MAX_DIGITS + 1, _TRIES).tolist():
            width = 2 * half if px == _OBJECTS else count * (px + px // 8) - px // 8 + 2 * margin
            if left + width > side:
                continue
            place = (half, half, _OBJECTS, size) if px == _OBJECTS else (margin, margin, px, count)
            placed.append((left + place[0], top + place[1], place[2], place[3]))
            left += width + int(rng.integers(0, 5))
        top += height + int(rng.integers(0, 3))
    return placed


def _random_objects(placed: NDArray, rng: np.random.Generator) -> draw.Objects:
    """Give the objects of a layout random colours, shapes and textures."""
    image, x, y, _, size = placed.T
    counts = (len(world.COLORS), len(world.SHAPES), len(world.TEXTURES))
    color, shape, texture = (rng.integers(k, size=len(image)) for k in counts)
    return draw.Objects(image, x, y, color, shape, size, texture)


def _random_digits(plates: draw.Plates, rng: np.random.Generator, split: str) -> draw.Digits:
    """Fill plates with random digit scans of `split`."""
    image, x, y, px, count = plates
    plate = np.repeat(np.arange(len(image)), count)
    slot = np.arange(len(plate)) - np.repeat(np.cumsum(count) - count, count)
    px = px[plate]
    scans = rng.choice(world.digit_instances(split), len(plate))
    return draw.Digits(image[plate], x[plate] + slot * (px + px // 8), y[plate], px, scans)

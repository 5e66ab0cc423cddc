"""Scenes to pixels and to patch labels, by stamping small sprites at many places at once.

The stampers take flat lists (one entry per sprite: which image, where, what), so that the same code draws whole scenes
and the dense crops on which the mini vision tower is pretrained.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visiontokens.data.miniworld.scenes import (
    IMAGE_SIZE,
    PLATE_MARGIN,
    RADII,
    SHAPES,
    Scenes,
    digit_bank,
    digit_gap,
    plate_size,
)

PATCH = 4
PALETTE = np.array(
    [
        (220, 40, 40),
        (40, 170, 60),
        (50, 80, 220),
        (230, 210, 50),
        (150, 60, 180),
        (240, 140, 30),
        (60, 200, 210),
        (245, 245, 245),
    ],
    np.float32,
)  # RGB of scenes.COLORS
PLATE_COLOR = 235.0
PAD = 12  # px around a canvas, so that sprites near the border need no clipping
NOISE_SIGMA = 6.0  # grey levels
LABELS = ("color", "shape", "size", "texture", "digit")
_SPRITE = 24
_OVERSAMPLING = 8
_STRIPE_ALPHA = 0.25  # what the dark bands of a striped object keep of its colour
_NOISE_SIDE = 509  # prime, so that windows repeat late
_CHUNK = 64  # images drawn at a time; keeps the float canvas near the processor caches


class Objects(NamedTuple):
    """M objects as flat lists `[M]`: their image, centre in px and classes."""

    image: NDArray
    x: NDArray
    y: NDArray
    color: NDArray
    shape: NDArray
    size: NDArray
    texture: NDArray


class Plates(NamedTuple):
    """M white plates as flat lists `[M]`: their image, first digit's top left corner, size and number of digits."""

    image: NDArray
    x: NDArray
    y: NDArray
    px: NDArray
    length: NDArray


class Digits(NamedTuple):
    """M digits as flat lists `[M]`: their image, top left corner, size in px and row of the digit bank."""

    image: NDArray
    x: NDArray
    y: NDArray
    px: NDArray
    scan: NDArray


@lru_cache(maxsize=1)
def sprites() -> NDArray[np.float32]:
    """Return the objects' alpha masks `[shape, size, texture, 24, 24]`; the centre is at pixel corner (12, 12)."""
    side = _SPRITE * _OVERSAMPLING
    axis = (np.arange(side) + 0.5) / _OVERSAMPLING - _SPRITE / 2
    y, x = axis[:, None], axis[None, :]
    bands = np.where(np.arange(_SPRITE) % 4 >= 2, _STRIPE_ALPHA, 1.0)[:, None]
    bank = np.empty((len(SHAPES), len(RADII), 2, _SPRITE, _SPRITE), np.float32)
    for i, shape in enumerate(SHAPES):
        for j, radius in enumerate(RADII):
            inside = _inside(shape, x / radius, y / radius).astype(np.float32)
            alpha = inside.reshape(_SPRITE, _OVERSAMPLING, _SPRITE, _OVERSAMPLING).mean((1, 3))
            bank[i, j] = alpha, alpha * bands
    return bank


def _inside(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points of the plane belong to `shape` of radius 1 around the origin (y grows downwards)."""
    square = x**2 + y**2
    ax, ay = np.abs(x) + 0 * y, np.abs(y) + 0 * x
    outlines = {
        "circle": square <= 1,
        "square": np.maximum(ax, ay) <= 0.85,
        "triangle": (y <= 0.8) & (y >= -0.9) & (ax <= 0.6 * (y + 0.9)),
        "cross": (np.minimum(ax, ay) <= 0.32) & (np.maximum(ax, ay) <= 1),
        "ring": (square <= 1) & (square >= 0.25),
        "diamond": ax + ay <= 1.1,
    }
    return outlines[shape]


@lru_cache(maxsize=8)
def digit_sprites(px: int) -> NDArray[np.float32]:
    """Return the ink `[1797, px, px]` of every handwritten digit, linearly enlarged from 8 px."""
    ink = digit_bank()[0]
    centres = (np.arange(px) + 0.5) * 8 / px - 0.5
    weights = np.stack([np.interp(centres, np.arange(8), row) for row in np.eye(8)], axis=1).astype(np.float32)
    return np.clip(weights @ ink @ weights.T, 0, 1)


def blank(background: NDArray, texture: NDArray, side: int = IMAGE_SIZE) -> NDArray[np.float32]:
    """Return canvases `[N, side + 2 PAD, side + 2 PAD, 3]` with plain colours under a faint pattern (`BACKGROUNDS`)."""
    ramp = np.linspace(-12, 12, side + 2 * PAD, dtype=np.float32)
    wave = 6 * np.sin(np.arange(side + 2 * PAD, dtype=np.float32) * 2 * np.pi / 31)
    zero = np.zeros((len(ramp), len(ramp)), np.float32)
    patterns = np.stack([zero, zero + ramp, zero + ramp[:, None], wave + wave[:, None]])
    return background[:, None, None, :].astype(np.float32) + patterns[texture][..., None]


def stamp_objects(canvas: NDArray[np.float32], objects: Objects) -> None:
    """Blend objects into padded canvases, in place."""
    image, x, y, color, shape, size, texture = objects
    alpha = sprites()[shape, size, texture]
    which, row, col = np.nonzero(alpha)  # only what is covered: the windows of close neighbours overlap
    top, left = np.asarray(y, np.intp) + PAD - _SPRITE // 2, np.asarray(x, np.intp) + PAD - _SPRITE // 2
    at = np.asarray(image)[which], top[which] + row, left[which] + col
    under = canvas[at]
    canvas[at] = under + alpha[which, row, col, None] * (PALETTE[color][which] - under)


def stamp_plates(canvas: NDArray[np.float32], plates: Plates) -> None:
    """Paint white plates into padded canvases, in place."""
    width, height = plate_size(plates.px, plates.length)
    for i, x, y, w, h in zip(plates.image, plates.x, plates.y, width, height, strict=True):
        top, left = y + PAD - PLATE_MARGIN, x + PAD - PLATE_MARGIN
        canvas[i, top : top + h + 2 * PLATE_MARGIN, left : left + w + 2 * PLATE_MARGIN] = PLATE_COLOR


def stamp_digits(canvas: NDArray[np.float32], digits: Digits) -> None:
    """Ink digits into padded canvases, in place."""
    for px in np.unique(digits.px):
        some = Digits(*(column[digits.px == px] for column in digits))
        at = _window(some.image, some.y, some.x, int(px))
        canvas[at] *= 1 - digit_sprites(int(px))[some.scan][..., None]


def _window(image: NDArray, top: NDArray, left: NDArray, side: int) -> tuple[NDArray, NDArray, NDArray]:
    """Return the fancy index of M square windows of a padded canvas; it selects `[M, side, side, ...]`."""
    rows = np.asarray(top, np.intp)[:, None, None] + PAD + np.arange(side)[:, None]
    cols = np.asarray(left, np.intp)[:, None, None] + PAD + np.arange(side)
    return np.asarray(image, np.intp)[:, None, None], rows, cols


@lru_cache(maxsize=1)
def _noise() -> NDArray[np.float32]:
    """Return a field of grey noise that holds a window of an image's size at each of 509 x 509 offsets."""
    side = _NOISE_SIDE + IMAGE_SIZE
    return np.random.default_rng(96).normal(0, NOISE_SIGMA, (side, side)).astype(np.float32)


def finish(canvas: NDArray[np.float32], blur: NDArray, noise_seed: NDArray) -> NDArray[np.uint8]:
    """Cut off the padding, blur, add the seeds' noise and round: `[N, side, side, 3]`."""
    image = np.ascontiguousarray(canvas[:, PAD:-PAD, PAD:-PAD])
    side = image.shape[1]
    soft = np.flatnonzero(blur > 0)
    if len(soft):
        kernel = _blur_matrix(blur[soft], side)
        mixed = kernel @ image[soft].reshape(len(soft), side, side * 3)
        mixed = mixed.reshape(len(soft), side, side, 3).transpose(0, 2, 1, 3).reshape(len(soft), side, side * 3)
        image[soft] = (kernel @ mixed).reshape(len(soft), side, side, 3).transpose(0, 2, 1, 3)
    windows = np.lib.stride_tricks.sliding_window_view(_noise(), (side, side))
    top, left = noise_seed % _NOISE_SIDE, noise_seed // _NOISE_SIDE % _NOISE_SIDE
    image += windows[top, left][..., None]
    np.clip(image, 0, 255, out=image)
    image += 0.5
    return image.astype(np.uint8)


def _blur_matrix(sigma: NDArray, side: int) -> NDArray[np.float32]:
    """Return one-dimensional gaussian blurs as row-stochastic matrices `[N, side, side]` (edges renormalised)."""
    distance = np.subtract.outer(np.arange(side), np.arange(side)) ** 2
    kernel = np.exp(-distance / (2 * sigma[:, None, None] ** 2))
    return (kernel / kernel.sum(-1, keepdims=True)).astype(np.float32)


def render(scenes: Scenes) -> NDArray[np.uint8]:
    """Draw scenes as RGB images `[N, 96, 96, 3]`; an image depends on its own scene only."""
    out = np.empty((len(scenes), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for start in range(0, len(scenes), _CHUNK):
        part = scenes.select(slice(start, start + _CHUNK))
        canvas = blank(part.background, part.texture_bg)
        stamp_objects(canvas, objects_of(part))
        stamp_plates(canvas, _plates_of(part))
        stamp_digits(canvas, digits_of(part))
        out[start : start + _CHUNK] = finish(canvas, part.blur, part.noise_seed)
    return out


def objects_of(scenes: Scenes) -> Objects:
    """Return the scenes' objects as flat lists."""
    image, slot = np.nonzero(scenes.present)
    columns = (scenes.x, scenes.y, scenes.color, scenes.shape, scenes.size, scenes.texture)
    return Objects(image, *(column[image, slot] for column in columns))


def digits_of(scenes: Scenes) -> Digits:
    """Return the scenes' digits as flat lists."""
    image, slot = np.nonzero(scenes.digits >= 0)
    px = scenes.digit_px[image].astype(int)
    x = scenes.plate_x[image] + slot * (px + digit_gap(px))
    return Digits(image, x, scenes.plate_y[image].astype(int), px, scenes.digit_index[image, slot])


def _plates_of(scenes: Scenes) -> Plates:
    """Return the scenes' plates as flat lists."""
    image = np.flatnonzero(scenes.plate)
    columns = (scenes.plate_x, scenes.plate_y, scenes.digit_px, scenes.n_digits)
    return Plates(image, *(column[image].astype(int) for column in columns))


def label_objects(labels: NDArray[np.int16], objects: Objects) -> None:
    """Write 1 + class into channels 0-3 of `[N, 5, grid, grid]` where a patch centre is inside an object, in place."""
    centres = (np.arange(labels.shape[-1]) + 0.5) * PATCH
    dx, dy = centres - np.asarray(objects.x)[:, None], centres - np.asarray(objects.y)[:, None]
    radius = np.array(RADII)[objects.size]
    which, row, col = np.nonzero(dy[:, :, None] ** 2 + dx[:, None, :] ** 2 <= radius[:, None, None] ** 2)
    for channel, classes in enumerate((objects.color, objects.shape, objects.size, objects.texture)):
        labels[objects.image[which], channel, row, col] = 1 + classes[which]


def label_digits(labels: NDArray[np.int16], digits: Digits) -> None:
    """Write 1 + digit into channel 4 of `[N, 5, grid, grid]` where a patch centre is inside a digit, in place."""
    centres = (np.arange(labels.shape[-1]) + 0.5) * PATCH
    dx, dy = centres - np.asarray(digits.x)[:, None], centres - np.asarray(digits.y)[:, None]
    in_x, in_y = (dx >= 0) & (dx < digits.px[:, None]), (dy >= 0) & (dy < digits.px[:, None])
    which, row, col = np.nonzero(in_y[:, :, None] & in_x[:, None, :])
    labels[digits.image[which], 4, row, col] = 1 + digit_bank()[1][digits.scan[which]]


def patch_labels(scenes: Scenes) -> NDArray[np.int16]:
    """Return what each patch shows, `[N, 5, 24, 24]`: colour, shape, size, texture, digit; 0 = none, else 1 + class."""
    grid = IMAGE_SIZE // PATCH
    labels = np.zeros((len(scenes), len(LABELS), grid, grid), np.int16)
    label_objects(labels, objects_of(scenes))
    label_digits(labels, digits_of(scenes))
    return labels

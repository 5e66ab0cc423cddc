"""Scenes of the mini world: what is in an image, as a struct of arrays over N scenes.

A scene holds up to five coloured objects and, often, a white plate with a number of one to four handwritten digits.
Nothing overlaps and nothing is aligned to the vision tower's patch grid.
Splits are disjoint by scene (the noise seed carries the split) and by digit instance (each split owns its scans).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped")
BACKGROUNDS = ("flat", "horizontal", "vertical", "waves")
SPLITS = ("train", "validation", "test")

IMAGE_SIZE = 96
MAX_OBJECTS = 5
MAX_DIGITS = 4
DIGIT_SIZES = (8, 12, 16)
RADII = (5.5, 10.0)  # px, by size
HALF_BOX = np.array([6, 11])  # px an object claims to each side of its centre, by size
PLATE_MARGIN = 1  # px of white around the digits
_ECHO = 0.25  # chance that an object repeats the first one's colour (or shape): gives counts above one
_TRIES = 48
_SPLIT_SHARES = (0.67, 0.11)  # of the scans of each digit: train, validation; the rest is test


class Obj(NamedTuple):
    """One object in words; `x`, `y` are its centre in px."""

    color: str
    shape: str
    size: str
    texture: str
    x: int
    y: int

    @property
    def row(self) -> int:
        """The quarter of the image it is in, 0 (top) to 3."""
        return self.y * 4 // IMAGE_SIZE

    @property
    def col(self) -> int:
        """The quarter of the image it is in, 0 (left) to 3."""
        return self.x * 4 // IMAGE_SIZE


@dataclass(frozen=True)
class Scene:
    """Light view of one scene. `number` is None without a plate; `blur` is the gaussian's sigma in px (0 = sharp)."""

    objects: list[Obj]
    number: str | None
    digit_px: int
    plate_xy: tuple[int, int] | None
    blur: float

    @property
    def legible(self) -> bool:
        """Whether there is a number and blur has left it readable."""
        return self.number is not None and self.blur < 0.15 * self.digit_px


@lru_cache(maxsize=1)
def digit_bank() -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return the handwritten digits of scikit-learn: ink `[1797, 8, 8]` in 0..1 and classes `[1797]`."""
    from sklearn.datasets import load_digits

    bank = load_digits()
    return (bank.images / 16).astype(np.float32), bank.target.astype(np.int8)


@lru_cache(maxsize=len(SPLITS))
def digit_instances(split: str) -> NDArray[np.int32]:
    """Return the rows of the digit bank that belong to `split`, ascending; drawn per class, so splits are stratified.

    Raises:
        ValueError: `split` is not one of `SPLITS`.
    """
    code = split_code(split)
    rng = np.random.default_rng(1797)
    rows: list[NDArray[np.int64]] = []
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(digit_bank()[1] == digit))
        cuts = np.cumsum([round(share * len(members)) for share in _SPLIT_SHARES])
        rows.append(np.split(members, cuts)[code])
    return np.sort(np.concatenate(rows)).astype(np.int32)


def split_code(split: str) -> int:
    """Return the position of `split` in `SPLITS`.

    Raises:
        ValueError: it is not there.
    """
    if split not in SPLITS:
        raise ValueError(f"split: found {split!r}, expected one of {', '.join(SPLITS)}")
    return SPLITS.index(split)


def digit_gap(digit_px: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return the px between two neighbouring digits of a plate."""
    return digit_px // 8


def plate_size(digit_px: NDArray[np.integer], n_digits: NDArray[np.integer]) -> tuple[NDArray, NDArray]:
    """Return width and height of the digits' box in px (the white plate adds `PLATE_MARGIN` to each side)."""
    return n_digits * (digit_px + digit_gap(digit_px)) - digit_gap(digit_px), digit_px


@dataclass(frozen=True)
class Scenes:
    """N scenes; O = 5 object slots, P = 4 digit slots. Unused slots are False, or -1 for digits.

    `x`, `y` are object centres, `plate_x`, `plate_y` the top left corner of the first digit, all in px.
    """

    present: NDArray[np.bool_]  # [N, O]
    color: NDArray[np.int8]  # [N, O], rows of COLORS; likewise below
    shape: NDArray[np.int8]  # [N, O]
    size: NDArray[np.int8]  # [N, O]
    texture: NDArray[np.int8]  # [N, O]
    x: NDArray[np.int16]  # [N, O]
    y: NDArray[np.int16]  # [N, O]
    plate: NDArray[np.bool_]  # [N]
    n_digits: NDArray[np.int8]  # [N], 1..4 (0 without a plate)
    digits: NDArray[np.int8]  # [N, P], 0..9
    digit_index: NDArray[np.int32]  # [N, P], rows of the digit bank
    digit_px: NDArray[np.int8]  # [N], 8, 12 or 16
    plate_x: NDArray[np.int16]  # [N]
    plate_y: NDArray[np.int16]  # [N]
    background: NDArray[np.uint8]  # [N, 3], RGB
    texture_bg: NDArray[np.int8]  # [N], rows of BACKGROUNDS
    blur: NDArray[np.float32]  # [N], gaussian sigma in px
    noise_seed: NDArray[np.int64]  # [N], modulo 3 = the split

    def __len__(self) -> int:
        return len(self.plate)

    def __getitem__(self, i: int) -> Scene:
        objects = [self._object(i, o) for o in range(MAX_OBJECTS) if self.present[i, o]]
        if not self.plate[i]:
            return Scene(objects, None, 0, None, float(self.blur[i]))
        number = "".join(str(d) for d in self.digits[i, : self.n_digits[i]])
        corner = (int(self.plate_x[i]), int(self.plate_y[i]))
        return Scene(objects, number, int(self.digit_px[i]), corner, float(self.blur[i]))

    def __iter__(self) -> Iterator[Scene]:
        return (self[i] for i in range(len(self)))

    def _object(self, i: int, o: int) -> Obj:
        return Obj(
            COLORS[self.color[i, o]],
            SHAPES[self.shape[i, o]],
            SIZES[self.size[i, o]],
            TEXTURES[self.texture[i, o]],
            int(self.x[i, o]),
            int(self.y[i, o]),
        )

    def select(self, idx: ArrayLike | slice) -> Scenes:
        """Return the scenes at `idx` (positions, a boolean mask or a slice)."""
        rows = idx if isinstance(idx, slice) else np.asarray(idx)
        return Scenes(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @classmethod
    def sample(
        cls,
        n: int,
        seed: int,
        split: str,
        *,
        blur: float = 0.0,
        plate: float = 0.8,
        objects: tuple[int, int] = (1, MAX_OBJECTS),
    ) -> Scenes:
        """Draw `n` scenes of `split`; the same arguments give the same scenes.

        `blur` and `plate` are the shares of scenes that are blurred (until their number cannot be read) and that
        have a plate; `objects` is the inclusive range of the number of objects.

        Raises:
            ValueError: unknown split, or a range of objects that does not fit into the slots.
        """
        code = split_code(split)
        low, high = objects
        if not 0 <= low <= high <= MAX_OBJECTS:
            raise ValueError(f"objects: found {objects}, expected 0 <= low <= high <= {MAX_OBJECTS}")
        rng = np.random.default_rng([20, code, seed])
        plates = _sample_plates(rng, n, plate, digit_instances(split))
        attributes = _sample_attributes(rng, n)
        wanted = np.arange(MAX_OBJECTS) < rng.integers(low, high + 1, n)[:, None]
        present, x, y = _place(rng, wanted, attributes["size"], plates)
        away = np.where(plates["plate"], plates["digit_px"] * rng.uniform(0.25, 0.35, n), rng.uniform(1.5, 3.0, n))
        return cls(
            present=present,
            x=x,
            y=y,
            background=rng.integers(20, 90, (n, 3), dtype=np.uint8),
            texture_bg=rng.integers(len(BACKGROUNDS), size=n, dtype=np.int8),
            blur=np.where(rng.random(n) < blur, away, 0).astype(np.float32),
            noise_seed=rng.integers(2**40, size=n) * len(SPLITS) + code,
            **attributes,
            **plates,
        )


def _sample_attributes(rng: np.random.Generator, n: int) -> dict[str, NDArray]:
    """Draw colour, shape, size and texture of every object slot, each `[n, O]`."""
    counts = {"color": len(COLORS), "shape": len(SHAPES), "size": len(SIZES), "texture": len(TEXTURES)}
    drawn = {name: rng.integers(k, size=(n, MAX_OBJECTS), dtype=np.int8) for name, k in counts.items()}
    for name in ("color", "shape"):
        echo = rng.random((n, MAX_OBJECTS)) < _ECHO
        drawn[name] = np.where(echo, drawn[name][:, :1], drawn[name])
    return drawn


def _sample_plates(rng: np.random.Generator, n: int, share: float, instances: NDArray[np.int32]) -> dict[str, NDArray]:
    """Draw plates with numbers (no leading zero) at free places inside the image."""
    classes = digit_bank()[1]
    plate = rng.random(n) < share
    n_digits = rng.integers(1, MAX_DIGITS + 1, n)
    digit_px = rng.choice(DIGIT_SIZES, n)
    index = rng.choice(instances, (n, MAX_DIGITS))
    leading = rng.choice(instances[classes[instances] > 0], n)
    index[:, 0] = np.where(n_digits > 1, leading, index[:, 0])
    width, height = plate_size(digit_px, n_digits)
    free_x, free_y = IMAGE_SIZE - 2 * PLATE_MARGIN - width, IMAGE_SIZE - 2 * PLATE_MARGIN - height
    x, y = PLATE_MARGIN + rng.integers(0, free_x + 1), PLATE_MARGIN + rng.integers(0, free_y + 1)
    used = plate[:, None] & (np.arange(MAX_DIGITS) < n_digits[:, None])
    return {
        "plate": plate,
        "n_digits": np.where(plate, n_digits, 0).astype(np.int8),
        "digits": np.where(used, classes[index], -1).astype(np.int8),
        "digit_index": np.where(used, index, -1).astype(np.int32),
        "digit_px": np.where(plate, digit_px, 0).astype(np.int8),
        "plate_x": np.where(plate, x, 0).astype(np.int16),
        "plate_y": np.where(plate, y, 0).astype(np.int16),
    }


def _place(
    rng: np.random.Generator, wanted: NDArray[np.bool_], size: NDArray[np.int8], plates: dict[str, NDArray]
) -> tuple[NDArray[np.bool_], NDArray[np.int16], NDArray[np.int16]]:
    """Put the wanted objects where they touch neither each other nor the plate.

    Each slot takes the first of `_TRIES` random places that is free; the very rare object that finds none is left out.
    """
    n = len(wanted)
    width, height = plate_size(plates["digit_px"].astype(int), plates["n_digits"].astype(int))
    half_w, half_h = width / 2 + PLATE_MARGIN, height / 2 + PLATE_MARGIN
    boxes = [(plates["plate_x"] + width / 2, plates["plate_y"] + height / 2, half_w, half_h, plates["plate"])]
    present, x, y = np.zeros_like(wanted), np.zeros(wanted.shape, np.int16), np.zeros(wanted.shape, np.int16)
    for o in range(MAX_OBJECTS):
        half = HALF_BOX[size[:, o]]
        tries = half[:, None, None] + rng.random((n, _TRIES, 2)) * (IMAGE_SIZE - 2 * half)[:, None, None]
        tries = np.floor(tries).astype(np.int16)
        free = np.ones((n, _TRIES), bool)
        for cx, cy, w, h, there in boxes:
            apart_x = np.abs(tries[..., 0] - cx[:, None]) >= (half + w)[:, None]
            apart_y = np.abs(tries[..., 1] - cy[:, None]) >= (half + h)[:, None]
            free &= apart_x | apart_y | ~there[:, None]
        first = tries[np.arange(n), free.argmax(1)]
        present[:, o] = wanted[:, o] & free.any(1)
        x[:, o], y[:, o] = first[:, 0], first[:, 1]
        boxes.append((x[:, o].astype(float), y[:, o].astype(float), half.astype(float), half, present[:, o]))
    return present, x, y

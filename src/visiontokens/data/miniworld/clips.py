"""Clips of the mini world: scenes in which one object moves and two others appear, one after the other.

A clip is a scene of `scenes.py` and a script. The scene holds every object, each where the first frame has it; the
script says which one moves, how far and where to, and from which frame on two others are to be seen. Splits are those
of the scenes: disjoint by scene and by digit instance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from visiontokens.data.miniworld.files import Source
from visiontokens.data.miniworld.render import render
from visiontokens.data.miniworld.scenes import (
    HALF_BOX,
    IMAGE_SIZE,
    MAX_OBJECTS,
    PLATE_MARGIN,
    SPLITS,
    Obj,
    Scene,
    Scenes,
    plate_size,
)

DIRECTIONS = ("left", "right", "above", "below")
"""Where the moving object ends, seen from where it was."""
STEPS = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
MOVE = (20, 44)
"""Least and greatest px between a moving object's first and last place."""
_CANDIDATES = 3  # scenes drawn per clip; few have no free way
_NOISE_STEP = 7919 * len(SPLITS)  # noise seeds of a clip's frames; a multiple of the splits, so the split stays


@dataclass(frozen=True)
class Clip:
    """Light view of one clip. `mover` is where it is first, `moved` where it is last; `early` appears before `late`."""

    scene: Scene
    mover: Obj
    moved: Obj
    direction: str
    early: Obj
    late: Obj

    @property
    def at_first(self) -> list[Obj]:
        """The objects of the first frame."""
        return [obj for obj in self.scene.objects if obj not in (self.early, self.late)]

    @property
    def at_last(self) -> list[Obj]:
        """The objects of the last frame, in their last places."""
        return [self.moved if obj == self.mover else obj for obj in self.scene.objects]


@dataclass(frozen=True)
class Clips:
    """N clips of `length` frames; object slots are those of `scenes`."""

    scenes: Scenes
    length: int
    mover: NDArray[np.intp]  # [N] slot
    direction: NDArray[np.intp]  # [N], rows of DIRECTIONS
    distance: NDArray[np.intp]  # [N] px from first to last place
    appearing: NDArray[np.intp]  # [N, 2] slots, the earlier one first
    start: NDArray[np.intp]  # [N, 2] first frame in which they are seen

    def __len__(self) -> int:
        return len(self.mover)

    def __getitem__(self, i: int) -> Clip:
        scene, last = self.scenes[i], self.frames(i).select(slice(self.length - 1, None))
        slots = np.flatnonzero(self.scenes.present[i]).tolist()
        mover, early, late = (slots.index(s) for s in (self.mover[i], *self.appearing[i]))
        return Clip(
            scene, scene.objects[mover], last[0].objects[mover], DIRECTIONS[self.direction[i]], scene.objects[early],
            scene.objects[late],
        )  # fmt: skip

    def frames(self, i: int) -> Scenes:
        """Return the frames of one clip as scenes, each with noise of its own."""
        scenes, times = self.scenes.select(np.full(self.length, i)), np.arange(self.length)
        gone = times * self.distance[i] / (self.length - 1)
        x, y = scenes.x.copy(), scenes.y.copy()
        for place, step in zip((x, y), STEPS[self.direction[i]], strict=True):
            place[:, self.mover[i]] += np.round(step * gone).astype(np.int16)
        present = scenes.present.copy()
        for slot, start in zip(self.appearing[i], self.start[i], strict=True):
            present[:, slot] &= times >= start
        return replace(scenes, x=x, y=y, present=present, noise_seed=scenes.noise_seed + times * _NOISE_STEP)

    def pixels(self, i: int) -> NDArray[np.uint8]:
        """Draw one clip, `[T, 96, 96, 3]`."""
        return render(self.frames(i))


def sample_clips(source: Source, n: int, length: int) -> Clips:
    """Draw `n` clips of `length` frames from a source; the same source gives the same clips.

    Raises:
        ValueError: the scenes have too few free ways (never at the sizes of the world).
    """
    scenes = source.scenes(_CANDIDATES * n, objects=(3, MAX_OBJECTS), plate=0.5)
    free = free_ways(scenes)
    usable = np.flatnonzero((free >= MOVE[0]).any((1, 2)) & (scenes.present.sum(1) >= 3))[:n]
    if len(usable) < n:
        raise ValueError(f"clips: found {len(usable)} scenes with room to move, expected {n}")
    scenes, free, rng = scenes.select(usable), free[usable], source.rng
    score = np.where(free >= MOVE[0], rng.random(free.shape), -1.0).reshape(n, -1)
    mover, direction = np.unravel_index(score.argmax(1), free.shape[1:])
    rows = np.arange(n)
    distance = rng.integers(MOVE[0], np.minimum(free[rows, mover, direction], MOVE[1]) + 1)
    others = scenes.present & (np.arange(MAX_OBJECTS) != mover[:, None])
    appearing = np.where(others, rng.random(others.shape), 2.0).argsort(1)[:, :2]
    # Whoever reads four frames or more sees the two appear in different ones.
    early = rng.integers(max(1, length // 8), max(1, (length - 1) // 3) + 1, n)
    late = rng.integers(length // 2, 2 * (length - 1) // 3 + 1, n)
    return Clips(scenes, length, mover, direction, distance, appearing, np.stack([early, late], 1))


def free_ways(scenes: Scenes) -> NDArray[np.intp]:
    """Return how many px every object can move to each side, `[N, O, 4]`, before it meets anything or the border.

    Slots without an object have -1.
    """
    half = HALF_BOX[scenes.size]
    width, height = plate_size(scenes.digit_px.astype(int), scenes.n_digits.astype(int))
    boxes = [(scenes.x[:, o], scenes.y[:, o], half[:, o], half[:, o], scenes.present[:, o]) for o in range(MAX_OBJECTS)]
    plate = (scenes.plate_x + width // 2, scenes.plate_y + height // 2)
    boxes.append((*plate, width // 2 + 1 + PLATE_MARGIN, height // 2 + 1 + PLATE_MARGIN, scenes.plate))
    x, y = scenes.x.astype(int), scenes.y.astype(int)
    free = np.stack([x - half, IMAGE_SIZE - half - x, y - half, IMAGE_SIZE - half - y], 2)
    for other, (bx, by, w, h, there) in enumerate(boxes):
        dx, dy = bx[:, None].astype(int) - x, by[:, None].astype(int) - y
        gap_x, gap_y = half + w[:, None], half + h[:, None]
        counts = there[:, None] & (np.arange(MAX_OBJECTS) != other)
        for side, (along, across, gap, reach) in enumerate(
            ((-dx, dy, gap_x, gap_y), (dx, dy, gap_x, gap_y), (-dy, dx, gap_y, gap_x), (dy, dx, gap_y, gap_x))
        ):
            ahead = counts & (along > 0) & (np.abs(across) < reach)
            free[:, :, side] = np.where(ahead, np.minimum(free[:, :, side], along - gap), free[:, :, side])
    return np.where(scenes.present[:, :, None], free, -1)

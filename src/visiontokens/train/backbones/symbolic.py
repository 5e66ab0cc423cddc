"""Symbolic scenes: a grid of tokens that say in words what the image would show.

The mini LLM learns language on these before it sees a pixel: a cell is the sum of the word embeddings of what covers
it, plus learned codes for its row and column. Grids of any size describe the same scene, so that the model grows from
4 x 4 to the 24 x 24 tokens of the vision tower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from visiontokens.data.miniworld.families import SHARP
from visiontokens.data.miniworld.scenes import (
    COLORS,
    IMAGE_SIZE,
    MAX_DIGITS,
    RADII,
    SHAPES,
    SIZES,
    TEXTURES,
    Scenes,
    digit_gap,
)

FINEST = 24  # cells along a side of the finest grid; the others divide it
QUARTERS = 4
ATTRIBUTES = {"color": COLORS, "shape": SHAPES, "size": SIZES, "texture": TEXTURES}


@dataclass(frozen=True)
class SymbolicScenes:
    """What covers each cell of N scenes on a `g` x `g` grid, cells in reading order; 0 = nothing.

    `objects` holds, per attribute, 1 + the row of its value; `digits` 1 + the digit; `slots` 1 + the digit's place in
    the number; `sign` marks the cells of the plate.
    """

    objects: NDArray[np.int64]  # [N, g * g, 4], attributes in the order of ATTRIBUTES
    digits: NDArray[np.int64]  # [N, g * g]
    slots: NDArray[np.int64]  # [N, g * g]
    sign: NDArray[np.int64]  # [N, g * g]

    @property
    def grid(self) -> int:
        """Cells along one side."""
        return round(self.digits.shape[1] ** 0.5)


def symbolise(scenes: Scenes, grid: int) -> SymbolicScenes:
    """Lay scenes out on a grid. Blur leaves out what it hides (texture, then shape and size; illegible digits).

    Raises:
        ValueError: `grid` does not divide the finest grid.
    """
    if grid < 1 or FINEST % grid:
        raise ValueError(f"grid: found {grid}, expected a divisor of {FINEST}")
    digits, slots, sign = _lay_digits(scenes, grid)
    return SymbolicScenes(_lay_objects(scenes, grid), digits, slots, sign)


def complete(scenes: Scenes, grid: int) -> NDArray[np.bool_]:
    """Return `[N]`: in which scenes every object owns a cell (on coarse grids two may want the same one)."""
    owner, covered = _owners(scenes, grid)
    slots = np.arange(scenes.present.shape[1])
    shown = ((owner[..., None] == slots) & covered[..., None]).any(1)  # [N, O]
    return (shown == scenes.present).all(1)


def _owners(scenes: Scenes, grid: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return, `[N, g * g]` each: the nearest object whose disc covers the cell's middle or whose centre lies in it,
    and whether there is one.
    """
    middle = (np.arange(grid) + 0.5) * IMAGE_SIZE / grid
    dx = middle[None, None, None, :] - scenes.x[:, :, None, None]
    dy = middle[None, None, :, None] - scenes.y[:, :, None, None]
    distance = dx**2 + dy**2  # [N, O, g, g]
    half = IMAGE_SIZE / grid / 2
    home = (dx > -half) & (dx <= half) & (dy > -half) & (dy <= half)
    covers = home | (distance <= (np.array(RADII) ** 2)[scenes.size][:, :, None, None])
    distance = np.where(covers & scenes.present[:, :, None, None], distance, np.inf)
    nearest = distance.argmin(1).reshape(len(scenes), -1)
    return nearest, np.isfinite(distance.min(1)).reshape(len(scenes), -1)


def _lay_objects(scenes: Scenes, grid: int) -> NDArray[np.int64]:
    """Give each cell the attributes of its owner, as far as blur leaves them to be seen."""
    owner, covered = _owners(scenes, grid)
    layers = []
    for name in ATTRIBUTES:
        seen = covered & (scenes.blur < SHARP.get(name, np.inf))[:, None]
        layers.append(np.where(seen, 1 + np.take_along_axis(getattr(scenes, name), owner, 1), 0))
    return np.stack(layers, -1).astype(np.int64)


def _lay_digits(scenes: Scenes, grid: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Lay digits over the cells they cover; where cells are wider than digits, one cell each from left to right."""
    n, cell = len(scenes), IMAGE_SIZE / grid
    px = scenes.digit_px.astype(int)
    pitch = px + digit_gap(px)
    legible = scenes.plate & (scenes.blur < 0.15 * px)
    digits, slots, sign = (np.zeros((n, grid, grid), np.int64) for _ in range(3))
    across, down = np.meshgrid(np.arange(grid), np.arange(grid))
    top = (scenes.plate_y + px / 2) // cell
    first = np.minimum(scenes.plate_x // cell, grid - scenes.n_digits)
    middle = (np.arange(grid) + 0.5) * cell
    for place in range(MAX_DIGITS):
        there = (scenes.plate & (place < scenes.n_digits))[:, None, None]
        if cell <= pitch[scenes.plate].min(initial=FINEST):
            centre_x, centre_y = scenes.plate_x + place * pitch + px / 2, scenes.plate_y + px / 2
            column = _near(middle, centre_x, px, cell)[:, None, :]
            row = _near(middle, centre_y, px, cell)[:, :, None]
            covered = there & row & column & (sign == 0)
        else:
            covered = there & (across == (first + place)[:, None, None]) & (down == top[:, None, None])
        sign[covered] = 1
        shown = covered & legible[:, None, None]
        digits += np.where(shown, 1 + scenes.digits[:, place][:, None, None], 0)
        slots += np.where(shown, 1 + place, 0)
    return digits.reshape(n, -1), slots.reshape(n, -1), sign.reshape(n, -1)


def _near(middle: NDArray[np.floating], centre: NDArray, px: NDArray[np.int64], cell: float) -> NDArray[np.bool_]:
    """Return `[N, g]`: which cells have their middle inside a digit, or its middle inside them."""
    offset = middle[None, :] - centre[:, None]
    return (np.abs(offset) < px[:, None] / 2) | ((offset > -cell / 2) & (offset <= cell / 2))


class SymbolicEmbedding(nn.Module):
    """Turns symbolic scenes into LLM input embeddings `[N, g * g, D]`: word embeddings plus learned codes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, hidden: int, spread: float = 0.02) -> None:
        """Draw codes with a small standard deviation `spread`: large ones delay the lookup of words (measured)."""
        super().__init__()
        for name, values in ATTRIBUTES.items():
            self.register_buffer(f"{name}_ids", _ids(tokenizer, values), persistent=False)
        self.register_buffer("digit_ids", _ids(tokenizer, tuple("0123456789")), persistent=False)
        self.register_buffer("sign_ids", _ids(tokenizer, ("sign",)), persistent=False)
        self.quarter = nn.Parameter(spread * torch.randn(2, QUARTERS, hidden))  # rows, columns
        self.fine = nn.Parameter(spread * torch.randn(2, FINEST, hidden))
        self.slot = nn.Parameter(spread * torch.randn(MAX_DIGITS, hidden))

    def forward(self, scenes: SymbolicScenes, words: Tensor, ordered: Tensor) -> Tensor:
        """Embed scenes with the word embeddings `words` `[V, D]`.

        `ordered` `[N]` says for which scenes a digit's cell also tells its place in the number.
        """
        cells = self.positions(scenes.grid)[None]
        for i, name in enumerate(ATTRIBUTES):
            cells = cells + _lookup(words[self.get_buffer(f"{name}_ids")], scenes.objects[..., i])
        cells = (
            cells
            + _lookup(words[self.get_buffer("digit_ids")], scenes.digits)
            + _lookup(words[self.get_buffer("sign_ids")], scenes.sign)
        )
        return cells + ordered[:, None, None] * _lookup(self.slot, scenes.slots)

    def positions(self, grid: int) -> Tensor:
        """Return the position codes `[g * g, D]`; a coarse cell has the mean of the fine codes it spans."""
        fine = self.fine + self.quarter.repeat_interleave(FINEST // QUARTERS, dim=1)
        rows, columns = fine.unflatten(1, (grid, FINEST // grid)).mean(2)
        return (rows[:, None] + columns[None]).flatten(0, 1)


def _ids(tokenizer: PreTrainedTokenizerBase, tokens: tuple[str, ...]) -> Tensor:
    return torch.tensor(tokenizer.convert_tokens_to_ids(list(tokens)))


def _lookup(table: Tensor, rows: NDArray[np.int64]) -> Tensor:
    """Return the rows of `table` counted from 1; row 0 is zero."""
    return torch.cat([torch.zeros_like(table[:1]), table])[torch.from_numpy(rows)]

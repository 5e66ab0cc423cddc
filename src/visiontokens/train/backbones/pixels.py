"""What the mini LLM sees in the pixel phases of its pretraining: the frozen tower's patch tokens."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor, CLIPVisionModel

from visiontokens.data.miniworld.render import render
from visiontokens.data.miniworld.scenes import Scenes
from visiontokens.data.precision import autocast

from .vision import to_pixels

LEVEL = -2  # the hidden state that LLaVA-1.5 reads


class Eyes:
    """A frozen vision tower that looks at scenes."""

    def __init__(self, folder: Path, precision: str) -> None:
        self.tower = CLIPVisionModel.from_pretrained(folder).eval()
        self.precision = precision
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self._norm = (processor.image_mean, processor.image_std)

    @torch.no_grad()
    def __call__(self, scenes: Scenes) -> Tensor:
        """Return the patch tokens `[B, N, C]` of the rendered scenes."""
        with autocast(self.precision):
            states = self.tower(to_pixels(render(scenes), *self._norm), output_hidden_states=True).hidden_states
        return states[LEVEL][:, 1:].float()


class PixelEmbedding(nn.Module):
    """LLaVA-1.5's projector, for pretraining only: every trained model aligns a projector of its own."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.projector = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, features: Tensor, grid: int) -> Tensor:
        """Turn patch tokens `[B, N, C]` into LLM input embeddings `[B, grid * grid, D]`, averaged over windows.

        Raises:
            ValueError: `grid` does not divide the tower's grid.
        """
        side = round(features.shape[1] ** 0.5)
        if grid < 1 or side % grid:
            raise ValueError(f"grid: found {grid}, expected a divisor of {side}")
        cells: Tensor = self.projector(features)
        tiles = cells.unflatten(1, (grid, side // grid, grid, side // grid))
        return tiles.mean((2, 4)).flatten(1, 2)

"""The pieces from which the mini vision tower is trained: a stock CLIP tower with a fast start, and its loss heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPVisionModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from visiontokens.data.miniworld.scenes import COLORS, SHAPES, SIZES, TEXTURES, Scenes
from visiontokens.models.tiny import MINI_TOWER, TowerDims, tower_config

CLASSES = tuple(1 + n for n in (len(COLORS), len(SHAPES), len(SIZES), len(TEXTURES), 10))  # 0 = none
_BACKGROUND_WEIGHT = 0.15  # of a patch that shows nothing
_CHANNEL_WEIGHTS = (0.5, 0.5, 0.5, 0.5, 2.0)  # digits are by far the hardest
_PLACE_WEIGHT = 3.0  # of the squared error of a patch's place, in half images
_POSITION_SCALE = 0.7
_FASTEST, _SLOWEST = 1.6, 1 / 30  # radians per patch: the position codes' frequencies
_RING = ((0, 1), (0, -1), (1, 0), (-1, 0))  # (row, column) offsets of a patch's neighbours
_CORNERS = ((1, 1), (-1, -1), (1, -1), (-1, 1))


def _plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *_: Any,
    scaling: float,
    **__: Any,
) -> tuple[Tensor, None]:
    """Attention by two matrix products: on a CPU in bf16 two to four times faster than the fused kernel."""
    weights = torch.softmax((query * scaling) @ key.transpose(-1, -2), dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register("plain_bmm", _plain_attention)


def build_tower(dims: TowerDims = MINI_TOWER, *, dense_layers: int = 5) -> CLIPVisionModel:
    """Return a randomly initialised tower that starts out looking at neighbouring patches.

    Positions are two-dimensional sine-cosine codes; in the first `dense_layers - 1` layers each head's query is its
    position rotated by one patch, so that head begins as one tap of a 3 x 3 convolution (the idea of ConViT,
    d'Ascoli et al. 2021). The layers from `dense_layers` on begin as the identity.
    """
    config = tower_config(dims)
    config._attn_implementation = "plain_bmm"
    tower = CLIPVisionModel(config)
    frequencies = torch.logspace(math.log10(_FASTEST), math.log10(_SLOWEST), dims.hidden // 4)
    with torch.no_grad():
        nn.init.normal_(tower.embeddings.patch_embedding.weight, std=1 / math.sqrt(3 * dims.patch_size**2))
        tower.embeddings.position_embedding.weight[0] = 0
        codes = _position_codes(dims.grid, frequencies)
        tower.embeddings.position_embedding.weight[1:] = _POSITION_SCALE * codes.flatten(0, 1)
        layers: Any = tower.encoder.layers
        for i, layer in enumerate(layers):
            if i < dense_layers - 1:
                _look_at(layer.self_attn, _CORNERS if i % 2 else _RING, frequencies)
            elif i >= dense_layers:
                nn.init.zeros_(layer.self_attn.out_proj.weight)
                nn.init.zeros_(layer.mlp.fc2.weight)
    return tower


def _position_codes(grid: int, frequencies: Tensor) -> Tensor:
    """Return `[grid, grid, D]`: sines and cosines of the row in the first half, of the column in the second."""
    angle = torch.arange(grid)[:, None] * frequencies
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows, cols = axis[:, None].expand(-1, grid, -1), axis[None].expand(grid, -1, -1)
    return torch.cat([rows, cols], dim=-1)


def _look_at(attention: Any, offsets: tuple[tuple[int, int], ...], frequencies: Tensor) -> None:
    """Set the query and key maps so that head h attends to the patch at `offsets[h]`, in place.

    Keys read the sines and cosines of some frequencies, queries the same rotated by the offset.
    """
    width, n = attention.q_proj.weight.shape[0], len(frequencies)
    per_head = width // attention.num_heads
    query, key = 0.02 * torch.randn(width, width), 0.02 * torch.randn(width, width)
    picked = torch.linspace(0, n // 2, per_head // 4).long().tolist()
    gain = per_head**0.25
    for head in range(attention.num_heads):
        row = head * per_head
        for axis, offset in enumerate(offsets[head % len(offsets)]):
            for f in picked:
                sine, cosine = 2 * axis * n + f, (2 * axis + 1) * n + f
                turn = float(frequencies[f]) * offset
                key[row, sine] = key[row + 1, cosine] = gain
                query[row, sine] = query[row + 1, cosine] = gain * math.cos(turn)
                query[row, cosine], query[row + 1, sine] = gain * math.sin(turn), -gain * math.sin(turn)
                row += 2
    attention.q_proj.weight.copy_(query)
    attention.k_proj.weight.copy_(key)


def hidden_states(
    tower: CLIPVisionModel, pixels: Tensor, corner: tuple[int, int] = (0, 0), depth: int | None = None
) -> list[Tensor]:
    """Run the first `depth` layers on images or on crops, and return all hidden states `[B, 1 + N, C]`.

    A crop `[B, 3, side, side]` takes the positions of the window that begins at `corner` (row, column of the grid).
    With whole images and all layers this is the stock forward pass.
    """
    embeddings = tower.embeddings
    patches = embeddings.patch_embedding(pixels)
    height, width = patches.shape[-2:]
    table = embeddings.position_embedding.weight
    grid = math.isqrt(len(table) - 1)
    window = table[1:].view(grid, grid, -1)[corner[0] : corner[0] + height, corner[1] : corner[1] + width]
    patches = patches.flatten(2).transpose(1, 2) + window.flatten(0, 1)
    cls = (embeddings.class_embedding + table[0]).expand(len(pixels), 1, -1)
    states = [tower.pre_layrnorm(torch.cat([cls.to(patches.dtype), patches], dim=1))]
    layers: Any = tower.encoder.layers
    for layer in layers[:depth]:
        states.append(layer(states[-1], attention_mask=None))
    return states


def to_pixels(images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return images `[B, H, W, 3]` as a tower's input `[B, 3, H, W]`, as its image processor makes it."""
    centre, scale = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))
    return (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - centre) / scale


class PatchHead(nn.Module):
    """Says of every patch what it shows (colour, shape, size, texture, digit) and where it lies.

    Without the place the layers write over the position codes where there is something to see: measured, a linear map
    from an object's patches then explains a fifth of the variance of their place, against nine tenths at the input.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.out, self.place = nn.LayerNorm(width), nn.Linear(width, sum(CLASSES)), nn.Linear(width, 2)

    def forward(self, states: Tensor, labels: Tensor, places: Tensor) -> tuple[Tensor, float]:
        """Return the loss of states `[B, N, C]`, and the share of digit patches that it gets.

        `labels` `[B, 5, N]` are those of `render.patch_labels`, `places` `[N, 2]` those of `patch_places`.
        """
        normed = self.norm(states)
        logits = self.out(normed).float().split(CLASSES, dim=-1)
        loss = logits[0].new_zeros(())
        for k, scores in enumerate(logits):
            target = labels[:, k].flatten()
            each = F.cross_entropy(scores.flatten(0, 1), target, reduction="none")
            loss = loss + _CHANNEL_WEIGHTS[k] * _weighted(each, target > 0)
        off = (self.place(normed).float() - places).square().sum(-1)
        loss = loss + _PLACE_WEIGHT * _weighted(off.flatten(), (labels > 0).any(1).flatten())
        digits = labels[:, 4] > 0
        right = (logits[4].argmax(-1) == labels[:, 4])[digits]
        return loss, float(right.float().mean()) if len(right) else math.nan


def _weighted(each: Tensor, shown: Tensor) -> Tensor:
    """Return the mean over patches, those that show nothing counting less."""
    weight = torch.where(shown, 1.0, _BACKGROUND_WEIGHT)
    return (each * weight).sum() / weight.sum()


def patch_places(grid: int, corner: tuple[int, int], height: int, width: int) -> Tensor:
    """Return the places `[height * width, 2]` of a window's patches: row and column, -1..1 over the image."""
    rows = corner[0] + torch.arange(height)
    columns = corner[1] + torch.arange(width)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1).add(0.5) * 2 / grid - 1


class CaptionHead(nn.Module):
    """Contrasts images with coarse captions, as CLIP does, and predicts the caption's words from the image.

    A caption is a bag of phrases: size, colour, shape, row and column of each object; "plate" with row and column.
    Digits and textures are never mentioned.
    """

    _SIZES = (len(COLORS), len(SHAPES), len(SIZES), 4, 4, 1)  # the last word is "plate"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image = nn.Linear(width, width)
        self.words = nn.Embedding(sum(self._SIZES), width)
        self.phrase = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.named = nn.Linear(width, len(COLORS) * len(SHAPES) + 1)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, pooled: Tensor, scenes: Scenes) -> tuple[Tensor, float]:
        """Return InfoNCE plus word prediction for CLS states `[B, C]`, and the share of captions found in the batch."""
        words, used, named = (torch.from_numpy(a) for a in caption_bags(scenes))
        image = self.image(pooled.float())
        text = (self.phrase(self.words(words).sum(2)) * used[..., None]).sum(1)
        scores = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T * self.log_scale.exp()
        target = torch.arange(len(scores))
        contrast = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
        guess = F.binary_cross_entropy_with_logits(self.named(image), named, pos_weight=named.new_tensor(5.0))
        return contrast + 3 * guess, float((scores.argmax(1) == target).float().mean())


def caption_bags(scenes: Scenes) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Return captions: word ids `[N, 6, 5]`, phrases that exist `[N, 6]`, colour-shape pairs and plate `[N, 49]`."""
    n = len(scenes)
    first = np.cumsum((0, *CaptionHead._SIZES))
    x, y = scenes.x.astype(int) // 24, scenes.y.astype(int) // 24
    columns = [scenes.color, scenes.shape, scenes.size, y, x]
    objects = np.stack([first[i] + c for i, c in enumerate(columns)], axis=-1)
    plate = np.full((n, 1, 5), first[5])
    plate[:, 0, 3], plate[:, 0, 4] = first[3] + scenes.plate_y // 24, first[4] + scenes.plate_x // 24
    used = np.concatenate([scenes.present, scenes.plate[:, None]], axis=1)
    named = np.zeros((n, len(COLORS) * len(SHAPES) + 1), np.float32)
    image, slot = np.nonzero(scenes.present)
    named[image, scenes.color[image, slot].astype(int) * len(SHAPES) + scenes.shape[image, slot]] = 1
    named[:, -1] = scenes.plate
    return np.concatenate([objects, plate], axis=1).astype(np.int64), used.astype(np.float32), named

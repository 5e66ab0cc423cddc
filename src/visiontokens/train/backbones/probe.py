"""Linear probes: what can be read from one patch of each layer of a vision tower.

One logistic regression per layer and attribute, on the patch under the centre of an object or a digit; trained on
scenes of the training split and tested on scenes (and digit scans) of the test split.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from visiontokens.data.miniworld.render import PATCH, digits_of, objects_of, render
from visiontokens.data.miniworld.scenes import DIGIT_SIZES, IMAGE_SIZE, Scenes, digit_bank
from visiontokens.provenance import atomic_write
from visiontokens.train.backbones.vision import to_pixels

QUARTER = IMAGE_SIZE // 4  # px of a row or column, as questions count them
ATTRIBUTES = ("color", "shape", "size", "texture", "row", "column", *(f"digit_{px}px" for px in DIGIT_SIZES))


class Probe(NamedTuple):
    """One result: accuracy of reading `attribute` from hidden state `layer` on `n` held-out patches."""

    layer: int
    attribute: str
    accuracy: float
    n: int


def probe_targets(scenes: Scenes) -> dict[str, tuple[NDArray, NDArray, NDArray]]:
    """Return per attribute what the probe reads: image `[M]`, patch index in the grid `[M]`, class `[M]`."""
    objects, digits = objects_of(scenes), digits_of(scenes)
    patch = _patch(objects.x, objects.y)
    targets = {name: (objects.image, patch, getattr(objects, name)) for name in ATTRIBUTES[:4]}
    targets |= {
        "row": (objects.image, patch, objects.y // QUARTER),
        "column": (objects.image, patch, objects.x // QUARTER),
    }
    patch = _patch(digits.x + digits.px // 2, digits.y + digits.px // 2)
    for size in DIGIT_SIZES:
        m = digits.px == size
        targets[f"digit_{size}px"] = (digits.image[m], patch[m], digit_bank()[1][digits.scan[m]])
    return targets


def _patch(x: NDArray, y: NDArray) -> NDArray:
    return (y.astype(int) // PATCH) * (IMAGE_SIZE // PATCH) + x.astype(int) // PATCH


def probe_tower(
    tower: Any, mean: Iterable[float], std: Iterable[float], *, train: int = 600, test: int = 400, seed: int = 0
) -> list[Probe]:
    """Probe every hidden state of `tower` (a `CLIPVisionModel`), on `train` and `test` sharp scenes.

    `mean` and `std` are the image processor's, per channel on the scale 0..1.
    """
    from sklearn.linear_model import LogisticRegression

    norm = (list(mean), list(std))
    known = _read(tower, Scenes.sample(train, seed, "train"), norm)
    unseen = _read(tower, Scenes.sample(test, seed, "test"), norm)
    results = []
    for layer in range(next(iter(known.values()))[0].shape[1]):
        for name in ATTRIBUTES:
            (x, y), (x_new, y_new) = known[name], unseen[name]
            centre, scale = x[:, layer].mean(0), x[:, layer].std(0) + 1e-6
            model = LogisticRegression(C=0.05, max_iter=200).fit((x[:, layer] - centre) / scale, y)
            score = float(model.score((x_new[:, layer] - centre) / scale, y_new))
            results.append(Probe(layer, name, round(score, 4), len(y_new)))
    return results


def _read(
    tower: Any, scenes: Scenes, norm: tuple[list[float], list[float]], batch: int = 20
) -> dict[str, tuple[NDArray, NDArray]]:
    """Return per attribute the probed patches' hidden states `[M, layers + 1, C]` and classes `[M]`."""
    found: dict[str, list[tuple[NDArray, NDArray]]] = {name: [] for name in ATTRIBUTES}
    for start in range(0, len(scenes), batch):
        part = scenes.select(slice(start, start + batch))
        pixels = to_pixels(render(part), *norm)
        with torch.inference_mode():
            states = tower(pixels, output_hidden_states=True).hidden_states
        stacked = torch.stack([s[:, 1:] for s in states], dim=2).float().numpy()
        for name, (image, patch, classes) in probe_targets(part).items():
            found[name].append((stacked[image, patch], classes))
    return {k: (np.concatenate([a for a, _ in v]), np.concatenate([b for _, b in v])) for k, v in found.items()}


def write_probes(path: Path, probes: Iterable[Probe]) -> None:
    """Write probes as CSV with the columns layer, attribute, accuracy, n."""
    with atomic_write(path) as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(Probe._fields)
        writer.writerows(probes)

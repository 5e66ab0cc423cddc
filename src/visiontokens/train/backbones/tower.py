"""Pretraining of the mini vision tower, in the two steps that give a small model both sharp eyes and a CLIP-like top.

A. *Dense*: the lower layers name what each patch shows and where it lies, first on crops packed with digits and
   objects (a quarter of the tokens, so a fraction of the price), then on whole packed images.
B. *Contrastive*: all layers match whole scenes with coarse captions (CLIP, Radford et al. 2021), while a light dense
   loss keeps the middle layer.

What comes out is a stock `CLIPVisionModel` with its image processor, a record of the run, and linear probes per layer.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel

from visiontokens.config import TowerPretrainConfig
from visiontokens.data.miniworld.render import patch_labels, render
from visiontokens.data.miniworld.scenes import IMAGE_SIZE, Scenes
from visiontokens.data.precision import autocast
from visiontokens.data.progress import Progress
from visiontokens.models.tiny import MINI_TOWER, TowerDims, image_processor
from visiontokens.provenance import read_json, sha256_file, stamp, write_json
from visiontokens.train.backbones.crops import SIDE, sample_crops
from visiontokens.train.backbones.probe import Probe, probe_tower, write_probes
from visiontokens.train.backbones.vision import (
    CaptionHead,
    PatchHead,
    build_tower,
    hidden_states,
    patch_places,
    to_pixels,
)

_LOG_EVERY = 50  # steps
_WARMUP = 40  # steps
_POOL = 160  # samples drawn at a time
_logger = logging.getLogger(__name__)

Norm = tuple[list[float], list[float]]


class _Optimizer:
    """Muon for the blocks' matrices, AdamW for the rest, on a cosine schedule with warm-up."""

    def __init__(self, modules: list[nn.Module], steps: int, rate: float) -> None:
        self.parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
        blocks = [m for m in modules if isinstance(m, CLIPVisionModel)]
        matrices = [p for m in blocks for p in m.encoder.parameters() if p.requires_grad and p.ndim == 2]
        chosen = {id(p) for p in matrices}
        others = [p for p in self.parameters if id(p) not in chosen]
        self._parts: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"), rate),
            (torch.optim.AdamW(others, lr=rate, weight_decay=0.05, betas=(0.9, 0.98)), rate * 2 / 3),
        ]
        self._steps, self._done = steps, 0

    def step(self, loss: Tensor) -> None:
        """Take one step down the gradient of `loss`."""
        cosine = 0.5 + 0.5 * math.cos(math.pi * self._done / self._steps)
        factor = min(1.0, (self._done + 1) / _WARMUP) * (0.03 + 0.97 * cosine)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part, rate in self._parts:
            for group in part.param_groups:
                group["lr"] = rate * factor
            part.step()
            part.zero_grad()
        self._done += 1


class _Run:
    """A pretraining run: the tower, what is known about its training so far, and its folder."""

    def __init__(self, plan: TowerPretrainConfig, out: Path, dims: TowerDims) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.out, self.dims = plan, out, dims
        self.tower = build_tower(dims, dense_layers=plan.dense_layers)
        self.head = PatchHead(dims.hidden)
        self.norm = pixel_statistics()
        self.losses: list[dict[str, Any]] = []
        self._since: list[tuple[float, float]] = []
        self._cpu = time.process_time()

    def pixels(self, images: np.ndarray) -> Tensor:
        """Return images `[B, H, W, 3]` as the tower's input `[B, 3, H, W]`."""
        return to_pixels(images, *self.norm)

    def note(self, phase: str, step: int, loss: float, right: float, progress: Progress) -> None:
        """Count a step; every 50 write down the mean loss and hit rate, and now and then save the tower."""
        self._since.append((loss, right))
        text = ""
        if step % _LOG_EVERY == 0:
            mean, share = (round(float(v), 4) for v in np.nanmean(self._since, axis=0))
            self.losses.append({"phase": phase, "step": step, "loss": mean, "right": share})
            self._since.clear()
            text = f"loss {mean:.3f}  right {share:.3f}  cpu {time.process_time() - self._cpu:.0f} s"
            _logger.info("%s %d  %s", phase, step, text)
        progress.advance(1)
        if self.plan.save_every and step % self.plan.save_every == 0:
            self.save(self.out.with_name(self.out.name + ".partial"), [])

    def save(self, folder: Path, probes: list[Probe]) -> None:
        """Write tower, image processor, record and probes."""
        save_tower(self.tower, folder, self.norm, self.dims)
        record = {
            **stamp(),
            "plan": self.plan.model_dump(mode="json"),
            "cpu_seconds": round(time.process_time() - self._cpu, 1),
            "losses": self.losses,
            "probes": [p._asdict() for p in probes],
            "sha256": sha256_file(folder / "model.safetensors"),
        }
        write_json(folder / "record.json", record)
        write_probes(folder / "probe.csv", probes)


def pretrain_tower(plan: TowerPretrainConfig, out: str | Path, dims: TowerDims = MINI_TOWER) -> list[Probe]:
    """Pretrain a vision tower from nothing and write it to `out`; a rolling copy lies in `<out>.partial`.

    Writes `config.json`, `model.safetensors` (fp16), `preprocessor_config.json`, `record.json` (commit, plan, losses,
    probes, CPU seconds) and `probe.csv`. Deterministic for a given plan on a given kind of processor.

    Returns:
        the linear probes of every layer.
    """
    out = Path(out)
    run = _Run(plan, out, dims)
    _dense_phase(run, "crops", SIDE)
    _dense_phase(run, "packed", IMAGE_SIZE)
    _contrastive_phase(run)
    probes = probe_tower(run.tower, *run.norm, train=plan.probe_images, test=plan.probe_images, seed=plan.seed)
    run.save(out, probes)
    return probes


def _dense_phase(run: _Run, phase: str, side: int) -> None:
    """Train the lower layers to name what patches show, on packed images of `side` px (phase A)."""
    plan = run.plan
    crops = (plan.crop_steps, plan.crop_batch, plan.learning_rate)
    steps, batch, rate = crops if phase == "crops" else (plan.packed_steps, plan.packed_batch, plan.learning_rate / 3)
    free = run.dims.grid - side // run.dims.patch_size + 1  # places of the crop in the position table, per axis
    rng = np.random.default_rng([plan.seed, side])
    optimizer = _Optimizer([run.tower, run.head], max(1, steps), rate)
    progress = Progress(_logger, phase, steps, every=30)
    for step, (images, labels) in enumerate(_packed(rng, steps, batch, side), start=1):
        row, column = rng.integers(0, free, 2).tolist()
        with autocast(plan.precision):
            state = hidden_states(run.tower, run.pixels(images), (row, column), plan.dense_layers)[-1]
            places = patch_places(run.dims.grid, (row, column), *labels.shape[2:])
            loss, right = run.head(state[:, 1:], torch.from_numpy(labels).flatten(2).long(), places)
        optimizer.step(loss)
        run.note(phase, step, loss.item(), right, progress)


def _packed(rng: np.random.Generator, steps: int, batch: int, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield `steps` batches of packed images and patch labels."""
    per_pool = max(1, _POOL // batch)
    for step in range(steps):
        at = step % per_pool
        if at == 0:
            pool = sample_crops(per_pool * batch, rng, "train", side=side)
        yield pool.images[at * batch : (at + 1) * batch], pool.labels[at * batch : (at + 1) * batch]


def _contrastive_phase(run: _Run) -> None:
    """Match whole scenes with coarse captions through all layers, keeping the middle layer dense (phase B)."""
    plan = run.plan
    captions = CaptionHead(run.dims.hidden)
    places = patch_places(run.dims.grid, (0, 0), run.dims.grid, run.dims.grid)
    optimizer = _Optimizer([run.tower, run.head, captions], max(1, plan.contrastive_steps), plan.contrastive_rate)
    progress = Progress(_logger, "contrastive", plan.contrastive_steps, every=30)
    for step in range(1, plan.contrastive_steps + 1):
        scenes = Scenes.sample(plan.contrastive_batch, plan.seed * 1_000_003 + step, "train", blur=0.05)
        labels = torch.from_numpy(patch_labels(scenes)).flatten(2).long()
        with autocast(plan.precision):
            states = hidden_states(run.tower, run.pixels(render(scenes)))
            dense, _ = run.head(states[plan.dense_layers][:, 1:], labels, places)
            pooled = run.tower.post_layernorm(states[-1][:, 0])
        contrast, right = captions(pooled, scenes)
        optimizer.step(contrast + plan.dense_weight * dense)
        run.note("contrastive", step, contrast.item(), right, progress)


def pixel_statistics(n: int = 1000) -> Norm:
    """Return mean and standard deviation of the world's pixels per channel, on the scale 0..1, to three decimals."""
    images = render(Scenes.sample(n, 0, "train")) / 255
    return [round(float(v), 3) for v in images.mean((0, 1, 2))], [round(float(v), 3) for v in images.std((0, 1, 2))]


def save_tower(tower: CLIPVisionModel, folder: str | Path, norm: Norm, dims: TowerDims = MINI_TOWER) -> None:
    """Write a tower as fp16 weights that load as fp32, with its configuration and image processor."""
    folder = Path(folder)
    copy.deepcopy(tower).to(torch.float16).save_pretrained(folder)  # type: ignore[arg-type]
    (folder / "model.safetensors").chmod(0o644)  # made private by the writer; shipped files are for everybody
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "dtype": "float32"})
    image_processor(*norm, dims).save_pretrained(folder)

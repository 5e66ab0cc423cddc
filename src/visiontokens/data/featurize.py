"""The workflow's feature job: one image set through the configured tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visiontokens.config import Config
from visiontokens.data.features import compute_features, tower_levels
from visiontokens.data.images import Preprocessor
from visiontokens.data.videos import VIDEO_SETS
from visiontokens.provenance import read_json, sha256_file


def configured_tower(config: Config) -> tuple[Any, Preprocessor, str]:
    """Return the configured tower in eval mode, its image settings and its SHA-256, after setting the threads.

    Raises:
        FileNotFoundError: there is no tower.
    """
    import torch
    from transformers import CLIPVisionModel

    torch.set_num_threads(config.threads)
    folder = config.backbones.tower
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"{weights}: no vision tower there (setting backbones.tower)")
    tower = CLIPVisionModel.from_pretrained(folder, dtype=torch.float32).eval()
    return tower, Preprocessor.from_config(read_json(folder / "preprocessor_config.json")), sha256_file(weights)


def featurize(config: Config, image_set: str, workers: int = 1) -> Path:
    """Compute the configured levels of one set of images or videos into `<data>/features/<set>`.

    Returns the index file.

    Raises:
        FileNotFoundError: tower, image table or an image is missing.
        ValueError: an image cannot be read, or a level does not exist.
    """
    import torch

    tower, processor, made_by = configured_tower(config)
    return compute_features(
        tower,
        processor,
        config.data_dir,
        image_set,
        tower_levels(config.features.levels, tower.config.num_hidden_layers),
        out=config.data_dir / "features" / image_set,
        tower_sha=made_by,
        batch=config.features.batch_size,
        workers=workers,
        device="cuda" if torch.cuda.is_available() else "cpu",
        frames=config.video.frames if image_set in VIDEO_SETS else 0,
    )

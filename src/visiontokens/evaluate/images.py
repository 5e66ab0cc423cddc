"""What a model sees of benchmark images: features computed ahead where there are some, else its own tower's pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from visiontokens.compress.base import Compressor
from visiontokens.config import Config
from visiontokens.data.class_states import open_sets
from visiontokens.data.images import Preprocessor
from visiontokens.data.precision import autocast
from visiontokens.models.build import PROCESSOR_FILE
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.models.processors import image_settings
from visiontokens.provenance import sha256_file


class LevelSource(Protocol):
    """Where the vision features of images come from."""

    def get(self, paths: Sequence[str]) -> dict[int, Tensor]:
        """Return the features of F images by hidden-state index, `[F, N, C]` (with CLS where the method asks)."""
        ...


class TowerSource:
    """The model's tower, run on image files when they are asked for.

    Args:
        model: its tower and its method's way through it.
        processor: turns files into the tower's pixels.
        root: folder that paths are relative to.
        precision: auto, fp32 or bf16.
    """

    def __init__(
        self, model: LlavaWithCompressor, processor: Preprocessor, root: Path, precision: str = "auto"
    ) -> None:
        self.model, self.processor, self.root, self.precision = model, processor, root, precision

    @torch.inference_mode()
    def get(self, paths: Sequence[str]) -> dict[int, Tensor]:
        """Return the levels that the model's method reads.

        Raises:
            FileNotFoundError, ImageError: an image is missing or unreadable.
        """
        with autocast(self.precision, str(self.model.device)):
            return self.model.compressor.run_tower(self._tower, self._pixels(paths))

    @torch.inference_mode()
    def states(self, paths: Sequence[str], levels: Iterable[int]) -> dict[int, Tensor]:
        """Return any hidden states of the tower, without CLS, whatever the method reads (errors: see `get`)."""
        with autocast(self.precision, str(self.model.device)):
            found = self._tower(self._pixels(paths), output_hidden_states=True).hidden_states
        return {level: found[level][:, 1:] for level in levels}

    @property
    def _tower(self) -> Any:
        return self.model.model.vision_tower

    def _pixels(self, paths: Sequence[str]) -> Tensor:
        pixels = torch.from_numpy(self.processor([self.root / path for path in paths]))
        return pixels.to(self.model.device, self._tower.dtype)


def tower_source(config: Config, model: LlavaWithCompressor) -> TowerSource:
    """Return the model's own tower, with the image settings of its folder or of the configured tower.

    Raises:
        FileNotFoundError: neither folder has image settings.
    """
    processor = Preprocessor.from_config(_image_settings(config, model))
    return TowerSource(model, processor, config.data_dir, config.evaluate.precision)


def _image_settings(config: Config, model: LlavaWithCompressor) -> dict[str, Any]:
    """Return the image settings of the model's folder or of the configured tower (errors: `tower_source`)."""
    folders = [Path(str(model.name_or_path)), config.backbones.tower]
    images = image_settings(folders)
    if images is None:
        listed = ", ".join(map(str, folders))
        raise FileNotFoundError(f"{listed}: {PROCESSOR_FILE} not found, expected it beside the weights")
    return images


def _runs_tower(config: Config, model: LlavaWithCompressor) -> bool:
    """Tell whether the tower runs on image files.

    The workflow computes features ahead for a generated world only: those of official images would take terabytes.
    """
    return config.world is None or type(model.compressor).run_tower is not Compressor.run_tower


def level_source(config: Config, model: LlavaWithCompressor, *sets: str) -> LevelSource:
    """Return where `model` gets the features of images and videos from: the named sets, by default `test`.

    Raises:
        FileNotFoundError: features or image settings are not where they should be.
        FeatureError: the features are not of the levels that the model reads.
    """
    if _runs_tower(config, model):
        return tower_source(config, model)
    folders = [config.data_dir / "features" / name for name in sets or ("test",)]
    return open_sets(folders, model.compressor.levels, model.compressor.class_levels)


def source_identity(config: Config, model: LlavaWithCompressor, *sets: str) -> dict[str, Any]:
    """Return what tells the features of `level_source` from others of the same images (errors: see there)."""
    if _runs_tower(config, model):
        return {"tower": _image_settings(config, model)}
    folders = [config.data_dir / "features" / f"{name}{part}" for name in sets or ("test",) for part in ("", ".class")]
    indexes = [folder / "index.json" for folder in folders]
    return {path.parent.name: sha256_file(path) for path in indexes if path.is_file()}

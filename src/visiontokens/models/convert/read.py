"""What a source holds, in this package's terms: weights by name, settings, tokenizer, image settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig, LlavaConfig

from visiontokens.compress.base import MethodSpec
from visiontokens.models.build import CheckpointError
from visiontokens.models.convert.files import Checkpoint, Stored
from visiontokens.models.convert.names import llm_to_model, to_model, tower_to_model
from visiontokens.models.convert.plan import EMBED, by_weight, check_complete, drop_tied_head, expected_shapes, strays
from visiontokens.models.convert.settings import (
    CLIP_L,
    CLIP_STATISTICS,
    from_official_settings,
    read_settings,
    stf_method,
    vision_settings,
)
from visiontokens.models.processors import add_image_token, image_settings, load_tokenizer

ROW_MULTIPLE = 64
"""A vocabulary that grows is rounded up to this, as in the hub's conversion (32,000 to 32,064)."""


@dataclass
class Source:
    """A checkpoint that was read and found whole.

    Attributes:
        layout: of the source.
        tensors: stored tensors by this package's names.
        config: transformers' settings, for the source's number of rows.
        rows: of the embedding as stored.
        hub_rows: of the embedding in transformers' layout.
        official_rows: of the embedding in LLaVA's layouts.
        keep_tower: whether LLaVA's layouts hold the tower.
        tokenizer: in memory, if its files are to be written anew.
        images: settings of the image processor.
        carried: folders whose small files go along.
    """

    layout: str
    tensors: dict[str, Stored]
    config: LlavaConfig
    rows: int
    hub_rows: int
    official_rows: int
    keep_tower: bool = True
    tokenizer: Any = None
    images: dict[str, Any] = field(default_factory=dict)
    carried: tuple[Path, ...] = ()

    @property
    def method(self) -> MethodSpec:
        """The method the weights belong to."""
        return MethodSpec.from_config(getattr(self.config, "compressor", None))

    def rows_in(self, target: str) -> int:
        """Return the rows of the embedding in a target layout."""
        return self.hub_rows if target in {"ours", "llava-hf"} else self.official_rows


def read_hub(
    checkpoint: Checkpoint, layout: str, tower: Path | None, llm: Path | None, tokenizer: Path | None
) -> Source:
    """Read a checkpoint in the hub's layout, with or without a compressor.

    Raises:
        FileNotFoundError: settings, tokenizer or image settings are missing.
        CheckpointError: tensors are missing, unexpected or misshaped.
    """
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    read_settings(folder)
    config = LlavaConfig.from_pretrained(folder)
    config.compressor = MethodSpec.from_config(getattr(config, "compressor", None)).to_config()
    given = by_weight(checkpoint, lambda name: to_model(name, layout))
    if config.tie_word_embeddings:
        drop_tied_head(checkpoint.path, given)
    check_complete(checkpoint.path, layout, given, strays(checkpoint, layout), expected_shapes(config))
    official = getattr(config, "official", None) or {}
    rows = given[EMBED].shape[0]
    images = image_settings([folder, tower])
    if images is None:
        raise FileNotFoundError(f"{folder}: no preprocessor_config.json; give a CLIP folder that has one (--tower)")
    return Source(
        layout,
        given,
        config,
        rows,
        rows,
        int(official.get("vocab_size", rows)),
        bool(official.get("tower", True)),
        load_tokenizer([tokenizer, folder, llm]),
        images,
        tuple(path for path in (tokenizer, folder) if path is not None),
    )


def read_official_layout(
    checkpoint: Checkpoint, layout: str, tower: Path | None, llm: Path | None, tokenizer: Path | None
) -> Source:
    """Read a checkpoint of LLaVA's own code: LLaVA-1.5, LLaVA-STF, or STF's projectors with their backbones.

    Raises:
        FileNotFoundError: settings, tokenizer, tower or language model are missing.
        CheckpointError: tensors are missing, unexpected or misshaped; settings that mean something else.
    """
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    text_folder = folder
    if layout == "stf-projector":
        if llm is None:
            raise CheckpointError(f"{checkpoint.path}: projectors alone; give the language model's folder (--llm)")
        text_folder = llm
    raw = read_settings(text_folder)
    vision = vision_settings(tower, raw, text_folder)
    given, keep_tower = _official_tensors(checkpoint, layout, tower, llm if layout == "stf-projector" else None)
    if EMBED not in given:
        raise CheckpointError(f"{checkpoint.path}: missing model.embed_tokens.weight")
    rows = given[EMBED].shape[0]
    words = load_tokenizer([tokenizer, folder, llm])
    image_token = add_image_token(words, rows)
    width: Any = vision.hidden_size
    method = stf_method(given, width) if layout != "llava" else MethodSpec()
    config = from_official_settings(raw, text_folder, vision, method, image_token)
    if config.tie_word_embeddings:
        drop_tied_head(checkpoint.path, given)
    check_complete(checkpoint.path, layout, given, strays(checkpoint, layout), expected_shapes(config))
    hub_rows = rows if image_token < rows else -(-(image_token + 1) // ROW_MULTIPLE) * ROW_MULTIPLE
    images = image_settings([folder, tower]) or _clip_images(vision)
    carried = tuple(path for path in (tokenizer, folder, llm) if path is not None)
    return Source(layout, given, config, rows, hub_rows, rows, keep_tower, words, images, carried)


def _official_tensors(
    checkpoint: Checkpoint, layout: str, tower: Path | None, llm: Path | None
) -> tuple[dict[str, Stored], bool]:
    """Return the stored tensors, completed by separate backbones, and whether the source itself holds the tower."""
    given = by_weight(checkpoint, lambda name: to_model(name, layout))
    own = any(name.startswith("model.vision_tower.") for name in given)
    if llm is not None:
        given |= by_weight(Checkpoint.open(llm), llm_to_model)
    if own:
        return given, True
    if tower is None:
        raise CheckpointError(f"{checkpoint.path}: holds no vision tower; give its folder (--tower)")
    return given | by_weight(Checkpoint.open(tower), tower_to_model), False


def _clip_images(vision: CLIPVisionConfig) -> dict[str, Any]:
    """Return CLIP's own image settings.

    Raises:
        FileNotFoundError: the tower is another one, so its pixels' statistics are not known.
    """
    sizes: Any = vision
    if any(getattr(vision, key) != value for key, value in CLIP_L.items() if key in {"hidden_size", "image_size"}):
        raise FileNotFoundError(
            "no preprocessor_config.json beside the weights; give a CLIP folder that has one (--tower)"
        )
    side = sizes.image_size
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}, **CLIP_STATISTICS}

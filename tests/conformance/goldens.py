"""Fixtures computed by the official implementations, and models built from their manifests."""

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from visiontokens.compress import MethodSpec
from visiontokens.models.convert import load_official, read_official
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.provenance import read_json

ROOT = Path(os.environ.get("VISIONTOKENS_GOLDEN", Path(__file__).parent / "golden"))


@dataclass(frozen=True)
class Golden:
    """One folder of fixtures: manifest, tensors, tolerances. Nothing a test expects is typed in the test."""

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return read_json(self.folder / "manifest.json")

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors but the weights, by name."""
        found: dict[str, Tensor] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            if not path.name.startswith("weights"):
                found.update(load_file(path))
        return found

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        return read_official(sorted(self.folder.glob("weights*.safetensors")))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def names(self, pattern: str) -> list[Any]:
        """Matches of a regular expression over tensor names, sorted by name."""
        return [m for name in sorted(self.tensors) if (m := re.fullmatch(pattern, name))]

    def close(self, got: Tensor, want: Tensor | str) -> None:
        """Compare at the manifest's tolerance."""
        want = self[want] if isinstance(want, str) else want
        tol = self.manifest["tolerance"]
        torch.testing.assert_close(got, want, atol=tol["atol"], rtol=tol["rtol"])

    def config(self, method: MethodSpec) -> LlavaConfig:
        sizes = self.manifest["config"]
        vision = CLIPVisionConfig(**sizes["vision"])
        side = vision.image_size // vision.patch_size
        config = LlavaConfig(
            vision_config=vision,
            text_config=LlamaConfig(**sizes["language"], pad_token_id=0),
            image_token_index=sizes["image_token_id"],
            image_seq_length=side * side,
            vision_feature_layer=sizes["multimodal"]["mm_vision_select_layer"],
            tie_word_embeddings=sizes["language"]["tie_word_embeddings"],
        )
        config.compressor = method.to_config()
        return config

    def model(self, method: MethodSpec, attention: str = "sdpa") -> LlavaWithCompressor:
        """Return the model of the manifest with the official weights."""
        model = LlavaWithCompressor._from_config(self.config(method), attn_implementation=attention).eval()
        load_official(model, self.weights)
        model.generation_config.eos_token_id = None
        return model


def model_of(
    method: MethodSpec, text: LlamaConfig, *, width: int, side: int, image: int, tied: bool = False
) -> LlavaWithCompressor:
    """Return a model for fixtures that record no tower: features `[F, side^2, width]` are handed in.

    Args:
        method: the compressor.
        text: the language model's sizes.
        width: of the features.
        side: patches of an image, along one side.
        image: id of the image token.
        tied: the output head shares the embedding's weights.
    """
    vision = CLIPVisionConfig(
        hidden_size=width, intermediate_size=width, num_hidden_layers=2, num_attention_heads=1, image_size=2 * side,
        patch_size=2,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=image, image_seq_length=side**2,
        tie_word_embeddings=tied,
    )  # fmt: skip
    config.compressor = method.to_config()
    return LlavaWithCompressor._from_config(config, attn_implementation="sdpa").eval()


def golden(system: str) -> Golden:
    """Return the fixtures of a system, or fail when they are not there."""
    if not (ROOT / system / "manifest.json").is_file():
        raise FileNotFoundError(f"{ROOT / system}: no conformance fixtures (set VISIONTOKENS_GOLDEN)")
    return Golden(ROOT / system)

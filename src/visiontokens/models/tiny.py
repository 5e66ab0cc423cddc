"""Mini CLIP towers, mini LLaMAs and their image processor, from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import CLIPVisionConfig, LlamaConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil


@dataclass(frozen=True)
class TowerDims:
    """Size of a CLIP vision tower; the defaults are the mini world's: 96 px in 24 x 24 patches of 4 px."""

    hidden: int = 128
    layers: int = 8
    heads: int = 4
    mlp: int = 256
    image_size: int = 96
    patch_size: int = 4

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class LlmDims:
    """Size of a LLaMA; the defaults are the mini world's."""

    hidden: int = 128
    layers: int = 8
    heads: int = 4
    kv_heads: int = 4
    mlp: int = 384
    rope_theta: float = 10000.0
    max_positions: int = 2048
    initializer_range: float = 0.08


MINI_TOWER, MINI_LLM = TowerDims(), LlmDims()
# The smallest that still have a level -2, a middle, heads and a 2 x 2 grid of 2 x 2 blocks; for tests.
SMOKE_TOWER = TowerDims(hidden=16, layers=3, heads=2, mlp=32, image_size=16)
SMOKE_LLM = LlmDims(hidden=16, layers=4, heads=2, kv_heads=2, mlp=32, max_positions=256)


def tower_config(dims: TowerDims = MINI_TOWER) -> CLIPVisionConfig:
    """Return the configuration of a `CLIPVisionModel` of these dims.

    Raises:
        ValueError: the image is not a whole number of patches.
    """
    if dims.image_size % dims.patch_size:
        raise ValueError(f"image_size: found {dims.image_size}, expected a multiple of patch_size {dims.patch_size}")
    return CLIPVisionConfig(
        hidden_size=dims.hidden,
        intermediate_size=dims.mlp,
        projection_dim=dims.hidden,
        num_hidden_layers=dims.layers,
        num_attention_heads=dims.heads,
        image_size=dims.image_size,
        patch_size=dims.patch_size,
        hidden_act="quick_gelu",
    )


def llm_config(
    vocab_size: int, dims: LlmDims = MINI_LLM, *, bos: int = 1, eos: int = 2, pad: int | None = None
) -> LlamaConfig:
    """Return the configuration of a LLaMA of these dims with tied embeddings and the tokenizer's special ids."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=dims.hidden,
        intermediate_size=dims.mlp,
        num_hidden_layers=dims.layers,
        num_attention_heads=dims.heads,
        num_key_value_heads=dims.kv_heads,
        max_position_embeddings=dims.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": dims.rope_theta},
        initializer_range=dims.initializer_range,
        tie_word_embeddings=True,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
    )


def image_processor(mean: Sequence[float], std: Sequence[float], dims: TowerDims = MINI_TOWER) -> CLIPImageProcessorPil:
    """Return a CLIP image processor on Pillow (no torchvision); `mean` and `std` are on the scale 0..1."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": dims.image_size},
        crop_size={"height": dims.image_size, "width": dims.image_size},
        image_mean=list(mean),
        image_std=list(std),
    )

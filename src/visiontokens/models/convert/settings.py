"""Settings of a checkpoint: LLaVA's flat `config.json` to and from that of transformers; the method from shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from visiontokens.compress.base import MethodSpec, parse_params
from visiontokens.models.build import CheckpointError
from visiontokens.models.convert.files import Stored
from visiontokens.provenance import read_json

CLIP_L: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14, "projection_dim": 768, "hidden_act": "quick_gelu",
}  # fmt: skip
"""CLIP ViT-L/14 at 336 pixels, the tower of both papers."""
CLIP_L_NAME = "clip-vit-large-patch14-336"
CLIP_STATISTICS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
"""Mean and standard deviation of the pixels that CLIP was trained on (Radford et al. 2021)."""
PAPER_LEVELS = {8: "all8", 4: "four"}
"""Which tower blocks LLaVA-STF fuses, by how many there are."""
TEXT_KEYS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act", "initializer_range",
    "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "rope_theta", "rope_scaling",
    "rope_parameters",
)  # fmt: skip


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the `config.json` of a folder.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is not a mapping.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: settings of the checkpoint are missing")
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: expected a mapping, found {type(raw).__name__}")
    return raw


def vision_settings(tower: Path | None, raw: Mapping[str, Any], where: Path) -> CLIPVisionConfig:
    """Return the tower's settings: those in its own folder, or of the tower that an official `config.json` names.

    Raises:
        CheckpointError: the tower is not known and no folder is given.
    """
    if tower is not None:
        own = read_settings(tower)
        return CLIPVisionConfig(**_plain(own.get("vision_config") or own))
    if str(raw.get("mm_vision_tower", "")).rstrip("/").endswith(CLIP_L_NAME):
        return CLIPVisionConfig(**CLIP_L)
    raise CheckpointError(
        f"{where / 'config.json'}: key 'mm_vision_tower': found {raw.get('mm_vision_tower')!r}, expected "
        f"'openai/{CLIP_L_NAME}'; for another tower give its folder (--tower)"
    )


def _plain(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in raw.items() if key not in {"model_type", "architectures", "transformers_version"}
    }


def from_official_settings(
    raw: Mapping[str, Any], where: Path, vision: CLIPVisionConfig, method: MethodSpec, image_token: int
) -> LlavaConfig:
    """Return transformers' settings for an official LLaVA (or Vicuna) `config.json`.

    Raises:
        CheckpointError: a setting that this package has no counterpart for; the message names the key.
    """
    for key, expected in (("mm_projector_type", "mlp2x_gelu"), ("mm_vision_select_feature", "patch")):
        if raw.get(key, expected) != expected:
            raise CheckpointError(f"{where / 'config.json'}: key {key!r}: found {raw[key]!r}, expected {expected!r}")
    text = LlamaConfig(**{key: raw[key] for key in TEXT_KEYS if raw.get(key) is not None})
    sizes: Any = vision
    side = sizes.image_size // sizes.patch_size
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image_token,
        image_seq_length=side * side,
        vision_feature_layer=int(raw.get("mm_vision_select_layer", -2)),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
    )
    config.dtype = raw.get("torch_dtype") or raw.get("dtype") or "float16"
    config.compressor = method.to_config()
    return config


def to_official_settings(config: LlavaConfig, rows: int) -> dict[str, Any]:
    """Return the `config.json` that LLaVA's own code reads; `rows` is the size of its vocabulary."""
    text: Any = config.text_config
    vision: Any = config.vision_config
    rope = dict(getattr(text, "rope_parameters", None) or {})
    flat = {key: getattr(text, key, None) for key in TEXT_KEYS if not key.startswith("rope_")}
    width = vision.hidden_size
    scaled = rope.get("rope_type", "default") != "default"
    known = all(getattr(vision, key) == value for key, value in CLIP_L.items() if key != "projection_dim")
    return {key: value for key, value in flat.items() if value is not None} | {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "vocab_size": rows,
        "rope_theta": rope.get("rope_theta", 10000.0),
        "rope_scaling": {key: value for key, value in rope.items() if key != "rope_theta"} if scaled else None,
        "mm_vision_tower": f"openai/{CLIP_L_NAME}" if known else "",
        "mm_hidden_size": width,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "use_mm_proj": True,
        "torch_dtype": str(config.dtype).removeprefix("torch."),
    }


def stf_method(tensors: Mapping[str, Stored], width: int) -> MethodSpec:
    """Return LLaVA-STF's method with the parameters that its projectors' shapes tell.

    Args:
        tensors: by this package's names.
        width: of the vision tower.

    Raises:
        CheckpointError: shapes that no parameters give; the message names tensor, found and expected.
    """
    blocks, hidden = _multiples(tensors, "compressor.mbtf.linear_1.weight", width)
    area, expand = _multiples(tensors, "model.multi_modal_projector.linear_1.weight", width)
    window = round(area**0.5)
    if blocks not in PAPER_LEVELS or window**2 != area:
        raise CheckpointError(
            f"LLaVA-STF projectors for {blocks} tower blocks and {area} tokens in one: expected "
            f"{' or '.join(map(str, PAPER_LEVELS))} blocks and a square number of tokens"
        )
    params = {"window": window, "expand": expand, "levels": PAPER_LEVELS[blocks], "hidden": hidden}
    return MethodSpec(name="stf_mbtf", params=parse_params("stf_mbtf", params).model_dump(exclude_defaults=True))


def _multiples(tensors: Mapping[str, Stored], name: str, width: int) -> tuple[int, int]:
    """Return the columns and rows of a weight as multiples of the tower's width."""
    if name not in tensors:
        raise CheckpointError(f"missing {name}")
    stored = tensors[name]
    if len(stored.shape) != 2 or any(side % width for side in stored.shape):
        raise CheckpointError(
            f"{stored.path}: {stored.name}: found {stored.shape}, expected two multiples of the tower's width {width}"
        )
    return stored.shape[1] // width, stored.shape[0] // width

"""Names of tensors in the layouts that checkpoints come in, and how a layout is recognised."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, get_args

Format = Literal["llava", "llava-hf", "stf", "stf-projector", "ours"]
FORMATS: tuple[str, ...] = get_args(Format)
OFFICIAL = ("llava", "stf", "stf-projector")
"""Layouts of LLaVA's own code base."""

# (pattern of a stored name, this package's name). Adapter files of some trainers carry a longer prefix.
OFFICIAL_RULES = (
    (r"model\.vision_tower\.vision_tower\.vision_model\.", "model.vision_tower."),
    (r"(?:base_model\.model\.)?model\.mm_projector_crosslayer\.0\.", "compressor.mbtf.linear_1."),
    (r"(?:base_model\.model\.)?model\.mm_projector_crosslayer\.2\.", "compressor.mbtf.linear_2."),
    (r"(?:base_model\.model\.)?model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"(?:base_model\.model\.)?model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"(?:base_model\.model\.)?model\.(vision_mlp_layers\.|proxyv_initializer\.|image_newline$)", r"compressor.\1"),
    (r"model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
    (r"lm_head\.", "lm_head."),
)
HUB_RULES = (
    (r"(?:model\.)?vision_tower\.(?:vision_model\.)?", "model.vision_tower."),
    (r"(?:model\.)?multi_modal_projector\.", "model.multi_modal_projector."),
    (r"(?:language_model\.)?lm_head\.", "lm_head."),
    (r"(?:language_model\.model|model\.language_model)\.", "model.language_model."),
    (r"compressor\.", "compressor."),
)
TO_OFFICIAL = (
    ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
    ("compressor.mbtf.linear_1.", "model.mm_projector_crosslayer.0."),
    ("compressor.mbtf.linear_2.", "model.mm_projector_crosslayer.2."),
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ("compressor.vision_mlp_layers.", "model.vision_mlp_layers."),
    ("compressor.proxyv_initializer.", "model.proxyv_initializer."),
    ("compressor.image_newline", "model.image_newline"),
    ("model.language_model.", "model."),
    ("lm_head.", "lm_head."),
)
TO_HUB = (
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("compressor.", "compressor."),
)
BUFFERS = re.compile(r"(rotary_emb\.inv_freq|embeddings\.position_ids)$")
"""Constants that older checkpoints store beside the weights; they are computed, not loaded."""


def from_official(name: str) -> str | None:
    """Return this package's name of an official tensor; `None` for a name that is not known."""
    return _renamed(name, OFFICIAL_RULES)


def to_model(name: str, layout: str) -> str | None:
    """Return this package's name of a tensor stored in `layout`; `None` for a name that is not known."""
    return _renamed(name, OFFICIAL_RULES if layout in OFFICIAL else HUB_RULES)


def tower_to_model(name: str) -> str | None:
    """Return this package's name of a tensor of a separate CLIP checkpoint; `None` for its text half."""
    if name.startswith(("text_model.", "text_projection.", "visual_projection.", "logit_scale")):
        return None
    return f"model.vision_tower.{name.removeprefix('vision_model.')}"


def llm_to_model(name: str) -> str:
    """Return this package's name of a tensor of a separate LLaMA checkpoint."""
    return name if name.startswith("lm_head.") else f"model.language_model.{name.removeprefix('model.')}"


def from_model(name: str, layout: str) -> str | None:
    """Return the name under which `layout` stores one of this package's tensors; `None` if it has no place for it."""
    for prefix, stored in TO_OFFICIAL if layout in OFFICIAL else TO_HUB:
        if name.startswith(prefix):
            return stored + name[len(prefix) :]
    return None


def _renamed(name: str, rules: Iterable[tuple[str, str]]) -> str | None:
    for pattern, new in rules:
        if re.match(pattern, name):
            return re.sub(pattern, new, name, count=1)
    return None


def detect(names: Iterable[str]) -> str | None:
    """Return the layout that tensors of these names come from; `None` when it is none of them.

    LLaVA-STF's settings do not differ from LLaVA's, so its cross-layer projector is what tells them apart.
    """
    names = list(names)
    if any(".mm_projector_crosslayer." in name for name in names):
        whole = any(name.startswith("model.layers.") for name in names)
        return "stf" if whole else "stf-projector"
    if any(name.startswith("model.mm_projector.") for name in names):
        return "llava"
    if any(name.startswith("compressor.") for name in names):
        return "ours"
    return "llava-hf" if any("multi_modal_projector." in name for name in names) else None

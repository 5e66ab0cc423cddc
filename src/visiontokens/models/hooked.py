"""The inner LLaVA model with a hooked language model, and its place in transformers' checkpoint layout."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import AutoModel, LlavaConfig, LlavaModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from visiontokens.compress.base import Geometry
from visiontokens.models.llama import HookedLlamaModel


def geometry_of(config: LlavaConfig) -> Geometry:
    """Return the sizes a compressor needs from a LLaVA configuration.

    Raises:
        ValueError: the feature is not a single level without CLS, as in LLaVA-1.5.
    """
    vision: Any = config.vision_config
    text: Any = config.text_config
    if not isinstance(config.vision_feature_layer, int) or config.vision_feature_select_strategy != "default":
        raise ValueError(
            "expected one vision_feature_layer and vision_feature_select_strategy 'default' (LLaVA-1.5); found "
            f"{config.vision_feature_layer!r} and {config.vision_feature_select_strategy!r}"
        )
    side = vision.image_size // vision.patch_size
    return Geometry(
        vision_width=vision.hidden_size,
        vision_layers=vision.num_hidden_layers,
        grid=(side, side),
        llm_width=text.hidden_size,
        llm_layers=text.num_hidden_layers,
        feature_level=config.vision_feature_layer,
        vision_heads=vision.num_attention_heads,
        vision_mlp=vision.intermediate_size,
        llm_mlp=text.intermediate_size,
        llm_kv_width=text.hidden_size // text.num_attention_heads * text.num_key_value_heads,
    )


class HookedLlavaModel(LlavaModel):
    """Stock `LlavaModel` around a `HookedLlamaModel`, with the projector widths that the method asks for."""

    def __init__(self, config: LlavaConfig, sizes: tuple[int, int, int] | None = None) -> None:
        super(LlavaModel, self).__init__(config)  # not LlavaModel's own: it would build a second language model
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.multi_modal_projector = LlavaMultiModalProjector(config)
        text: Any = config.text_config
        self.language_model = HookedLlamaModel(text)
        if sizes is not None:
            width_in, hidden, out = sizes
            bias = config.multimodal_projector_bias
            self.multi_modal_projector.linear_1 = nn.Linear(width_in, hidden, bias=bias)
            self.multi_modal_projector.linear_2 = nn.Linear(hidden, out, bias=bias)
        self.post_init()


for _name, _stock in (("LlavaWithCompressor", "llava"), ("HookedLlavaModel", "LlavaModel")):
    _mapping = get_checkpoint_conversion_mapping(_stock)
    assert _mapping is not None, f"transformers has no checkpoint mapping for {_stock}"
    register_checkpoint_conversion_mapping(_name, _mapping, overwrite=True)

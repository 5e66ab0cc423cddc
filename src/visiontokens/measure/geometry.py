"""Models of the papers' sizes: on the meta device for counting, with random weights for timing."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.initialization import no_init_weights

from visiontokens.compress.base import MethodSpec
from visiontokens.measure.flops import VICUNA_7B, VICUNA_13B, LlamaShape
from visiontokens.models.hooked import geometry_of
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.models.tiny import TowerDims, tower_config

CLIP_L_336 = TowerDims(hidden=1024, layers=24, heads=16, mlp=4096, image_size=336, patch_size=14)
"""CLIP ViT-L/14-336, the tower of both papers."""
SHAPES = {"7b": VICUNA_7B, "13b": VICUNA_13B}
"""Language models by the name of their size."""


def full_config(shape: LlamaShape, method: MethodSpec, tower: TowerDims = CLIP_L_336) -> LlavaConfig:
    """Return the configuration of LLaVA-1.5 with this language model, tower and method."""
    text = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=tower_config(tower),
        text_config=text,
        image_token_index=shape.vocab - 1,
        image_seq_length=tower.grid**2,
        tie_word_embeddings=False,
    )
    config.compressor = method.to_config()
    return config


def meta_model(
    shape: LlamaShape, method: MethodSpec | None = None, tower: TowerDims = CLIP_L_336
) -> LlavaWithCompressor:
    """Return the real modules without storage: for counting parameters and shapes at any size."""
    with torch.device("meta"), no_init_weights():
        return LlavaWithCompressor(full_config(shape, method or MethodSpec(), tower))


def random_stock(
    shape: LlamaShape, device: torch.device, dtype: torch.dtype, tower: TowerDims = CLIP_L_336, seed: int = 0
) -> LlavaForConditionalGeneration:
    """Return transformers' own LLaVA with random weights (matrices of standard deviation 0.02)."""
    with torch.device(device), no_init_weights():
        stock: Any = LlavaForConditionalGeneration._from_config(full_config(shape, MethodSpec(), tower), dtype=dtype)
    fill(stock, seed)
    return stock.eval()


def fill(module: nn.Module, seed: int) -> None:
    """Overwrite a module's parameters: matrices at random, biases with 0, other vectors (norms) with 1."""
    with torch.no_grad():
        for number, (name, parameter) in enumerate(module.named_parameters()):
            if parameter.ndim < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                draw = torch.Generator(parameter.device).manual_seed(seed * 100_003 + number)
                parameter.normal_(std=0.02, generator=draw)


def around(stock: LlavaForConditionalGeneration, method: MethodSpec, seed: int = 0) -> LlavaWithCompressor:
    """Return our model with a method, on the very weights of `stock`.

    Its own are the compressor and, where the method needs other widths, the projector.
    """
    owner: Any = stock
    weight = owner.lm_head.weight
    config = LlavaConfig.from_dict(stock.config.to_dict())
    config.compressor = method.to_config()
    with torch.device("meta"), no_init_weights():
        model = LlavaWithCompressor(config)
    decoder: Any = model.model.language_model
    decoder.load_state_dict(owner.model.language_model.state_dict(), assign=True)
    decoder.rotary_emb = owner.model.language_model.rotary_emb
    model.lm_head, model.model.vision_tower = owner.lm_head, owner.model.vision_tower
    model.compressor = method.build(geometry_of(config)).to(weight.device, weight.dtype)
    fill(model.compressor, seed)
    given, projector = owner.model.multi_modal_projector, model.model.multi_modal_projector
    if [p.shape for p in given.parameters()] == [p.shape for p in projector.parameters()]:
        projector.load_state_dict(given.state_dict(), assign=True)
    else:
        fill(projector.to_empty(device=weight.device).to(weight.dtype), seed)
    return model.eval()

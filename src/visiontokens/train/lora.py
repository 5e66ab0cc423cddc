"""Low-rank adapters on the language model (LLaVA's LoRA recipe), by the library `peft`; merged before saving."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from visiontokens.config import LoraSettings
from visiontokens.models.llava import LlavaWithCompressor

MARK = "lora_"
"""Begins the names of adapter parameters."""


def add_lora(model: LlavaWithCompressor, settings: LoraSettings, seed: int) -> int:
    """Put an adapter beside every linear map of the decoder layers; return how many.

    Embeddings, norms and output layer get none, as in LLaVA. `B` starts at zero: the model's outputs do not change.
    """
    from peft import LoraConfig, inject_adapter_in_model

    decoder: Any = model.model.language_model
    names = [name for name, module in decoder.named_modules() if isinstance(module, nn.Linear)]
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=names, bias="none"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, decoder)
    return len(names)


def merge_lora(model: LlavaWithCompressor) -> None:
    """Add the adapters to the weights they stand beside and remove them: a stock checkpoint again."""
    if not any(MARK in name for name, _ in model.named_parameters()):
        return
    from peft.tuners.lora import LoraLayer

    decoder: Any = model.model.language_model
    for name, module in list(decoder.named_modules()):
        if isinstance(module, LoraLayer):
            layer: Any = module
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(decoder.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(decoder, "peft_config"):
        del decoder.peft_config

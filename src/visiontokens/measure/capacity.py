"""What one GPU has to hold in training: weights, gradients, optimizer states and activations, from the real modules.

Counted for DeepSpeed's bf16 mode: 2 bytes a weight, 2 a gradient, 12 a trained weight in the optimizer (float32 copy
and Adam's two moments). ZeRO 1 shards the states, 2 the gradients too, 3 the weights too. Activations are what autograd
saves, read off a decoder layer that runs on the meta device with an attention that saves what flash attention does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from visiontokens.measure.memory import parameter_count
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.models.loss import CHUNK
from visiontokens.train.stages import StageName, freeze_for

TrainStage = StageName
HALF, STATES = 2, 12
BUCKET = 5e8 * HALF
"""DeepSpeed's all-gather bucket (`allgather_bucket_size` in config/deepspeed/zero2.json)."""
LOGIT_BYTES = 2 + 4 + 4
"""Bytes per logit while a chunk's loss is computed: bf16, its float32 copy, that one's gradient."""
_META = "visiontokens_meta"


@dataclass(frozen=True)
class Capacity:
    """Bytes on one GPU."""

    weights: float
    gradients: float
    states: float
    buffers: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of them."""
        return sum(vars(self).values())


def capacity(
    model: LlavaWithCompressor,
    stage: StageName,
    *,
    gpus: int,
    zero: int,
    micro_batch: int,
    text_tokens: int,
    checkpointing: bool = True,
) -> Capacity:
    """Return the memory plan of one GPU.

    Args:
        model: on the meta device (`measure.geometry.meta_model`).
        stage: `align` or `tune`: what trains.
        gpus: processes that share the shards.
        zero: ZeRO stage, 0 (nothing sharded) to 3.
        micro_batch: samples per GPU and forward, one image each.
        text_tokens: tokens around the image, labelled or not.
        checkpointing: gradient checkpointing of the decoder layers.

    Raises:
        ValueError: a ZeRO stage or number of GPUs that does not exist.
    """
    if zero not in range(4) or gpus < 1 or micro_batch < 1:
        raise ValueError(f"zero, gpus, micro_batch: found {zero}, {gpus}, {micro_batch}, expected 0..3, >= 1, >= 1")
    freeze_for(model, stage)
    everything = parameter_count(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    share = [gpus if zero >= level else 1 for level in (3, 2, 1)]
    layer = parameter_count(model.model.language_model.layers[0])
    buffers = {3: 2 * layer * HALF, 0: 0.0}.get(zero, BUCKET)  # ZeRO-3 holds the running and the next layer whole
    rows = min(micro_batch * text_tokens, CHUNK // model.lm_head.out_features)
    return Capacity(
        weights=everything * HALF / share[0],
        gradients=trained * HALF / share[1],
        states=trained * STATES / share[2],
        buffers=float(buffers),
        activations=activations(model, micro_batch, text_tokens, checkpointing=checkpointing),
        logits=float(rows * model.lm_head.out_features * LOGIT_BYTES),
    )


def activations(model: LlavaWithCompressor, samples: int, text_tokens: int, *, checkpointing: bool) -> float:
    """Return the bytes that autograd keeps from the forward of `samples` samples until the backward, in bf16.

    With checkpointing: every layer's input, and everything inside the largest layer, which is computed again.
    """
    geometry = model.geometry
    counts = model.compressor.tokens_per_layer(geometry.n_vision, geometry.llm_layers)
    sizes = [samples * (round(count) + text_tokens) for count in counts]
    inside = {size: layer_bytes(model.model.language_model.layers[0], size) for size in set(sizes)}
    if checkpointing:
        decoder = sum(size * geometry.llm_width * HALF for size in sizes) + max(inside.values())
    else:
        decoder = sum(inside[size] for size in sizes)
    return float(decoder + connector_bytes(model, samples))


def layer_bytes(layer: nn.Module, tokens: int) -> int:
    """Return what a decoder layer on the meta device saves for its backward, in bf16, for `tokens` tokens in a row."""
    owner: Any = layer
    config = owner.self_attn.config
    before, width = config._attn_implementation, config.hidden_size
    hidden = torch.empty(1, tokens, width, dtype=torch.bfloat16, device="meta", requires_grad=True)
    angles = torch.empty(1, tokens, width // config.num_attention_heads, dtype=torch.bfloat16, device="meta")
    config._attn_implementation = _META
    try:
        owner.to(torch.bfloat16)
        return saved_bytes(
            lambda: layer(hidden, position_embeddings=(angles, angles)), ignore=[*layer.parameters(), angles]
        )
    finally:
        config._attn_implementation = before


def connector_bytes(model: LlavaWithCompressor, samples: int) -> int:
    """Return what projector and compressor save for their backward, in bf16, for `samples` images."""
    shapes = model.compressor.state_shapes(samples)
    levels = {n: torch.empty(shape, dtype=torch.bfloat16, device="meta") for n, shape in shapes.items()}
    parts: list[nn.Module] = [model.compressor, model.model.multi_modal_projector]
    for part in parts:
        part.to(torch.bfloat16)
    return saved_bytes(
        lambda: model.encode_images(vision_levels=levels), ignore=[p for part in parts for p in part.parameters()]
    )


def saved_bytes(step: Callable[[], object], ignore: list[Any]) -> int:
    """Return the bytes of all tensors that `step` saves for its backward; what shares storage counts once."""
    known = {tensor.untyped_storage()._cdata for tensor in ignore}
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        """Count a tensor that the backward pass needs, once per storage."""
        key = tensor.untyped_storage()._cdata
        if key not in known:
            saved[key] = tensor  # kept, so that no later tensor gets the same address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


class _FlashShapes(torch.autograd.Function):
    """Has the inputs, outputs and saved tensors of flash attention, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return an output of attention's shape, and keep what its kernel keeps."""
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:3], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Return gradients of the inputs' shapes."""
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _meta_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    applied: Any = _FlashShapes.apply
    return applied(query, key, value).transpose(1, 2), None


AttentionInterface.register(_META, _meta_attention)

"""How fast training runs: tokens per second, and the share of the device's peak that model FLOPs reach (MFU)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.models.load import Load

DATASHEET = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12,
    "RTX 6000 Ada": 364e12, "RTX A6000": 155e12, "RTX 4090": 165e12, "A40": 150e12, "L4": 121e12, "V100": 125e12,
}  # fmt: skip
"""Peak FLOP/s of GPUs in 16-bit, dense, from their data sheets; the first name that occurs in the device's counts."""


@dataclass(frozen=True)
class Peak:
    """FLOP/s that a device can reach at best, and where the number is from."""

    flops: float
    source: str


def peak_flops(device: torch.device, dtype: torch.dtype) -> Peak:
    """Return the device's peak: its data sheet's, or the best of a few large matrix products where there is none."""
    if device.type == "cuda" and dtype != torch.float32:
        name = torch.cuda.get_device_name(device)
        for part, flops in DATASHEET.items():
            if part in name:
                return Peak(flops, f"data sheet of {part}, 16-bit, dense")
    return Peak(_measured(device, dtype), f"measured, {str(dtype).removeprefix('torch.')} matrix product")


def _measured(device: torch.device, dtype: torch.dtype, size: int = 1024, runs: int = 4) -> float:
    side = size if device.type == "cpu" else 8 * size
    a = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def step_flops(model: LlavaWithCompressor, load: Load) -> float:
    """Return the model FLOPs of training on `load`: matrix products, two FLOPs a multiply-add.

    Per pass: the decoder's linear maps on the tokens of each layer, the output layer on labelled rows, projector and
    compressor on every image. A forward is one pass, a backward one for the inputs and one more for the weights of
    what trains. Attention products, the vision tower, recomputation and the questions that a method reads by themselves
    are left out (LLaVolta's count leaves out attention too), so the MFU errs on the low side.
    """
    text: Any = model.config.text_config
    first: Any = model.model.language_model.layers[0]
    width, kv = text.hidden_size, text.hidden_size // text.num_attention_heads * text.num_key_value_heads
    layer = 2 * (2 * width * width + 2 * width * kv + 3 * width * text.intermediate_size)
    decoder = load.layer_tokens * layer + load.rows * 2 * width * text.vocab_size
    frozen = not any(p.requires_grad for p in first.mlp.parameters())
    connector = load.images * model.compressor.extra_flops(model.geometry.n_vision)
    return (2 if frozen else 3) * decoder + 3 * connector

"""The one switch between attention kernels: flash attention where it is importable and right, else SDPA."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch

from visiontokens.compress.base import Compressor
from visiontokens.models.attention import flash_functions
from visiontokens.models.masks import FLASH_2, FLASH_3, SDPA

log = logging.getLogger(__name__)

IMPLEMENTATIONS = {"flash_attention_3": FLASH_3, "flash_attention_2": FLASH_2, "sdpa": SDPA}
"""Kernels by the names of the setting, best first; values as in `config._attn_implementation`."""
CAPABILITY = {FLASH_2: ((8, 0), (99, 0)), FLASH_3: ((9, 0), (9, 9))}
"""Compute capabilities (from, to) that a flash kernel is built for: Ampere and later; Hopper."""
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Kernel:
    """The attention kernel of a run, and why it is this one."""

    name: str
    reason: str

    @property
    def implementation(self) -> str:
        """What `config._attn_implementation` says."""
        return IMPLEMENTATIONS[self.name]


def choose_kernel(
    wanted: str, device: torch.device, dtype: torch.dtype, compressor: type[Compressor[Any]] = Compressor
) -> Kernel:
    """Decide once for a run.

    Args:
        wanted: `auto` or a key of `IMPLEMENTATIONS`.
        device: that the model runs on.
        dtype: that attention runs in (autocast included).
        compressor: method of the run.

    Raises:
        ValueError: an unknown name, or a named kernel that cannot run here; the message says why.
    """
    if wanted != "auto" and wanted not in IMPLEMENTATIONS:
        raise ValueError(f"attention: found {wanted!r}, expected auto, {', '.join(IMPLEMENTATIONS)}")
    if wanted == "sdpa":
        return Kernel("sdpa", "asked for")
    obstacles = {}
    for name, implementation in IMPLEMENTATIONS.items():
        if name == "sdpa" or wanted not in {"auto", name}:
            continue
        obstacle = _obstacle(implementation, device, dtype, compressor)
        if obstacle is None:
            return Kernel(name, f"importable, and right for {device.type} and {str(dtype).removeprefix('torch.')}")
        obstacles[name] = obstacle
    if wanted != "auto":
        raise ValueError(f"attention: {wanted} asked for, but {obstacles[wanted]}; use auto or sdpa")
    reasons = dict.fromkeys(obstacles.values())
    return Kernel("sdpa", "; ".join(reasons))


def _obstacle(
    implementation: str, device: torch.device, dtype: torch.dtype, compressor: type[Compressor[Any]]
) -> str | None:
    """Return why a flash kernel cannot run, `None` if it can."""
    if compressor.dense_mask:
        return f"method {compressor.name!r} sets masks of four dimensions"
    if device.type != "cuda":
        return f"flash attention needs a GPU, the device is {device.type}"
    if dtype not in HALF:
        return f"flash attention needs bfloat16 or float16, the dtype is {str(dtype).removeprefix('torch.')}"
    low, high = CAPABILITY[implementation]
    capability = torch.cuda.get_device_capability(device)
    if not low <= capability <= high:
        return f"{implementation.removeprefix('visiontokens_')} is not built for compute capability {capability}"
    try:
        flash_functions(implementation)
    except (ImportError, AttributeError, OSError) as err:
        return f"{implementation.removeprefix('visiontokens_')} cannot be imported ({err})"
    return None


def use_kernel(model: Any, kernel: Kernel) -> Kernel:
    """Set the language model's kernel, log it, and return it; the vision tower keeps its own."""
    model.model.language_model.config._attn_implementation = kernel.implementation
    log.info("attention: %s (%s)", kernel.name, kernel.reason)
    return kernel

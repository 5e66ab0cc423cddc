"""Which number format a device computes in natively."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def use_bf16(precision: str, device: str = "cpu") -> bool:
    """Tell whether to autocast to bfloat16: always for `bf16`, where it is native for `auto`, never for `fp32`.

    Raises:
        ValueError: another name, or bf16 asked for on a GPU without it.
    """
    import torch

    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision: expected auto, fp32 or bf16, found {precision!r}")
    if precision == "fp32":
        return False
    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported()
        if precision == "bf16" and not native:
            raise ValueError("precision: bf16 asked for, but this GPU has none")
        return native
    return precision == "bf16" or bool(torch.cpu._is_avx512_bf16_supported())


def autocast(precision: str, device: str = "cpu") -> AbstractContextManager[object]:
    """Return the context in which a model runs with this precision on this device."""
    import torch

    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16) if use_bf16(precision, device) else nullcontext()

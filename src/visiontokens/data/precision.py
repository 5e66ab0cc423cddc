"""Which number format a run computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext


def native_bf16(device: str = "cpu") -> bool:
    """Tell whether a device has instructions for bfloat16."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported())


def use_bf16(precision: str, device: str = "cpu") -> bool:
    """Tell whether to autocast to bfloat16: always for `bf16`, on a GPU that has it for `auto`, never for `fp32`.

    On CPUs `auto` is float32 whatever they have: some compute in bfloat16 faster and some slower, and this way the
    numbers of two machines differ by rounding only.

    Raises:
        ValueError: another name, or bf16 asked for on a GPU without it.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision: expected auto, fp32 or bf16, found {precision!r}")
    if precision == "fp32" or not device.startswith("cuda"):
        return precision == "bf16"
    native = native_bf16(device)
    if precision == "bf16" and not native:
        raise ValueError("precision: bf16 asked for, but this GPU has none")
    return native


def autocast(precision: str, device: str = "cpu") -> AbstractContextManager[object]:
    """Return the context in which a model runs with this precision on this device."""
    import torch

    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16) if use_bf16(precision, device) else nullcontext()

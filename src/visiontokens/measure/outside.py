"""What a prefill does before its first decoder layer, and what a method adds to the tower in front of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from visiontokens.compress.base import Compressor, MethodSpec
from visiontokens.models.llava import LlavaWithCompressor


class _Reached(Exception):
    """The image has reached the decoder."""


def _stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Stop the prefill where the sequence with the image enters the decoder; text alone passes (QueCC reads it so)."""
    work = kwargs.get("work")
    if work is not None and bool(work.seq.vis.any()):
        raise _Reached


Step = Callable[[], object]


def before_decoder(model: LlavaWithCompressor, inputs: dict[str, Any]) -> Step:
    """Return a call that runs a prefill of these inputs as far as the decoder's first layer."""
    decoder = model.model.language_model

    def step() -> object:
        """Run a prefill up to the decoder."""
        handle = decoder.register_forward_pre_hook(_stop, with_kwargs=True)
        try:
            model.prefill(**inputs)
        except _Reached:
            return None
        finally:
            handle.remove()
        raise ValueError("the prompt holds no image: nothing of it stops before the decoder")

    return step


def tower_steps(model: LlavaWithCompressor, pixels: Tensor) -> tuple[Step, Step] | None:
    """Return calls that run images through the tower with the method and without, or `None` if it does nothing there.

    Args:
        model: its method may have a `run_tower` of its own.
        pixels: `[F, 3, H, W]`.
    """
    own, plain = model.compressor, MethodSpec().build(model.geometry)
    if type(own).run_tower is Compressor.run_tower:
        return None
    return _through(own, model, pixels), _through(plain, model, pixels)


def _through(method: Compressor, model: LlavaWithCompressor, pixels: Tensor) -> Step:
    tower = model.model.vision_tower

    def step() -> object:
        """Run the tower on the pixels."""
        with torch.inference_mode():
            return method.run_tower(tower, pixels)

    return step

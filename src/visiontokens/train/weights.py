"""The weights that train: which they are, what learns at which rate, to files and back, and together again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

Weights = dict[str, Tensor]


def trained_weights(model: nn.Module, state: Weights | None = None) -> Weights:
    """Return the parameters that train, by name (tied ones once), detached and contiguous."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {name: (state[name] if state else p).detach().contiguous() for name, p in named.items()}


def load_trained_weights(model: nn.Module, path: Path) -> None:
    """Copy saved weights into the model.

    Raises:
        ValueError: names or shapes differ from what the model trains.
    """
    put_trained_weights(model, load_file(path), str(path))


def put_trained_weights(model: nn.Module, saved: Weights, where: str) -> None:
    """Copy weights into the parameters that train; an error begins with `where`.

    Raises:
        ValueError: names or shapes differ from what the model trains.
    """
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    wrong = sorted(saved.keys() ^ own.keys()) or [n for n in own if own[n].shape != saved[n].shape]
    if wrong:
        raise ValueError(
            f"{where}: expected the {len(own)} weights that train, found {len(saved)}; differing: {wrong[:3]}"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])


def gather_trained_weights(model: nn.Module, *, keep: bool) -> Weights:
    """Put the weights together that DeepSpeed keeps in shares (ZeRO-2 the fp32 originals, ZeRO-3 everything).

    One tensor at a time, so that a device never holds more than its share and one tensor. Every process must call it;
    afterwards transformers loads models in the ordinary way again.

    Args:
        model: below a DeepSpeed engine.
        keep: return them (on the CPU, fp32); the other processes only take part.
    """
    from deepspeed.utils import safe_get_full_fp32_param
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    whole: Weights = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            value = safe_get_full_fp32_param(parameter)
            if keep:
                whole[name] = value.detach().float().cpu().clone()
    unset_hf_deepspeed_config()
    return whole


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, connector_lr: float | None = None
) -> list[dict[str, Any]]:
    """Return optimizer groups: matrices with weight decay, vectors without, and the compressor's own.

    Projector and compressor learn at `connector_lr`, if given.
    """
    connector_lr = lr if connector_lr is None else connector_lr
    compressor = getattr(model, "compressor", None)
    own = compressor.parameter_groups(connector_lr) if compressor is not None else []
    taken = {id(p) for group in own for p in group["params"]}
    rest = [(n, p) for n, p in model.named_parameters() if p.requires_grad and id(p) not in taken]
    groups = []
    for connects, rate in ((False, lr), (True, connector_lr)):
        params = [p for name, p in rest if ("multi_modal_projector" in name) == connects]
        groups += [
            {"params": [p for p in params if p.ndim >= 2], "lr": rate, "weight_decay": weight_decay},
            {"params": [p for p in params if p.ndim < 2], "lr": rate, "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]] + [{"weight_decay": weight_decay, **group} for group in own]

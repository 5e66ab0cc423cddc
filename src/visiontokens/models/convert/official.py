"""Official LLaVA-style tensors (LLaVA, LLaVA-STF, LLaVolta) straight into a model in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from visiontokens.models.build import CheckpointError
from visiontokens.models.convert.names import BUFFERS, from_official
from visiontokens.models.convert.plan import Found, misfits
from visiontokens.models.llava import LlavaWithCompressor


def read_official(paths: Iterable[str | Path]) -> dict[str, Tensor]:
    """Read the tensors of several `.safetensors` or `.bin` files.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: two files hold the same tensor.
    """
    tensors: dict[str, Tensor] = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such checkpoint file")
        part = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        twice = sorted(tensors.keys() & part.keys())
        if twice:
            raise CheckpointError(f"{path}: tensors already read from another file: {', '.join(twice)}")
        tensors.update(part)
    return tensors


def load_official(model: LlavaWithCompressor, tensors: Mapping[str, Tensor], only: str = "") -> None:
    """Copy official tensors into `model`; every tensor must be used and every weight of the model set.

    Args:
        model: built for the method the checkpoint was trained with.
        tensors: by official name.
        only: regular expression; set just the weights of the model that match it (a stage-1 adapter file).

    Raises:
        CheckpointError: unknown, unexpected, missing or misshaped tensors; the message names them.
    """
    target = model.state_dict()
    named = {name: from_official(name) for name in tensors if not BUFFERS.search(name)}
    given = {new: tensors[old] for old, new in named.items() if new is not None}
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    wanted = {name for name in target if re.search(only, name) or name in given} - (tied - given.keys())
    faults = misfits(
        {new: Found(old, tuple(tensors[old].shape)) for old, new in named.items() if new is not None},
        {name: tuple(target[name].shape) for name in wanted},
        stray=[Found(old, tuple(tensors[old].shape)) for old, new in named.items() if new is None],
    )
    if faults:
        raise CheckpointError(f"official checkpoint does not fit method {model.method.name!r}; {faults}")
    with torch.no_grad():
        for name, value in given.items():
            target[name].copy_(value)

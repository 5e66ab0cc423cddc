"""`visiontokens.load`: a LLaVA checkpoint with any method, for the stock processor and `generate`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaConfig

from visiontokens.compress.base import MethodError, MethodSpec, lookup
from visiontokens.compress.budget import fit_budget
from visiontokens.models.build import load_model
from visiontokens.models.hooked import geometry_of
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.models.processors import load_processor

WANTED = ["*.json", "*.safetensors", "tokenizer.model", "*.jinja"]
"""Files that are fetched from the hub: no code, no pickles."""
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def load(
    name: str | Path,
    method: str | Path | MethodSpec | None = None,
    budget: float | None = None,
    *,
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    **params: Any,
) -> LlavaWithCompressor:
    """Return a LLaVA-1.5 model with a compressor; its stock processor is `model.processor`.

    Args:
        name: folder of a checkpoint in the hub's layout (`visiontokens convert` makes one of others), or its id on
            the hub, which is then downloaded to the usual cache.
        method: a method's name (`avgpool`, `vcc`, ...), its description, or a YAML file with one; by default the one
            that the checkpoint was saved with.
        budget: mean vision tokens over all decoder layers; translated to the method's own parameters.
        dtype: of the weights; `auto` is that of the checkpoint.
        revision: on the hub.
        **params: parameters of the method, e.g. `stride=4`; with a budget these stay and the others are chosen.

    Raises:
        FileNotFoundError: no such folder, or it is not whole.
        MethodError: unknown method or parameter, or the budget cannot be met; the message says which can.
        CheckpointError: the weights do not fit the method (trained methods need their own checkpoint).
    """
    folder = resolve(name, revision)
    config = LlavaConfig.from_pretrained(folder)
    spec = choose_method(config, method, budget, params)
    model = load_model(folder, spec, dtype)
    model.processor = load_processor(folder, config)
    return model


def choose_method(
    config: LlavaConfig, method: str | Path | MethodSpec | None, budget: float | None, params: dict[str, Any]
) -> MethodSpec:
    """Return the method with parameters that meet the budget in a model of these settings (see `load`).

    Raises:
        MethodError: see `load`.
    """
    stored = MethodSpec.from_config(getattr(config, "compressor", None))
    if method is None:
        spec = stored
    elif isinstance(method, MethodSpec):
        spec = method
    elif str(method).endswith((".yaml", ".yml")):
        spec = MethodSpec.from_yaml(method)
    else:
        lookup(str(method))
        spec = stored if method == stored.name and not params else MethodSpec(name=str(method))
    spec = MethodSpec(name=spec.name, params={**spec.params, **params})
    if budget is None:
        return spec
    geometry = geometry_of(config)
    if spec.name == "none" and budget < geometry.n_vision:
        raise MethodError(f"budget {budget:g}: method 'none' keeps all {geometry.n_vision} tokens; name a method")
    return fit_budget(spec.name, geometry, budget, spec.params)


def resolve(name: str | Path, revision: str | None = None) -> Path:
    """Return the folder of a model: `name` itself, or where its files from the hub are.

    Raises:
        FileNotFoundError: neither a folder nor of the form `owner/name`, or it could not be fetched.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not _REPO.fullmatch(str(name)):
        raise FileNotFoundError(f"{name}: no such folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=WANTED))
    except (OSError, ValueError) as err:
        reason = str(err).strip().splitlines()[0]
        raise FileNotFoundError(f"{name}: no such folder, and not fetched from the hub: {reason}") from err

"""Which stored tensor becomes which weight, and what is said when they do not fit: file, key, found, expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import LlavaConfig
from transformers.initialization import no_init_weights

from visiontokens.models.build import CheckpointError
from visiontokens.models.convert.files import Checkpoint, Stored
from visiontokens.models.convert.names import BUFFERS, from_model, to_model
from visiontokens.models.llava import LlavaWithCompressor

NAMED = 8
"""An error names so many tensors of a kind and counts the others."""
HEAD, EMBED = "lm_head.weight", "model.language_model.embed_tokens.weight"


def expected_shapes(config: LlavaConfig) -> dict[str, tuple[int, ...]]:
    """Return the weights of the model that `config` describes and their shapes; nothing is allocated."""
    with torch.device("meta"), no_init_weights():
        model = LlavaWithCompressor(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop(HEAD, None)
    return shapes


def by_weight(checkpoint: Checkpoint, rename: Callable[[str], str | None]) -> dict[str, Stored]:
    """Return a checkpoint's tensors by this package's names, without buffers and names that mean nothing here."""
    found = {}
    for name, stored in checkpoint.tensors.items():
        if not BUFFERS.search(name) and (new := rename(name)) is not None:
            found[new] = stored
    return found


def check_complete(
    source: Path, layout: str, given: Mapping[str, Stored], stray: list[Stored], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise `CheckpointError` unless `given` is exactly what the model needs.

    Args:
        source: for the message.
        layout: names missing tensors as the source would.
        given: stored tensors by this package's names.
        stray: stored tensors without a meaning in this layout.
        shapes: the model's weights.
    """
    faults = misfits(
        {name: _found(stored) for name, stored in given.items()},
        shapes,
        stray=map(_found, stray),
        spell=lambda name: from_model(name, layout) or name,
    )
    if faults:
        raise CheckpointError(f"{source}: not a whole checkpoint of layout {layout!r}; {faults}")


class Found(NamedTuple):
    """A tensor as messages speak of it: its name in the checkpoint, its shape, and where it lies if that says more."""

    name: str
    shape: tuple[int, ...]
    place: str = ""


def _found(stored: Stored) -> Found:
    return Found(stored.name, stored.shape, f" in {stored.path.name}")


def misfits(
    given: Mapping[str, Found],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    stray: Iterable[Found] = (),
    spell: Callable[[str], str] = str,
) -> str:
    """Return in words what keeps tensors from being exactly the weights of a model; empty where nothing does.

    Args:
        given: tensors by this package's names.
        shapes: the weights that are wanted.
        stray: tensors that have no name here.
        spell: from a weight's name here to the one by which a missing tensor is called.
    """
    extra = [*stray, *(found for name, found in given.items() if name not in shapes)]
    faults = {
        "missing": [f"{spell(name)} (expected {shapes[name]})" for name in sorted(shapes.keys() - given.keys())],
        "unexpected": [f"{found.name} (found {found.shape}{found.place})" for found in extra],
        "misshaped": [
            f"{found.name} (found {found.shape}{found.place}, expected {shapes[name]})"
            for name, found in given.items()
            if name in shapes and found.shape != shapes[name]
        ],
    }
    return "; ".join(f"{kind}: {_few(names)}" for kind, names in faults.items() if names)


def _few(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def strays(checkpoint: Checkpoint, layout: str) -> list[Stored]:
    """Return the stored tensors that no rule of the layout knows."""
    return [
        stored
        for name, stored in checkpoint.tensors.items()
        if not BUFFERS.search(name) and to_model(name, layout) is None
    ]


def drop_tied_head(source: Path, given: dict[str, Stored]) -> None:
    """Leave out an output layer that is the embedding again (older tied checkpoints store both).

    Raises:
        CheckpointError: the two differ, though the settings say that they are one.
    """
    head = given.pop(HEAD, None)
    if head is None or EMBED not in given:
        return
    pairs = zip(head.pieces(), given[EMBED].pieces(), strict=False)
    if head.size != given[EMBED].size or any(a != b for a, b in pairs):
        raise CheckpointError(
            f"{source}: {head.name} and {given[EMBED].name} differ, expected the same (tie_word_embeddings)"
        )

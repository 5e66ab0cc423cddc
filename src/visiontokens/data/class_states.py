"""What some methods read of the frozen tower besides the patches that `data.features` keeps.

One folder beside an image set's features, `<set>.class`: `class.npy`, fp16 `[n_images, L, C]`, the class token (CLS) of
hidden states 0 to L - 1 of a tower with L blocks; `level<k>.npy` as in `data.features` for those of these levels that
are not kept there; and `index.json`, written last. It is made for the rows that need it only, and by code of its own:
an edit of `data.features` would have every row's features computed again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from visiontokens.config import Config
from visiontokens.data.features import (
    FeatureError,
    FeatureStore,
    FeatureUnion,
    image_paths,
    load_array,
    read_index,
    tower_levels,
)
from visiontokens.data.featurize import configured_tower
from visiontokens.data.images import Preprocessor
from visiontokens.data.precision import autocast
from visiontokens.data.progress import Progress
from visiontokens.provenance import read_json, reserve, sha256_json, write_json
from visiontokens.seals import check

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

MARK = ".rows.json"
"""How far a run has got."""


def class_folder(features: Path) -> Path:
    """Return the folder of class tokens that belongs to a feature folder."""
    return features.with_name(f"{features.name}.class")


class ClassStateStore(FeatureStore):
    """Read access to one image set's features, with the class token in front where it is asked for."""

    def __init__(
        self, kept: FeatureStore, extra: FeatureStore, tokens: np.ndarray, class_levels: Sequence[int]
    ) -> None:
        self.folder, self.tower = kept.folder, kept.tower
        self._kept, self._extra, self._tokens, self._class_levels = kept, extra, tokens, tuple(class_levels)
        self._rows, self._arrays = kept._rows, kept._arrays

    def get(self, paths: Sequence[str]) -> dict[int, torch.Tensor]:
        """Return the states of F images by level: fp16 `[F, N, C]`, with CLS `[F, 1 + N, C]`.

        Raises:
            FeatureError: an image is not in the store.
        """
        import torch

        found = self._kept.get(paths) | self._extra.get(paths)
        tokens = torch.from_numpy(self._tokens[[self._extra._rows[path] for path in paths]])
        for level in self._class_levels:
            found[level] = torch.cat([tokens[:, level, None], found[level]], 1)
        return dict(sorted(found.items()))


def open_states(
    folder: str | Path, levels: Sequence[int], class_levels: Sequence[int] = (), *, tower: str | None = None
) -> FeatureStore:
    """Open what a method reads of one image set.

    Args:
        folder: of the features (`FeatureStore.open`).
        levels: hidden-state indices wanted.
        class_levels: those of them that are wanted with the class token in front.
        tower: SHA-256 of the tower they must come from; None = any, but one.

    Raises:
        FileNotFoundError: no features or class tokens there.
        FeatureError: a level is missing, a file's shape does not fit its index, or another tower made them.
    """
    if not class_levels:
        return FeatureStore.open(folder, levels, tower=tower)
    folder = Path(folder)
    beside = class_folder(folder)
    if not (beside / "index.json").is_file():
        raise FileNotFoundError(
            f"{beside}/index.json: no class tokens there; compute them with `visiontokens class-states`"
        )
    check(beside, only=["index.json", "class.npy"])
    index = read_index(beside, ("paths", "levels", "class_levels", "tower", "shape"))
    kept = FeatureStore.open(folder, [k for k in levels if k not in index["levels"]], tower=tower)
    extra = FeatureStore.open(beside, [k for k in levels if k in index["levels"]], tower=kept.tower)
    tokens = load_array(beside / "class.npy")
    expected = (len(index["paths"]), index["class_levels"], index["shape"][1])
    if tokens.shape != expected:
        raise FeatureError(f"{beside / 'class.npy'}: expected shape {expected}, found {tokens.shape}")
    if max(class_levels) >= index["class_levels"]:
        raise FeatureError(
            f"{beside}: expected class tokens of levels {sorted(class_levels)}, found 0..{index['class_levels'] - 1}"
        )
    return ClassStateStore(kept, extra, tokens, class_levels)


def open_sets(
    folders: Sequence[Path], levels: Sequence[int], class_levels: Sequence[int] = (), *, tower: str | None = None
) -> FeatureStore | FeatureUnion:
    """Open what a method reads of several sets of pictures as one; arguments and errors as `open_states`."""
    stores = [open_states(folder, levels, class_levels, tower=tower) for folder in folders]
    return stores[0] if len(stores) == 1 else FeatureUnion(stores)


def class_states(config: Config, image_set: str) -> Path:
    """Fill the folder of one image set from the configured tower and return its index file.

    Raises:
        FileNotFoundError: tower, image table or an image is missing.
        ValueError: an image cannot be read, or a level does not exist.
    """
    import torch

    tower, processor, made_by = configured_tower(config)
    blocks = int(tower.config.num_hidden_layers)
    return compute_class_states(
        tower,
        processor,
        config.data_dir,
        image_set,
        sorted(set(range(blocks)) - set(tower_levels(config.features.levels, blocks))),
        out=class_folder(config.data_dir / "features" / image_set),
        tower_sha=made_by,
        batch=config.features.batch_size,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def compute_class_states(
    tower: Any,
    processor: Preprocessor,
    root: Path,
    image_set: str,
    levels: Sequence[int],
    *,
    out: Path,
    tower_sha: str,
    batch: int = 64,
    precision: str = "auto",
    device: str = "cpu",
) -> Path:
    """Fill a folder of class tokens and return its `index.json`; a killed run continues where it was.

    Arguments and errors are those of `data.features.compute_features`; `levels` may be empty.
    """
    paths = image_paths(root, image_set)
    blocks, width = int(tower.config.num_hidden_layers), int(tower.config.hidden_size)
    shape = [int(tower.config.image_size // tower.config.patch_size) ** 2, width]
    index = {"paths": paths, "levels": list(levels), "class_levels": blocks, "tower": tower_sha, "shape": shape}
    if (out / "index.json").is_file() and read_json(out / "index.json") == index:
        log.info("class tokens of %s: complete, nothing to do", image_set)
        return out / "index.json"
    stats = [(path, (root / path).stat().st_size, (root / path).stat().st_mtime_ns) for path in paths]
    files = {"class": (len(paths), blocks, width)} | {f"level{k}": (len(paths), *shape) for k in levels}
    done = _prepare(out, sha256_json([index, stats, batch, precision])[:16], files)
    _fill(tower.to(device), processor, [root / path for path in paths], levels, out, done, batch, precision)
    for name in files:
        _part(out, name).replace(out / f"{name}.npy")
    write_json(out / "index.json", index)
    (out / MARK).unlink()
    return out / "index.json"


def _part(folder: Path, name: str) -> Path:
    return folder / f".{name}.npy.part"


def _prepare(folder: Path, key: str, files: dict[str, tuple[int, ...]]) -> int:
    """Make the arrays to fill and return 0, or the rows done where whole ones of the same run are there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)
    mark = folder / MARK
    if mark.is_file() and all(_part(folder, name).exists() for name in files):
        begun = read_json(mark)
        if begun["key"] == key:
            return int(begun["done"])
    for stale in folder.glob(".*.npy.part"):
        stale.unlink()
    for name, shape in files.items():
        np.lib.format.open_memmap(_part(folder, name), mode="w+", dtype=np.float16, shape=shape).flush()
        reserve(_part(folder, name), _part(folder, name).stat().st_size)
    write_json(mark, {"key": key, "done": 0})
    return 0


def _fill(  # noqa: PLR0917 - called once
    tower: Any,
    processor: Preprocessor,
    images: Sequence[Path],
    levels: Sequence[int],
    folder: Path,
    done: int,
    batch: int,
    precision: str,
) -> None:
    """Compute the rows from `done` on, batch by batch; after each, the mark says how far it got."""
    import torch

    names = ["class", *(f"level{level}" for level in levels)]
    arrays = {name: np.lib.format.open_memmap(_part(folder, name), mode="r+") for name in names}
    mark, device = read_json(folder / MARK), str(next(tower.parameters()).device)
    progress = Progress(log, f"class tokens {folder.name}", len(images), done)
    while done < len(images):
        end = min(done + batch, len(images))
        pixels = torch.from_numpy(processor(images[done:end])).to(device)
        with torch.no_grad(), autocast(precision, device):
            states = tower(pixels, output_hidden_states=True).hidden_states
        first = torch.stack([state[:, 0] for state in states[:-1]], 1)
        arrays["class"][done:end] = first.to(torch.float16).cpu().numpy()
        for level in levels:
            arrays[f"level{level}"][done:end] = states[level][:, 1:].to(torch.float16).cpu().numpy()
        for array in arrays.values():
            array.flush()
        progress.advance(end - done)
        done = end
        write_json(folder / MARK, mark | {"done": done})

"""The frozen vision tower's hidden states, computed once per image set and memory-mapped.

One folder per image set: `level<k>.npy`, fp16 `[n_images, N, C]`, for hidden state k of the tower (0 = embeddings,
L = last block; no CLS token), and `index.json` with the image paths in row order and the tower's SHA-256. The index
is written last, so a folder with an index is complete. A set of videos has a row for each frame that a model reads,
under the frame's key.
"""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

import numpy as np

from visiontokens.data.images import Preprocessor
from visiontokens.data.precision import autocast
from visiontokens.data.progress import Progress
from visiontokens.data.videos import file_of, frame_keys
from visiontokens.provenance import read_json, read_text, reserve, sha256_json, write_json
from visiontokens.seals import check

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


class FeatureError(ValueError):
    """Cached features are missing, incomplete, or not those of the images asked for."""


def tower_level(level: int, n_layers: int, of: int = 24) -> int:
    """Translate a level of a tower with `of` blocks (CLIP-L: 24) into a hidden-state index of one with `n_layers`.

    Negative levels count from the end as in LLaVA: -2 is the state before the last block, `n_layers - 1`.

    Raises:
        ValueError: the level does not exist.
    """
    if level < 0:
        index = n_layers + 1 + level
    elif level <= of:
        index = max(1, math.floor(level / of * n_layers + 0.5)) if level else 0
    else:
        index = -1
    if not 0 <= index <= n_layers:
        raise ValueError(f"level: expected {-n_layers - 1}..{of}, found {level}")
    return index


def tower_levels(levels: Iterable[int], n_layers: int) -> list[int]:
    """Translate levels (`tower_level`) and return the distinct hidden-state indices in rising order."""
    return sorted({tower_level(level, n_layers) for level in levels})


def read_index(folder: Path, keys: Sequence[str] = ("paths", "levels", "tower", "shape")) -> dict[str, Any]:
    """Read the `index.json` of a feature folder.

    Raises:
        FeatureError: a key is missing.
        ValueError: it is not JSON.
    """
    index = read_json(folder / "index.json")
    missing = [key for key in keys if not isinstance(index, dict) or key not in index]
    if missing:
        raise FeatureError(f"{folder / 'index.json'}: expected the keys {', '.join(keys)}, missing {missing[0]!r}")
    return dict(index)


def load_array(path: Path) -> np.ndarray:
    """Open an array file as read-only memory.

    Raises:
        FileNotFoundError: no such file.
        FeatureError: it is cut off or no array file.
    """
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TokenError, TypeError) as err:
        size = path.stat().st_size
        raise FeatureError(f"{path}: expected a whole array file, found {size} bytes ({err})") from err
    return array


def image_paths(root: str | Path, image_set: str) -> list[str]:
    """Return the paths of one image set, in file order, relative to `root`.

    They stand in `<root>/<image_set>.tsv` where the set has a table of its own, else in `<root>/images.tsv`.

    Raises:
        FileNotFoundError: the table is not there.
        FeatureError: no row of this set.
    """
    own = Path(root) / f"{image_set}.tsv"
    return _listed(own if own.is_file() else Path(root) / "images.tsv", image_set)


def _listed(table: Path, wanted: str) -> list[str]:
    """Return the paths of one set from a table with the columns `set` and `path`."""
    if not table.is_file():
        raise FileNotFoundError(f"{table}: no table of {table.stem}")
    rows = list(csv.DictReader(io.StringIO(read_text(table), newline=""), delimiter="\t"))
    if not all(row.get("set") and row.get("path") for row in rows):
        raise FeatureError(f"{table}: expected the columns 'set' and 'path' in every line")
    found = [row["path"] for row in rows if row["set"] == wanted]
    if not found:
        raise FeatureError(f"{table}: expected rows of set {wanted!r}, found {sorted({row['set'] for row in rows})}")
    return found


def video_frames(root: str | Path, video_set: str, frames: int) -> list[str]:
    """Return the frame keys of one video set from `<root>/videos.tsv`, `frames` for each video, in file order.

    Raises:
        FileNotFoundError: the table is not there.
        FeatureError: no row of this set.
    """
    return [key for path in _listed(Path(root) / "videos.tsv", video_set) for key in frame_keys(path, frames)]


class FeatureStore:
    """Read access to one image set's features."""

    def __init__(self, folder: Path, index: dict[str, Any], arrays: dict[int, np.ndarray]) -> None:
        self.folder = folder
        self.tower = str(index["tower"])
        self._rows = {path: row for row, path in enumerate(index["paths"])}
        self._arrays = arrays

    @classmethod
    def open(cls, folder: str | Path, levels: Sequence[int], *, tower: str | None = None) -> FeatureStore:
        """Open the features of one image set.

        Args:
            folder: holds `index.json` and the level files.
            levels: hidden-state indices wanted (`tower_levels`).
            tower: SHA-256 of the tower they must come from; None = any.

        Raises:
            FileNotFoundError: no features there.
            FeatureError: a level is missing, a file's shape does not fit the index, or another tower made them.
            SealError: a file is not as the job that made it left it.
        """
        folder = Path(folder)
        if not (folder / "index.json").is_file():
            raise FileNotFoundError(
                f"{folder}/index.json: no features there; compute them with `visiontokens features`"
            )
        check(folder, only=["index.json", *(f"level{level}.npy" for level in levels)])
        index = read_index(folder)
        if tower is not None and index["tower"] != tower:
            raise FeatureError(f"{folder}: expected features of tower {tower[:12]}, found tower {index['tower'][:12]}")
        absent = sorted(set(levels) - set(index["levels"]))
        if absent:
            raise FeatureError(f"{folder}: expected levels {sorted(levels)}, found {index['levels']}, missing {absent}")
        arrays = {}
        for level in levels:
            path = folder / f"level{level}.npy"
            arrays[level] = load_array(path)
            expected = (len(index["paths"]), *index["shape"])
            if arrays[level].shape != expected:
                raise FeatureError(f"{path}: expected shape {expected}, found {arrays[level].shape}")
        return cls(folder, index, arrays)

    def __contains__(self, path: str) -> bool:
        return path in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, paths: Sequence[str]) -> dict[int, torch.Tensor]:
        """Return the features of F images, by level: fp16 `[F, N, C]`.

        Raises:
            FeatureError: an image is not in the store.
        """
        import torch

        missing = [path for path in paths if path not in self._rows]
        if missing:
            where = self.folder / "index.json"
            raise FeatureError(f"{where}: expected features of {missing[0]!r}, found none ({len(self)} images)")
        rows = [self._rows[path] for path in paths]
        return {level: torch.from_numpy(array[rows]) for level, array in self._arrays.items()}


class FeatureUnion:
    """Several sets' features as one; a picture is in one of them.

    Args:
        stores: opened for the same levels.
    """

    def __init__(self, stores: Sequence[FeatureStore]) -> None:
        self.stores = list(stores)
        self.folder = stores[0].folder.parent

    def __contains__(self, path: str) -> bool:
        return any(path in store for store in self.stores)

    def __len__(self) -> int:
        return sum(map(len, self.stores))

    def get(self, paths: Sequence[str]) -> dict[int, torch.Tensor]:
        """Return the features of F pictures, by level: fp16 `[F, N, C]`.

        Raises:
            FeatureError: a picture is in none of the stores.
        """
        import torch

        places = [[i for i, path in enumerate(paths) if path in store] for store in self.stores]
        missing = set(range(len(paths))) - {i for place in places for i in place}
        if missing:
            raise FeatureError(f"{self.folder}: expected features of {paths[min(missing)]!r}, found none")
        used = [(store, place) for store, place in zip(self.stores, places, strict=True) if place]
        parts = [store.get([paths[i] for i in place]) for store, place in used]
        order = torch.tensor([i for _, place in used for i in place]).argsort()
        return {level: torch.cat([part[level] for part in parts])[order] for level in parts[0]}


@dataclass(frozen=True)
class _Job:
    """What a worker needs to fill its rows.

    The tower is given by class, configuration and weights: an unpickled model has lost its output recorders.
    """

    tower_class: Callable[[Any], Any]
    tower_config: Any
    tower_state: dict[str, np.ndarray]
    processor: Preprocessor
    root: Path
    paths: list[str]
    folder: Path
    levels: list[int]
    key: str
    batch: int
    precision: str
    device: str

    @property
    def label(self) -> str:
        """Begins the progress lines."""
        return f"features {self.folder.name}"


def compute_features(
    tower: Any,
    processor: Preprocessor,
    root: str | Path,
    image_set: str,
    levels: Sequence[int],
    *,
    out: str | Path,
    tower_sha: str,
    batch: int = 64,
    workers: int = 1,
    precision: str = "auto",
    device: str = "cpu",
    frames: int = 0,
) -> Path:
    """Fill a feature folder and return its `index.json`. A killed run continues where it was.

    Args:
        tower: a `CLIPVisionModel`.
        processor: turns image files into the tower's pixels.
        root: the data folder with `images.tsv`.
        image_set: which of its sets.
        levels: hidden-state indices (`tower_levels`).
        out: the set's feature folder.
        tower_sha: SHA-256 of the tower's weights, recorded and checked on opening.
        batch: images per forward pass.
        workers: processes to share the rows (each with its own copy of the tower); 1 = this process.
        precision: auto, fp32 or bf16 (autocast).
        device: where the tower runs.
        frames: the set is one of `videos.tsv`, with so many frames of each video; 0 = a set of images.

    Raises:
        FileNotFoundError, ImageError, VideoError: an image or video is missing or unreadable.
    """
    root, out = Path(root), Path(out)
    paths = video_frames(root, image_set, frames) if frames else image_paths(root, image_set)
    shape = [_n_patches(tower.config), int(tower.config.hidden_size)]
    index = {"paths": paths, "levels": sorted(levels), "tower": tower_sha, "shape": shape}
    if (out / "index.json").is_file() and read_json(out / "index.json") == index:
        log.info("features %s: complete, nothing to do", image_set)
        return out / "index.json"
    files = [(path, root / file_of(path)) for path in paths]
    stats = [(path, file.stat().st_size, file.stat().st_mtime_ns) for path, file in files]
    key = sha256_json([index, stats, batch, precision, workers])[:16]
    _prepare(out, key, sorted(levels), (len(paths), *shape))
    state = {name: value.float().cpu().numpy() for name, value in tower.state_dict().items()}
    job = _Job(
        type(tower), tower.config, state, processor, root, paths, out, sorted(levels), key, batch, precision, device
    )
    edges = [len(paths) * i // workers for i in range(workers + 1)]
    _run(job, list(pairwise(edges)))
    for level in sorted(levels):
        _part(out, level).replace(out / f"level{level}.npy")
    write_json(out / "index.json", index)
    for mark in out.glob(".rows-*.json"):
        mark.unlink()
    return out / "index.json"


def _n_patches(config: Any) -> int:
    return int(config.image_size // config.patch_size) ** 2


def _part(folder: Path, level: int) -> Path:
    return folder / f".level{level}.npy.part"


def _prepare(folder: Path, key: str, levels: Sequence[int], shape: tuple[int, ...]) -> None:
    """Make the arrays to fill, unless whole ones begun for the same images, levels, tower and settings are there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)
    marks = list(folder.glob(".rows-*.json"))
    whole = all(_part(folder, level).exists() for level in levels)
    if marks and whole and all(read_json(mark)["key"] == key for mark in marks):
        return
    for stale in [*marks, *folder.glob(".level*.npy.part")]:
        stale.unlink()
    for level in levels:
        np.lib.format.open_memmap(_part(folder, level), mode="w+", dtype=np.float16, shape=shape).flush()
        reserve(_part(folder, level), _part(folder, level).stat().st_size)


def _run(job: _Job, ranges: Sequence[tuple[int, int]]) -> None:
    if len(ranges) == 1:
        _fill(job, ranges[0])
        return
    with ProcessPoolExecutor(len(ranges), mp_context=get_context("spawn"), initializer=_init_worker) as pool:
        list(pool.map(_fill, [job] * len(ranges), ranges))


def _init_worker() -> None:
    import torch

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)


def _fill(job: _Job, rows: tuple[int, int]) -> None:
    """Compute rows `start..stop`, batch by batch; after each, a progress file says how far it got."""
    import torch

    start, stop = rows
    mark = job.folder / f".rows-{start}-{stop}.json"
    done = int(read_json(mark)["done"]) if mark.is_file() else start
    arrays = {level: np.lib.format.open_memmap(_part(job.folder, level), mode="r+") for level in job.levels}
    tower = job.tower_class(job.tower_config)
    tower.load_state_dict({name: torch.from_numpy(value) for name, value in job.tower_state.items()})
    tower = tower.to(job.device).eval()
    progress = Progress(log, job.label, stop - start, done - start)
    while done < stop:
        end = min(done + job.batch, stop)
        pixels = torch.from_numpy(job.processor([job.root / path for path in job.paths[done:end]]))
        with torch.no_grad(), autocast(job.precision, job.device):
            states = tower(pixels.to(job.device), output_hidden_states=True).hidden_states
        for level, array in arrays.items():
            array[done:end] = states[level][:, 1:].to(torch.float16).cpu().numpy()
            array.flush()
        progress.advance(end - done)
        done = end
        write_json(mark, {"key": job.key, "done": done})

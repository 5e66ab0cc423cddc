"""Where a world is written: image files with their list, annotation files, and the seeded streams they come from."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visiontokens.data.benchmarks.base import FURTHER_SET
from visiontokens.data.miniworld.render import render
from visiontokens.data.miniworld.scenes import Scenes

IMAGE_SETS = ("pretrain", "instruct", "validation", "test")
JPEG_QUALITY = 95
_CHUNK = 256  # images rendered at a time: 7 MB of pixels


@dataclass
class WorldFiles:
    """Writes below `root` and remembers every image file as a pair (set, path relative to `root`)."""

    root: Path
    images: list[tuple[str, str]] = field(default_factory=list)

    def add_images(self, image_set: str, paths: Sequence[str], scenes: Scenes) -> None:
        """Render `scenes` into the files `paths` (relative to the root; the suffix chooses JPEG or PNG, none JPEG).

        Raises:
            ValueError: unknown image set, or not as many paths as scenes.
        """
        known = (*IMAGE_SETS, FURTHER_SET)
        if image_set not in known:
            raise ValueError(f"image set: found {image_set!r}, expected one of {', '.join(known)}")
        if len(paths) != len(scenes):
            raise ValueError(f"found {len(paths)} paths, expected one for each of {len(scenes)} scenes")
        for start in range(0, len(paths), _CHUNK):
            pixels = render(scenes.select(slice(start, start + _CHUNK)))
            for path, image in zip(paths[start : start + _CHUNK], pixels, strict=True):
                self._place(path).write_bytes(encode_image(image, PurePosixPath(path).suffix))
        self.images += [(image_set, path) for path in paths]

    def add_json(self, path: str, content: object) -> None:
        """Write `content` as compact JSON."""
        self.add_text(path, json.dumps(content, ensure_ascii=False) + "\n")

    def add_jsonl(self, path: str, records: Iterable[dict[str, Any]]) -> None:
        """Write one JSON object a line."""
        self.add_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))

    def add_text(self, path: str, content: str) -> None:
        """Write UTF-8 text with the newlines it has."""
        self._place(path).write_text(content, encoding="utf-8", newline="")

    def _place(self, path: str) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def encode_image(pixels: NDArray[np.uint8], suffix: str) -> bytes:
    """Return `[H, W, 3]` pixels as the bytes of a PNG, or of a JPEG without chroma subsampling.

    Raises:
        ValueError: `suffix` is neither .png nor .jpg, nor empty (SEED-Bench's names have none).
    """
    out = BytesIO()
    if suffix == ".png":
        Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    elif suffix in (".jpg", ""):
        Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        raise ValueError(f"image suffix: found {suffix!r}, expected '.png' or '.jpg'")
    return out.getvalue()


@dataclass
class Source:
    """The random stream of one part of the world: its scenes and its choices depend on seed and name only."""

    seed: int
    name: str
    split: str

    def __post_init__(self) -> None:
        self._key = zlib.crc32(self.name.encode())
        self.rng = np.random.default_rng([self.seed, self._key])

    def scenes(self, n: int, **options: Any) -> Scenes:
        """Draw `n` scenes of the source's split (options: see `Scenes.sample`)."""
        state = np.random.SeedSequence([self.seed, self._key]).generate_state(1)
        return Scenes.sample(n, int(state[0]), self.split, **options)

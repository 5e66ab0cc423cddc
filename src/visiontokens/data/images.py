"""Image files and frames of videos to square pixel arrays, strictly.

An unreadable image is an error, never another sample's picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from visiontokens.data.videos import load_frame


class ImageError(ValueError):
    """An image file cannot be used; the message names the file and what is wrong with it."""


def load_image(path: str | Path) -> Image.Image:
    """Read a whole image file as RGB.

    Raises:
        FileNotFoundError: no such file.
        ImageError: it is not an image, or is truncated.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as err:
        size = path.stat().st_size
        raise ImageError(f"{path}: expected a complete image file, found {size} bytes ({err})") from err


def pad_to_square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """Centre an image on a square of the processor's mean colour (LLaVA-1.5, `image_aspect_ratio=pad`)."""
    if image.width == image.height:
        return image
    side = max(image.size)
    square = Image.new("RGB", (side, side), tuple(int(channel * 255) for channel in mean))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def preprocess(
    images: Sequence[Image.Image],
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    pad: bool = True,
) -> np.ndarray:
    """Turn images into normalised pixels `[B, 3, size, size]` float32, as CLIP's processor does.

    Args:
        images: RGB images of any size.
        size: side in pixels.
        mean: per channel, of pixels in 0..1.
        std: per channel.
        pad: pad to square first (LLaVA-1.5 tuning and evaluation); otherwise the longer side is cropped.
    """
    out = np.empty((len(images), 3, size, size), dtype=np.float32)
    for row, image in enumerate(images):
        fitted = _resize_and_crop(pad_to_square(image, mean) if pad else image, size)
        pixels = np.asarray(fitted, dtype=np.float32) / 255.0
        out[row] = ((pixels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)).transpose(2, 0, 1)
    return out


def _resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Scale the shorter side to `size` (bicubic) and cut the centre square."""
    short = min(image.size)
    if image.size != (size, size):
        scaled = tuple(int(size * side / short) for side in image.size)
        image = image.resize((scaled[0], scaled[1]), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


class Preprocessor:
    """Image files to pixels, with the settings of a tower's `preprocessor_config.json`."""

    def __init__(self, size: int, mean: Sequence[float], std: Sequence[float], *, pad: bool = True) -> None:
        self.size, self.mean, self.std, self.pad = size, tuple(mean), tuple(std), pad

    @classmethod
    def from_config(cls, config: dict[str, Any], *, pad: bool = True) -> Preprocessor:
        """Read size, mean and standard deviation from a CLIP image processor's configuration.

        Raises:
            ValueError: a key is missing; the message names it.
        """
        for key in ("crop_size", "image_mean", "image_std"):
            if key not in config:
                raise ValueError(f"preprocessor_config.json: expected key {key!r}, found {sorted(config)}")
        crop = config["crop_size"]
        size = crop["height"] if isinstance(crop, dict) else crop
        return cls(int(size), config["image_mean"], config["image_std"], pad=pad)

    def __call__(self, paths: Sequence[str | Path]) -> np.ndarray:
        """Return the pixels `[B, 3, size, size]` float32 of image files or frames of videos (`videos.frame_keys`).

        Errors: see `load_image` and `videos.load_frames`.
        """
        images = [load_frame(path) or load_image(path) for path in paths]
        return preprocess(images, size=self.size, mean=self.mean, std=self.std, pad=self.pad)

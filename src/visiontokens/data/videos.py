"""Video files to frames: one loader for generated clips and official videos.

A model reads N frames of a video. They are chosen as Video-LLaVA chooses them (`processing_video.py`): evenly spaced
from the first frame to the last one, both included, places rounded down. A frame is named by a *key*, the video's path
with its number among the N (`clips/a.avi#3of8`), so that whatever handles image paths (feature cache, sources of
images) handles the frames of a video too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".gif")
"""Suffixes under which Video-LLaVA's evaluation looks for a video, in its order; at last TGIF's own."""
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
TRAIN_SET, TEST_SET = VIDEO_SETS = ("video", "videotest")
"""Sets of `videos.tsv`: videos of training records, and those of benchmarks."""
CODEC, RATE = "ffv1", 4
"""How clips are written: a lossless codec, so that decoding gives the same pixels everywhere; frames per second."""
_KEY = re.compile(r"(?P<path>.+)#(?P<number>\d+)of(?P<count>\d+)")


class VideoError(ValueError):
    """A video file cannot be used; the message names the file and what is wrong with it."""


def frame_numbers(total: int, count: int) -> list[int]:
    """Return which `count` of `total` frames a model reads; frames repeat where a video has fewer.

    Raises:
        ValueError: one of them is not positive.
    """
    if min(total, count) < 1:
        raise ValueError(f"frames: found {count} of a video with {total}, expected at least 1 of at least 1")
    return np.linspace(0, total - 1, count, dtype=int).tolist()


def frame_keys(path: str | Path, count: int) -> tuple[str, ...]:
    """Return the keys of the `count` frames that a model reads of a video, in order."""
    return tuple(f"{path}#{number}of{count}" for number in range(count))


def split_key(key: str | Path) -> tuple[str, int, int] | None:
    """Return path, number and count of a frame key; None for the path of an image."""
    match = _KEY.fullmatch(str(key))
    return None if match is None else (match["path"], int(match["number"]), int(match["count"]))


def file_of(key: str | Path) -> str:
    """Return the file that an image path or a frame key refers to."""
    parts = split_key(key)
    return str(key) if parts is None else parts[0]


def find_video(folder: Path, name: str) -> str:
    """Return the file name of the video called `name` (no suffix), as Video-LLaVA finds it; `<name>.mp4` if none is."""
    return next((f"{name}{suffix}" for suffix in SUFFIXES if (folder / f"{name}{suffix}").is_file()), f"{name}.mp4")


def load_frames(path: str | Path, count: int) -> list[Image.Image]:
    """Read `count` evenly spaced frames of a video as RGB: of a file, or of a folder of frames in the order of names.

    A file is decoded from its beginning: numbers of frames in headers and seeking are not to be trusted.

    Raises:
        FileNotFoundError: no such file or folder.
        VideoError: it is not a video, is damaged, or holds no frame.
    """
    path = Path(path)
    if path.is_dir():
        return _folder_frames(path, count)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such video")
    stat = path.stat()
    return list(_decoded(str(path), count, stat.st_size, stat.st_mtime_ns))


def _folder_frames(folder: Path, count: int) -> list[Image.Image]:
    """Return evenly spaced images of a folder (TVQA's videos come as folders of frames)."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES)
    if not files:
        raise VideoError(f"{folder}: expected frames ({', '.join(FRAME_SUFFIXES)}), found none")
    frames = []
    for number in frame_numbers(len(files), count):
        try:
            with Image.open(files[number]) as image:
                frames.append(image.convert("RGB"))
        except (OSError, ValueError) as err:
            raise VideoError(f"{files[number]}: expected an image, found something else ({err})") from err
    return frames


@lru_cache(maxsize=2)
def _decoded(path: str, count: int, size: int, changed: int) -> tuple[Image.Image, ...]:
    """Return the frames; the last videos are kept, because their frames are asked for one by one."""
    del changed  # part of the key of the cache only
    import av

    try:
        wanted = frame_numbers(_count_frames(path), count)
        found: dict[int, Image.Image] = {}
        with av.open(path) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    found[number] = frame.to_image()
        return tuple(found[number] for number in wanted)
    except (av.FFmpegError, IndexError, KeyError, ValueError, OSError) as err:
        reason = " ".join(str(err).split())
        raise VideoError(f"{path}: expected a complete video file, found {size} bytes ({reason})") from err


def _count_frames(path: str) -> int:
    """Return the frames that decode; a file that breaks off raises instead of losing its end."""
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        stated, found = stream.frames, sum(1 for _ in container.decode(stream))
    if found == 0 or found < stated:
        raise ValueError(f"{found} of {stated or 'unknown'} frames decode")
    return found


def load_frame(key: str | Path) -> Image.Image | None:
    """Return the frame that a key names; None if it is the path of an image (errors: see `load_frames`)."""
    parts = split_key(key)
    return None if parts is None else load_frames(parts[0], parts[2])[parts[1]]


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> None:
    """Write RGB frames `[T, H, W, 3]` losslessly, the same frames giving the same bytes."""
    import av

    with av.open(str(path), "w", format="avi", container_options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(CODEC, rate=RATE)
        stream.height, stream.width, _ = frames[0].shape
        stream.pix_fmt = "bgr0"
        stream.codec_context.options = {"threads": "1", "flags": "+bitexact"}
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))

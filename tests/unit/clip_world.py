"""One set of small clips beside the smoke world, built once per process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from smoke_world import smoke_world

from visiontokens.config import ClipsConfig
from visiontokens.data.miniworld.video import build_clips

CLIPS = ClipsConfig(
    seed=5, length=8, train=6, images=3, questions=6, msvd_questions=20, msvd_videos=4, activitynet_questions=31,
    activitynet_videos=4,
)  # fmt: skip
MIX = "instruct/llava_v1_5_mix_mini.json"


@cache
def clip_world() -> Path:
    """Return a folder with the clips of `CLIPS` only; it is removed when the process ends. Tests must not change it."""
    folder = Path(tempfile.mkdtemp(prefix="visiontokens-clips-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    build_clips(folder / "world", CLIPS, smoke_world() / MIX)
    return folder / "world"

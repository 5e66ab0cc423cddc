"""One small world for all tests that read one, built once per process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from visiontokens.config import WorldConfig
from visiontokens.data.miniworld.build import build_world

SMOKE = WorldConfig(
    seed=3,
    pretrain=24,
    instruct=40,
    text_only=8,
    validation_images=8,
    vqav2_questions=60,
    vqav2_images=15,
    gqa_questions=60,
    gqa_images=15,
    vizwiz_questions=40,
    scienceqa_image=24,
    scienceqa_text=40,
    textvqa_questions=24,
    pope_questions=24,
    mme_lines=4,
    mmbench_questions=30,
)


@cache
def smoke_world() -> Path:
    """Return the folder of the world `SMOKE`; it is removed when the process ends. Tests must not change it."""
    folder = Path(tempfile.mkdtemp(prefix="visiontokens-world-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    build_world(folder / "world", SMOKE)
    return folder / "world"

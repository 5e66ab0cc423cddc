"""The captioning set of the alignment stage, as records of LLaVA-Pretrain (`blip_laion_cc_sbu_558k.json`)."""

from __future__ import annotations

from typing import Any

from visiontokens.config import WorldConfig
from visiontokens.data.miniworld.families import Rng, pick
from visiontokens.data.miniworld.files import Source, WorldFiles
from visiontokens.data.miniworld.language import caption
from visiontokens.data.miniworld.phrases import CAPTION_PROMPTS
from visiontokens.data.miniworld.scenes import Scene

FOLDER = "pretrain"
ANNOTATIONS = f"{FOLDER}/blip_laion_cc_sbu_mini.json"
_PER_FOLDER = 1000


def image_name(number: int) -> str:
    """Return the path below `images/`, spread over folders as LLaVA-Pretrain does: "00001/000010023.jpg"."""
    return f"{number // _PER_FOLDER:05d}/{number:09d}.jpg"


def caption_record(number: int, scene: Scene, rng: Rng) -> dict[str, Any]:
    """Return one record; the image placeholder stands before or after the request, as in the official file."""
    prompt = pick(rng, CAPTION_PROMPTS)
    value = f"<image>\n{prompt}" if rng.random() < 0.5 else f"{prompt}\n<image>"
    return {
        "id": f"{number:09d}",
        "image": image_name(number),
        "conversations": [{"from": "human", "value": value}, {"from": "gpt", "value": caption(scene, rng)}],
    }


def write_captions(files: WorldFiles, world: WorldConfig) -> dict[str, int]:
    """Write the caption records and their images; return the counts."""
    source = Source(world.seed, "pretrain", "train")
    scenes = source.scenes(world.pretrain)
    records = [caption_record(number, scene, source.rng) for number, scene in enumerate(scenes)]
    files.add_images("pretrain", [f"{FOLDER}/images/{record['image']}" for record in records], scenes)
    files.add_json(ANNOTATIONS, records)
    return {"records": len(records), "images": len(records)}

"""A batch whose rows hold different numbers of images and words, so that their token counts differ for any method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from visiontokens.models.llava import LlavaWithCompressor

IMAGES = (1, 2, 1)
"""Images of the prompts."""
Inputs = dict[str, Any]


def mixed_prompts(model: LlavaWithCompressor, draw: Callable[[int, int], Inputs], text_tokens: int) -> list[Inputs]:
    """Return one prompt per entry of `IMAGES`, as arguments of `model.prefill`.

    Args:
        model: whose placeholder stands for an image.
        draw: from a number of prompts and of words to `input_ids` `[B, S]` of one image each and their
            `vision_levels`.
        text_tokens: words of the first prompt; every further one has three fewer.
    """
    image = int(model.config.image_token_id)
    prompts = []
    for number, images in enumerate(IMAGES):
        drawn = draw(images, max(2, text_tokens - 3 * number))
        ids = with_images(drawn["input_ids"][:1], images, image)
        prompts.append({"input_ids": ids, "vision_levels": drawn["vision_levels"]})
    return prompts


def with_images(ids: Tensor, images: int, image: int) -> Tensor:
    """Return ids `[1, S]` of one image with `images` of them, a word between any two."""
    at = int((ids[0] == image).nonzero()[0, 0]) + 1
    more = torch.stack([ids[:, :1].expand(1, images - 1), ids.new_full((1, images - 1), image)], 2).flatten(1)
    return torch.cat([ids[:, :at], more, ids[:, at:]], 1)


def together(rows: Sequence[Inputs]) -> Inputs:
    """Return prompts as one batch, padded on the left; images stay in reading order."""
    longest = max(row["input_ids"].shape[1] for row in rows)
    pads = [(longest - row["input_ids"].shape[1], 0) for row in rows]
    pairs = list(zip((row["input_ids"] for row in rows), pads, strict=True))
    return {
        "input_ids": torch.cat([functional.pad(ids, pad) for ids, pad in pairs]),
        "attention_mask": torch.cat([functional.pad(torch.ones_like(ids), pad) for ids, pad in pairs]),
        "vision_levels": {n: torch.cat([row["vision_levels"][n] for row in rows]) for n in rows[0]["vision_levels"]},
    }

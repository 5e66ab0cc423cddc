"""A model of random weights in a folder of its own, with the mini world's tokenizer and an image to look at."""

import torch
from PIL import Image
from transformers import CLIPVisionModel, LlamaForCausalLM

from visiontokens.compress.base import MethodSpec
from visiontokens.data.miniworld.tokenizer import build_tokenizer
from visiontokens.models.build import build_model, save_model, save_processors
from visiontokens.models.tiny import SMOKE_LLM, SMOKE_TOWER, image_processor, llm_config, tower_config

MEAN, STD = [0.4] * 3, [0.2] * 3


def make_home(root, methods=("none",)):
    """Write `models/<method>/seed0/tune` for each method and `image.png`; the backbones they came from are gone."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    tower, llm = root / "tower", root / "llm"
    CLIPVisionModel(tower_config(SMOKE_TOWER)).save_pretrained(tower)
    image_processor(MEAN, STD, SMOKE_TOWER).save_pretrained(tower)
    LlamaForCausalLM(llm_config(len(tokenizer), SMOKE_LLM, pad=tokenizer.pad_token_id)).save_pretrained(llm)
    tokenizer.save_pretrained(llm)
    for method in methods:
        folder = weights(root, method)
        save_model(build_model(tower, llm, MethodSpec(name=method), seed=1), folder)
        save_processors(tower, llm, folder)
    for backbone in (tower, llm):
        backbone.rename(backbone.with_suffix(".gone"))
    Image.linear_gradient("L").resize((40, 24)).convert("RGB").save(root / "image.png")
    return root


def weights(root, method="none"):
    """Return the folder of a model below a home."""
    return root / "models" / method / "seed0" / "tune"

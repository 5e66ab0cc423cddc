"""Tiny checkpoints in every layout that `convert` reads."""

import json

import torch
from safetensors.torch import load_file, save_file
from tiny_home import weights
from transformers import CLIPVisionModel

from visiontokens.models.build import TOKENIZER_FILES, load_model
from visiontokens.models.convert.names import from_model
from visiontokens.models.convert.settings import to_official_settings


def official(home, out, method="none", *, tower=True, binary=False, shards=2, dtype=torch.float16):
    """Write a model of the home as LLaVA's own code would."""
    model = load_model(weights(home, method))
    layout = "stf" if method == "stf_mbtf" else "llava"
    state = {
        from_model(name, layout): value.to(dtype).contiguous().clone() for name, value in model.state_dict().items()
    }
    state = {name: value for name, value in state.items() if tower or ".vision_tower." not in name}
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight")
    out.mkdir(parents=True)
    names = sorted(state)
    parts = [names[number::shards] for number in range(shards)]
    stem, ending = ("pytorch_model", "bin") if binary else ("model", "safetensors")
    files = [f"{stem}-{number + 1:05d}-of-{shards:05d}.{ending}" for number in range(shards)]
    for file, part in zip(files, parts, strict=True):
        tensors = {name: state[name] for name in part}
        torch.save(tensors, out / file) if binary else save_file(tensors, out / file)
    index = {"weight_map": {name: file for file, part in zip(files, parts, strict=True) for name in part}}
    (out / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    settings = to_official_settings(model.config, len(model.model.language_model.embed_tokens.weight))
    (out / "config.json").write_text(json.dumps(settings | {"torch_dtype": str(dtype).removeprefix("torch.")}))
    for name in TOKENIZER_FILES:
        if (weights(home, method) / name).is_file():
            (out / name).write_bytes((weights(home, method) / name).read_bytes())
    return out


def projector(home, out):
    """Write STF's 8-tensor adapter."""
    model = load_model(weights(home, "stf_mbtf"))
    wanted = ("compressor.", "model.multi_modal_projector.")
    tensors = {
        from_model(name, "stf"): value.to(torch.bfloat16)
        for name, value in model.state_dict().items()
        if name.startswith(wanted)
    }
    assert len(tensors) == 8
    out.mkdir(parents=True)
    torch.save(tensors, out / "mm_projector.bin")
    return out / "mm_projector.bin"


def clip(home, out):
    """Write the home's tower as OpenAI's CLIP lies on the hub: with prefix, text half and image settings."""
    tower = CLIPVisionModel.from_pretrained(home / "tower.gone")
    out.mkdir(parents=True)
    state = {f"vision_model.{name}": value.contiguous().clone() for name, value in tower.state_dict().items()}
    state |= {"text_model.final_layer_norm.weight": torch.ones(3), "logit_scale": torch.ones(())}
    state["vision_model.embeddings.position_ids"] = torch.arange(17)
    save_file(state, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": tower.config.to_dict()}))
    (out / "preprocessor_config.json").write_bytes((home / "tower.gone/preprocessor_config.json").read_bytes())
    return out


def tensors(folder):
    """Return all tensors of a folder or file by stored name."""
    if folder.is_file():
        return torch.load(folder, weights_only=True) if folder.suffix == ".bin" else load_file(folder)
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    return {name: value for file in files for name, value in tensors(file).items()}


def same(left, right):
    """Compare names, types and bytes."""
    assert left.keys() == right.keys()
    return [n for n, v in left.items() if v.dtype != right[n].dtype or not torch.equal(v, right[n])] == []

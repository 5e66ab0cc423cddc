"""A tiny LLaVA-1.5 in the layout of llava-hf/llava-1.5-7b-hf: the same files, tensor names, dtype and keys."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration

SENTENCEPIECE = Path(__file__).parents[1] / "conformance/golden/llava_base/tiny_sp.model"
SPECIAL = ("<unk>", "<s>", "</s>")
ADDED = ("<image>", "<pad>")
SHARDS = 3
VISION = {
    "hidden_size": 16, "image_size": 48, "intermediate_size": 32, "model_type": "clip_vision_model",
    "num_attention_heads": 2, "num_hidden_layers": 4, "patch_size": 2, "projection_dim": 16, "vocab_size": 32000,
}  # fmt: skip
TEXT = {
    "hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 4096, "model_type": "llama",
    "num_attention_heads": 2, "num_hidden_layers": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
}  # fmt: skip
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
OLD_NAMES = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)
"""How today's transformers calls a part, and how the hub's files do."""


def write_checkpoint(folder: Path, corpus: list[str], seed: int = 0) -> None:
    """Write a checkpoint of random weights with a tokenizer trained on `corpus`."""
    folder.mkdir(parents=True)
    image = write_tokenizer(folder, corpus)
    settings = write_settings(folder, image)
    torch.manual_seed(seed)
    config = LlavaConfig.from_dict(settings)
    model = LlavaForConditionalGeneration(config)
    state = {hub_name(name): value.half().contiguous() for name, value in model.state_dict().items()}
    write_shards(folder, state)


def hub_name(name: str) -> str:
    """Return a tensor's name in the hub's files."""
    for ours, theirs in OLD_NAMES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours).removeprefix("vision_model.")
    raise ValueError(name)


def write_shards(folder: Path, state: dict[str, Tensor]) -> None:
    """Write the tensors in three files with their index."""
    names = sorted(state)
    files = [f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors" for number in range(SHARDS)]
    for number, file in enumerate(files):
        save_file({name: state[name] for name in names[number::SHARDS]}, folder / file, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": sum(value.nbytes for value in state.values())},
        "weight_map": {name: files[number % SHARDS] for number, name in enumerate(names)},
    }
    write(folder / "model.safetensors.index.json", index)


def write_tokenizer(folder: Path, corpus: list[str]) -> int:
    """Write the four tokenizer files of a LLaMA tokenizer with two added tokens; return the id of `<image>`."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=600, special_tokens=special))
    raw = json.loads(tokenizer.to_str())
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["content"] in SPECIAL]
    tokenizer = Tokenizer.from_str(json.dumps(raw))
    first = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in ADDED])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    shutil.copy(SENTENCEPIECE, folder / "tokenizer.model")
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write(folder / "added_tokens.json", {name: first + number for number, name in enumerate(ADDED)})
    write(folder / "special_tokens_map.json", names)
    extra = {"add_bos_token": True, "add_eos_token": False, "legacy": False, "padding_side": "left"}
    classes = {"processor_class": "LlavaProcessor", "tokenizer_class": "LlamaTokenizer"}
    write(folder / "tokenizer_config.json", {**names, **extra, **classes, "model_max_length": 10**30})
    return first


def write_settings(folder: Path, image: int) -> dict[str, Any]:
    """Write what describes model, generation and processors; return the model's settings."""
    rows = -(-(image + len(ADDED)) // 64) * 64
    settings = {
        "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": image,
        "model_type": "llava", "pad_token_id": image + 1, "projector_hidden_act": "gelu",
        "text_config": {**TEXT, "architectures": ["LlamaForCausalLM"], "torch_dtype": "float16", "vocab_size": rows},
        "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.36.0.dev0",
        "vision_config": VISION, "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
    }  # fmt: skip
    write(folder / "config.json", settings)
    write(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": image + 1})
    size = VISION["image_size"]
    images = {
        "crop_size": {"height": size, "width": size}, "do_center_crop": True, "do_convert_rgb": True,
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": MEAN,
        "image_processor_type": "CLIPImageProcessor", "image_std": STD, "processor_class": "LlavaProcessor",
        "resample": 3, "rescale_factor": 1 / 255, "size": {"shortest_edge": size},
    }  # fmt: skip
    write(folder / "preprocessor_config.json", images)
    parts = {"image_token": "<image>", "patch_size": VISION["patch_size"], "num_additional_image_tokens": 1}
    whole = {**parts, "processor_class": "LlavaProcessor", "vision_feature_select_strategy": "default"}
    write(folder / "processor_config.json", whole)
    return settings


def write(path: Path, content: object) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

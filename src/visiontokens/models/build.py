"""Building, loading and saving models."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM, LlavaConfig
from transformers.initialization import no_init_weights

from visiontokens.compress.base import MethodSpec, lookup
from visiontokens.data.encoders import FastEncoder
from visiontokens.models.hooked import geometry_of
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.models.query import question_marks
from visiontokens.provenance import atomic_write, read_json, sha256_file, sha256_json

IMAGE_TOKEN = "<image>"
PROCESSOR_FILE = "preprocessor_config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of unsharded weights, the preferred one first."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json")


class CheckpointError(ValueError):
    """A checkpoint that does not fit the model it is loaded into."""


def build_model(
    tower_dir: str | Path,
    llm_dir: str | Path,
    method: MethodSpec,
    seed: int,
    dtype: torch.dtype = torch.float32,
    *,
    llm_layers: int | None = None,
) -> LlavaWithCompressor:
    """Join a pretrained tower and language model; projector and compressor are new, drawn from `seed`.

    New linears have torch's default initialisation, as in LLaVA-1.5. With `llm_layers`, decoder layers behind the
    first so many are left away; the final norm and the output layer stay.

    Raises:
        FileNotFoundError: a folder or its config.json is missing.
        CheckpointError: a backbone lacks weights, or has fewer layers than asked for.
    """
    config = llava_config(tower_dir, llm_dir, method, llm_layers)
    with torch.random.fork_rng(), no_init_weights():
        model = LlavaWithCompressor(config)
    nn.Module.to(model, dtype)
    tower = CLIPVisionModel.from_pretrained(_folder(tower_dir), dtype=dtype)
    llm = LlamaForCausalLM.from_pretrained(_folder(llm_dir), dtype=dtype)
    decoder: Any = llm.model
    decoder.layers = decoder.layers[:llm_layers]
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(llm.model.state_dict())
    model.lm_head.load_state_dict(llm.lm_head.state_dict())
    model.tie_weights()
    model.generation_config = llm.generation_config
    reset_new_parts(model, seed)
    return model.eval()


def reset_new_parts(model: LlavaWithCompressor, seed: int) -> None:
    """Draw projector and compressor afresh from `seed`, leaving torch's global generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in model.model.multi_modal_projector.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        model.compressor.reset_parameters()


def llava_config(
    tower_dir: str | Path, llm_dir: str | Path, method: MethodSpec, llm_layers: int | None = None
) -> LlavaConfig:
    """Return the configuration of the joint model; the image token is `<image>` of the LLM's tokenizer.

    A method that reads the question finds the tokens around it in `question_marks`, if there is a tokenizer.
    Both folders may be that of a LLaVA checkpoint, whose parts then count. `llm_layers` cuts the decoder short.

    Raises:
        CheckpointError: it has fewer layers.
    """
    vision = CLIPVisionConfig.from_pretrained(_folder(tower_dir))
    text = _text_config(_folder(llm_dir))
    if llm_layers is not None:
        if llm_layers > text.num_hidden_layers:
            raise CheckpointError(
                f"{llm_dir}: found {text.num_hidden_layers} decoder layers, expected at least llm_layers {llm_layers}"
            )
        text.num_hidden_layers = llm_layers
    sizes: Any = vision
    side = sizes.image_size // sizes.patch_size
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=_image_token(Path(llm_dir), text),
        image_seq_length=side * side,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    config.compressor = method.to_config()
    if lookup(method.name).text_query:
        config.question_marks = _question_marks(Path(llm_dir))
    return config


def _question_marks(llm_dir: Path) -> dict[str, list[int]] | None:
    """Return what surrounds a question in the words of the LLM's tokenizer, or `None` when the folder has none."""
    if not any((llm_dir / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        return None
    return question_marks(FastEncoder(AutoTokenizer.from_pretrained(llm_dir)))


def _text_config(folder: Path) -> LlamaConfig:
    """Return the language model's configuration, its own or that inside LLaVA's."""
    if read_json(folder / "config.json").get("model_type") == "llava":
        text: Any = LlavaConfig.from_pretrained(folder).text_config
        return text
    return LlamaConfig.from_pretrained(folder)


def _image_token(llm_dir: Path, text: LlamaConfig) -> int:
    """Return the id of `<image>`, or the first id past the vocabulary when the tokenizer has none."""
    path = llm_dir / "tokenizer.json"
    if path.is_file():
        raw = json.loads(path.read_text(encoding="utf-8"))
        added = {token["content"]: token["id"] for token in raw.get("added_tokens", [])}
        vocab = raw.get("model", {}).get("vocab", {})
        found = added.get(IMAGE_TOKEN, vocab.get(IMAGE_TOKEN) if isinstance(vocab, dict) else None)
        if found is not None:
            return int(found)
    return int(text.vocab_size)


def vision_levels(method: MethodSpec, tower_dir: str | Path, feature_level: int = -2) -> tuple[int, ...]:
    """Return the hidden-state indices that `method` reads from the tower in `tower_dir`, ascending."""
    vision = CLIPVisionConfig.from_pretrained(_folder(tower_dir))
    config = LlavaConfig(vision_config=vision, text_config=LlamaConfig(), vision_feature_layer=feature_level)
    with torch.device("meta"):
        return method.build(geometry_of(config)).levels


ONE_FILE = "1000GB"
"""The workflow names one file of weights, whatever their size."""


def save_model(model: LlavaWithCompressor, path: str | Path) -> None:
    """Write config.json, generation_config.json and model.safetensors into `path`, each whole or not at all.

    The layout is that of stock LLaVA checkpoints; the compressor's tensors are under `compressor.`.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        model.save_pretrained(scratch, max_shard_size=ONE_FILE)
        for file in sorted(Path(scratch).iterdir()):
            file.replace(path / file.name)


def save_processors(tower_dir: str | Path, llm_dir: str | Path, path: str | Path) -> None:
    """Copy the tower's image settings and the language model's tokenizer to `path`, so that a model folder is whole."""
    sources = [Path(tower_dir) / PROCESSOR_FILE, *(Path(llm_dir) / name for name in TOKENIZER_FILES)]
    for source in filter(Path.is_file, sources):
        with atomic_write(Path(path) / source.name, "wb") as handle:
            handle.write(source.read_bytes())


def weights_hash(path: str | Path) -> str:
    """Return the SHA-256 of a folder's weights: of the one file, or of the list of its shards' hashes.

    Raises:
        FileNotFoundError: neither `model.safetensors` or `pytorch_model.bin` nor the index of their shards is there.
    """
    folder = Path(path)
    for whole in WEIGHT_FILES:
        index = folder / f"{whole}.index.json"
        if (folder / whole).is_file():
            return sha256_file(folder / whole)
        if index.is_file():
            shards = sorted(set(read_json(index)["weight_map"].values()))
            return sha256_json({shard: sha256_file(folder / shard) for shard in shards})
    raise FileNotFoundError(f"{folder}: no weights there ({' or '.join(WEIGHT_FILES)}, or their shards)")


def load_model(
    path: str | Path, method: MethodSpec | None = None, dtype: torch.dtype | str = torch.float32
) -> LlavaWithCompressor:
    """Load a model saved by `save_model`, or any LLaVA-1.5 checkpoint in the transformers layout.

    Args:
        path: the folder.
        method: overrides the stored method, for compression at test time only.
        dtype: of all weights; `auto` is the one that the checkpoint names.

    Raises:
        FileNotFoundError: no checkpoint there.
        CheckpointError: tensors are missing, left over or misshaped; the message names methods and tensors.
    """
    folder = _folder(path)
    config = LlavaConfig.from_pretrained(folder)
    stored = MethodSpec.from_config(getattr(config, "compressor", None))
    wanted = stored if method is None else method
    config.compressor = wanted.to_config()
    loaded: Any = LlavaWithCompressor.from_pretrained(
        folder, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
    )
    model: LlavaWithCompressor
    model, info = loaded
    _check_loaded(folder, stored.name, wanted.name, info)
    return model.eval()


def _check_loaded(folder: Path, stored: str, wanted: str, info: dict[str, Any]) -> None:
    kinds = {"missing": "missing_keys", "left over": "unexpected_keys", "misshaped": "mismatched_keys"}
    found = {kind: sorted(map(_fault, info[key])) for kind, key in kinds.items()}
    faults = [f"{kind}: {', '.join(names)}" for kind, names in found.items() if names]
    if faults:
        raise CheckpointError(
            f"{folder}: checkpoint of method {stored!r} does not fit method {wanted!r}; {'; '.join(faults)}"
        )


def _fault(entry: str | tuple[str, Any, Any]) -> str:
    """Return a tensor's name, with both shapes where they differ."""
    return entry if isinstance(entry, str) else f"{entry[0]} (found {tuple(entry[1])}, expected {tuple(entry[2])})"


def _folder(path: str | Path) -> Path:
    path = Path(path)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path}: no checkpoint here (config.json not found)")
    return path

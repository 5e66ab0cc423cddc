"""The stock processor of a model folder, and the files it consists of."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import LlamaTokenizer, LlavaConfig, LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from visiontokens.data.conversation import VICUNA_SYSTEM
from visiontokens.models.build import IMAGE_TOKEN, PROCESSOR_FILE, CheckpointError
from visiontokens.provenance import read_json

COMBINED_FILE = "processor_config.json"
TEMPLATE_FILE = "chat_template.jinja"


def load_tokenizer(folders: Iterable[Path | None]) -> Any:
    """Return the tokenizer of the first folder that has one.

    Raises:
        FileNotFoundError: none has.
        CheckpointError: it is damaged.
    """
    tried = [folder for folder in folders if folder is not None]
    for folder in tried:
        for name, kind in (("tokenizer.json", PreTrainedTokenizerFast), ("tokenizer.model", LlamaTokenizer)):
            if (folder / name).is_file():
                try:
                    tokenizer: Any = kind.from_pretrained(folder)
                except Exception as err:  # the Rust library raises bare exceptions
                    raise CheckpointError(f"{folder / name}: no whole tokenizer there or beside it: {err}") from err
                return tokenizer
    listed = ", ".join(map(str, tried))
    raise FileNotFoundError(f"{listed}: neither tokenizer.json nor tokenizer.model found")


def add_image_token(tokenizer: Any, vocabulary: int) -> int:
    """Return the id of `<image>`; a tokenizer without it gets it as the first id past `vocabulary`.

    Raises:
        CheckpointError: the tokenizer has fewer or more tokens than the language model has rows, so that the new
            token's id would be another one.
    """
    known = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if known is not None and known != tokenizer.unk_token_id:
        return int(known)
    if len(tokenizer) != vocabulary:
        raise CheckpointError(f"tokenizer: found {len(tokenizer)} tokens, expected {vocabulary} (rows of embed_tokens)")
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    return vocabulary


def image_settings(folders: Iterable[Path | None]) -> dict[str, Any] | None:
    """Return the image processor's settings from the first folder that has them."""
    for folder in folders:
        if folder is None:
            continue
        if (folder / PROCESSOR_FILE).is_file():
            return dict(read_json(folder / PROCESSOR_FILE))
        if (folder / COMBINED_FILE).is_file() and "image_processor" in (raw := read_json(folder / COMBINED_FILE)):
            return dict(raw["image_processor"])
    return None


def build_processor(images: dict[str, Any], tokenizer: Any, config: LlavaConfig, template: str | None = None) -> Any:
    """Join image settings and tokenizer to transformers' processor, which writes one placeholder per patch.

    Prompts are padded on the left, as generation needs; padding is the unknown token, as in LLaVA, unless the
    tokenizer has its own.
    """
    vision: Any = config.vision_config
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token
    kept = {key: value for key, value in images.items() if key not in {"image_processor_type", "processor_class"}}
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(**kept),
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        image_token=IMAGE_TOKEN,
        chat_template=template or chat_template(),
    )


def chat_template() -> str:
    """Return LLaVA-1.5's `vicuna_v1` prompt as a chat template: images first in a turn, each on its own line."""
    return (
        f"{VICUNA_SYSTEM} "
        "{% for message in messages %}"
        "{% set parts = message['content'] %}"
        "{% if parts is string %}{% set parts = [{'type': 'text', 'text': parts}] %}{% endif %}"
        "{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
        "{% for part in parts if part['type'] == 'image' %}<image>\n{% endfor %}"
        "{% for part in parts if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
        "{% if message['role'] == 'user' %} {% else %}</s>{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )


def load_processor(folder: Path, config: LlavaConfig) -> Any:
    """Return the stock processor of a model folder, also when its files do not say everything it needs.

    Raises:
        FileNotFoundError: no tokenizer or no image settings in the folder.
    """
    images = image_settings([folder])
    if images is None:
        raise FileNotFoundError(f"{folder}: {PROCESSOR_FILE} not found, expected it beside the weights")
    template = folder / TEMPLATE_FILE
    text = template.read_text(encoding="utf-8") if template.is_file() else None
    return build_processor(images, load_tokenizer([folder]), config, text)

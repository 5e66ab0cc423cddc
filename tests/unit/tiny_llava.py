"""LLaVA models small enough for a test: 4 tower blocks, 4 decoder layers, a 12x12 patch grid."""

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from visiontokens.compress import MethodSpec
from visiontokens.models.build import reset_new_parts
from visiontokens.models.llava import LlavaWithCompressor

IMAGE, VOCAB, SIDE, BLOCKS, LAYERS = 63, 64, 12, 4, 4
PATCHES = SIDE * SIDE


def tiny_config(method=None, side=SIDE, tie=True, heads=2, kv_heads=1):
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=BLOCKS, num_attention_heads=2, image_size=2 * side,
        patch_size=2, initializer_range=0.2,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=LAYERS, num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=512, tie_word_embeddings=tie, initializer_range=0.3,
        pad_token_id=0, eos_token_id=None, bos_token_id=1,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=side * side,
        tie_word_embeddings=tie,
    )  # fmt: skip
    config.compressor = (method or MethodSpec()).to_config()
    return config


def tiny_model(method=None, seed=0, attention="sdpa", **kwargs):
    """Return a model in eval mode; the same seed gives the same backbones whatever the method."""
    torch.manual_seed(seed)
    base = LlavaWithCompressor(tiny_config(**kwargs))
    model = LlavaWithCompressor._from_config(tiny_config(method, **kwargs), attn_implementation=attention)
    model.model.vision_tower.load_state_dict(base.model.vision_tower.state_dict())
    model.model.language_model.load_state_dict(base.model.language_model.state_dict())
    model.lm_head.load_state_dict(base.lm_head.state_dict())
    model.tie_weights()
    reset_new_parts(model, seed)
    return model.eval()


def spec(name, **params):
    return MethodSpec(name=name, params=params)


def pixels(count, seed=0, side=SIDE):
    return torch.randn(count, 3, 2 * side, 2 * side, generator=torch.Generator().manual_seed(seed))


def prompt(length, at=2, seed=0):
    """Ids of a prompt with one image placeholder."""
    ids = torch.randint(2, IMAGE, (length,), generator=torch.Generator().manual_seed(seed))
    if at is not None:
        ids[at] = IMAGE
    ids[0] = 1
    return ids


def pad(rows, left=False):
    """Return ids and attention mask `[B, S]`."""
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place], mask[i, place] = row, 1
    return ids, mask


def run_of(ids, count=PATCHES):
    """Replace the one placeholder by `count` of them, as the stock processor does."""
    at = int((ids == IMAGE).nonzero()[0, 0])
    return torch.cat([ids[:at], torch.full((count,), IMAGE), ids[at + 1 :]])

"""What methods compute with single blocks of the frozen vision tower, from the states that enter them.

The states of a frozen tower are computed once and kept; what a block makes of them (queries, keys, attention) is not,
but follows from the block's own weights.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from visiontokens.compress.base import VisionIn


def block(vision: VisionIn, index: int) -> Any:
    """Return block `index` of the tower: it turns hidden state `index` into `index + 1`.

    Raises:
        ValueError: the input came without its tower.
    """
    if vision.tower is None:
        raise ValueError("this method computes with the tower's own blocks; expected VisionIn.tower, found None")
    tower: Any = vision.tower
    return tower.encoder.layers[index]


def unmixed(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context without autocast: in half precision a ranking or a nearest neighbour may be another one."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Return the rows `[F, M, C]` of `[F, N, C]` at `[F, M]`."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))


def class_query_and_keys(layer: Any, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return the class token's query `[F, C]` and all keys `[F, 1 + N, C]` of a block, unscaled, over the full width.

    Args:
        layer: a block.
        states: what enters it, `[F, 1 + N, C]`, CLS first.
    """
    normed = layer.layer_norm1(states.to(layer.layer_norm1.weight.dtype))
    return layer.self_attn.q_proj(normed[:, 0]), layer.self_attn.k_proj(normed)


def class_attention(query: Tensor, keys: Tensor, heads: int = 1) -> Tensor:
    """Return the class token's attention to the patches `[F, N]` in float32, summed over heads.

    The softmax runs over CLS too, so that a head's attention to the patches sums to less than 1.

    Args:
        query: `[F, C]`.
        keys: `[F, 1 + N, C]`, CLS first.
        heads: the width is cut into so many.
    """
    q = query.float().unflatten(-1, (heads, -1))[:, :, None]
    k = keys.float().unflatten(-1, (heads, -1)).transpose(1, 2)
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return scores.softmax(-1)[:, :, 0, 1:].sum(1)


def class_attention_flops(n_vision: int, width: int) -> float:
    """FLOPs (two per multiply-add) of the class token's query, all keys, and their products."""
    keys = n_vision + 1
    return 2.0 * (width * width + keys * width * width + keys * width)


def read_along(layer: Any, image: Tensor, extra: Tensor) -> Tensor:
    """Return extra tokens `[F, S, C]` after a block in which they see the image and themselves, it only itself.

    This is the block run on both under VisToG's isolated mask, without the image's own rows, which are known.

    Args:
        layer: a block.
        image: what enters it, `[F, 1 + N, C]`.
        extra: the extra tokens that enter it, `[F, S, C]`.
    """
    dtype, attention = layer.layer_norm1.weight.dtype, layer.self_attn
    extra = extra.to(dtype)
    own = layer.layer_norm1(extra)
    seen = torch.cat([layer.layer_norm1(image.to(dtype)), own], 1)

    def split(states: Tensor) -> Tensor:
        """Split `[..., D]` into heads, `[..., H, S, D / H]`."""
        return states.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    q, k, v = split(attention.q_proj(own)), split(attention.k_proj(seen)), split(attention.v_proj(seen))
    weights = ((q @ k.transpose(-1, -2)) * attention.scale).float().softmax(-1).to(v.dtype)
    extra = extra + attention.out_proj((weights @ v).transpose(1, 2).flatten(2))
    return extra + layer.mlp(layer.layer_norm2(extra))


def read_along_flops(n_vision: int, extra: int, width: int, hidden: int) -> float:
    """FLOPs (two per multiply-add) of one block of `read_along`; `hidden` is the width of its MLP."""
    seen = n_vision + 1 + extra
    linear = extra * width * width * 2 + seen * width * width * 2 + extra * width * hidden * 2
    return 2.0 * (linear + 2 * extra * seen * width)

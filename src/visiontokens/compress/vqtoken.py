"""VQToken (arXiv 2503.16980): projected tokens of all frames are clustered, and clusters become the LLM's tokens.

Three functions bear the name. `vq_mean` passes the cluster means on, which is what the released code evaluates;
`vq_attn_code` is the attention module of that code; `vq_attn_paper` the attention of the paper's equation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from visiontokens.compress.base import Compressor, Geometry, MethodError, MethodParams, VisionIn, register
from visiontokens.compress.clustering import means
from visiontokens.compress.codebook import Clusters, Search, cluster_flops, find_clusters

PUBLISHED = (32, 64, 12)
"""Numbers of codes in the paper's tables; the released code has 32."""


class VQParams(MethodParams):
    """Parameters of all three variants.

    Attributes:
        codes: clusters K of an image or a whole video, where `search` is `fixed`.
        search: `fixed` K; `elbow` of the distortion between `fewest` and `most` clusters; `elbow_official` as the
            released code computes it, whose index leaves out where the range starts, so that K is `fewest` to
            max(`fewest`, `most` - `fewest` + 2), 12 to 22 in place of 13 to 31.
        fewest: first K of the search (12 in the code).
        most: last K of the search (32 in the code).
        iterations: Lloyd steps; our choice, the code stops at rest or after 100 (300 for fixed K).
        seed: of the draws of the first centres; our choice, the code draws from the global generator.
        rescale: multiply a code by the mean norm of its members. As coded, the means are of tokens of norm 1.
    """

    codes: int = Field(default=32, ge=1)
    search: Literal["fixed", "elbow", "elbow_official"] = "fixed"
    fewest: int = Field(default=12, ge=1)
    most: int = Field(default=32, ge=1)
    iterations: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0)
    rescale: bool = False

    @model_validator(mode="after")
    def _has_an_elbow(self) -> Self:
        if self.search != "fixed" and self.most < self.fewest + 2:
            raise ValueError(f"most: found {self.most}, expected at least fewest + 2 = {self.fewest + 2}")
        return self


Q = TypeVar("Q", bound=VQParams)


class VQToken(Compressor[Q]):
    """What the variants share: one clustering per image or video, across its frames.

    Tokens are compared by cosine; a code is the mean of its members after each was divided by its norm, and carries
    their gradient. Labels carry none: there is no straight-through estimate and no codebook loss, as in the code. Left
    out: the code's `image_newline` token after the codes, which LLaVA-1.5 does not have. A cluster without members
    gives its last centre (zeros in the code).
    """

    def __init__(self, params: Q, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        search = Search(params.search, params.codes, params.fewest, params.most, params.iterations, params.seed)
        if search.largest > geometry.n_vision:
            raise MethodError(
                f"method {self.name!r}: {'codes' if params.search == 'fixed' else 'most'}: found {search.largest}, "
                f"expected at most the image's {geometry.n_vision} tokens"
            )
        self._search = search

    @classmethod
    def settings(cls, geometry: Geometry) -> Iterator[dict[str, Any]]:
        """Every fixed K, the paper's first; the variants' tensors do not depend on it."""
        others = (k for k in range(1, geometry.n_vision + 1) if k not in PUBLISHED)
        return ({"codes": k} for k in (*PUBLISHED, *others) if k <= geometry.n_vision)

    def compress(self, vision: VisionIn, projector: nn.Module) -> list[Tensor]:
        """Return `[K, D]` for every image or video; K differs where it is searched for."""
        tokens, real = stack_frames(projector(vision.features), vision.frames)
        ok = None if len(set(vision.frames)) == 1 else real[..., None].expand(tokens.shape[:3]).flatten(1)
        codes, found = self.quantize(tokens.flatten(1, 2), ok)
        out, count = self.attend(codes, found, real)
        return [row[:n] for row, n in zip(out, count.tolist(), strict=True)]

    def quantize(self, tokens: Tensor, ok: Tensor | None = None) -> tuple[Tensor, Clusters]:
        """Return the codes `[R, K, D]` of runs of tokens `[R, P, D]`, of which `ok` `[R, P]` are real."""
        k = self._search.largest
        with torch.autocast(tokens.device.type, enabled=False):
            x = tokens.float()
            norm = x.norm(dim=2, keepdim=True).clamp_min(1e-12)
            found = find_clusters((x / norm).detach(), self._search, ok)
            codes, size = means(x / norm, found.label, k, otherwise=found.centre)
            if self.params.rescale:
                length, _ = means(norm, found.label, k)
                weight = size[..., None] / size.sum(1)[:, None, None]
                codes = codes * torch.where(weight > 0, length, (length * weight).sum(1, keepdim=True))
        return codes.to(tokens.dtype), found

    def attend(self, codes: Tensor, found: Clusters, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens `[R, M, D]` and how many of them every run has `[R]`; here the codes themselves.

        Args:
            codes: `[R, K, D]`.
            found: labels of the tokens, and the number of codes.
            real: frames that are not padding `[R, T]`.
        """
        return codes, found.count

    def n_tokens(self, n_vision: int) -> int | None:
        """K; `None` when it is searched for."""
        return self._search.codes if self._search.kind == "fixed" else None

    def tokens_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """K in all layers; the middle of what the search can give (our choice: no source states an expectation)."""
        count = self.n_tokens(n_vision)
        return [float(self._search.middle if count is None else count)] * n_layers

    def video_tokens_per_layer(self, frames: int, n_vision: int, n_layers: int) -> list[float]:
        """As many as for an image: frames are clustered together."""
        return self.tokens_per_layer(n_vision, n_layers)

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Those of a video of one frame."""
        return self.video_extra_flops(1, n_vision, n_text)

    def video_extra_flops(self, frames: int, n_vision: int, n_text: int = 0) -> float:
        """The projector on all tokens, and the clustering (a search may need fewer steps than it is billed for)."""
        tokens = frames * n_vision
        norms = 2.0 * tokens * self._search.largest if self.params.rescale else 0.0
        clusters = cluster_flops(self._search, tokens, self.geometry.llm_width)
        return self.projector_flops(tokens) + clusters + norms


def stack_frames(tokens: Tensor, frames: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return frames `[F, N, D]` as runs `[R, T, N, D]`, and which of their T frames are real `[R, T]`."""
    count = torch.tensor(list(frames), device=tokens.device)
    step = torch.arange(max(frames), device=tokens.device)
    first = count.cumsum(0) - count
    real = step < count[:, None]
    return tokens[torch.where(real, first[:, None] + step, first[:, None])], real


@register("vq_mean")
class VQMean(VQToken[VQParams]):
    """Cluster means are the tokens: what the released code runs by default."""

    Params = VQParams


class VQAttentionParams(VQParams):
    """`heads` of the attention (8 in the code)."""

    heads: int = Field(default=8, ge=1)


class VQCodeParams(VQAttentionParams):
    """Besides, the decoder layer's `feedforward` width (PyTorch's default, as in the code) and `dropout`.

    The code trains with PyTorch's default dropout, 0.1. Ours is 0: no other method has any, and a step does not depend
    on how its samples are put into micro-batches. `official_init` also draws the gains of the layer norms from
    (-0.01, 0.01), as the code does to all vectors that are not named bias; by default they are 1.
    """

    feedforward: int = Field(default=2048, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    official_init: bool = False


def _check_heads(method: Compressor[Any], heads: int) -> None:
    width = method.geometry.llm_width
    if width % heads:
        raise MethodError(f"method {method.name!r}: heads: found {heads}, expected a divisor of the width {width}")


@register("vq_attn_code")
class VQAttentionCode(VQToken[VQCodeParams]):
    """The released attention module: rows of the label map attend to the codes.

    A frame's labels, as numbers, go through a linear layer of N inputs and become one query; a post-norm decoder layer
    (self-attention, cross-attention, feed-forward) reads the codes with it. Queries and codes are repeated in turn to
    the same number max(T, K). As nothing tells equal queries apart, one image gives K copies of a single token, and T
    frames T different ones; this is how the code behaves, not a choice of ours.
    """

    Params = VQCodeParams

    def __init__(self, params: VQCodeParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        _check_heads(self, params.heads)
        width = geometry.llm_width
        self.to_query = nn.Linear(geometry.n_vision, width)
        self.decoder = nn.TransformerDecoderLayer(
            width, params.heads, params.feedforward, params.dropout, batch_first=True
        )

    def reset_parameters(self) -> None:
        """Xavier-uniform matrices and zero biases, as in the code."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif self.params.official_init:
                nn.init.uniform_(parameter, -0.01, 0.01)
            else:
                nn.init.ones_(parameter)

    def attend(self, codes: Tensor, found: Clusters, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return `[R, max(T, K), D]`."""
        runs, frames = real.shape
        rows = self.to_query(found.label.unflatten(1, (frames, -1)).to(codes.dtype))
        count = torch.maximum(real.sum(1), found.count)
        step = torch.arange(int(count.max()), device=codes.device).expand(runs, -1)
        query = _repeated(rows, step % real.sum(1)[:, None])
        memory = _repeated(codes, step % found.count[:, None])
        absent = step >= count[:, None]
        pad = absent if bool(absent.any()) else None
        return self.decoder(query, memory, tgt_key_padding_mask=pad, memory_key_padding_mask=pad), count

    def video_tokens_per_layer(self, frames: int, n_vision: int, n_layers: int) -> list[float]:
        """K, or the number of frames if that is larger."""
        return [max(tokens, float(frames)) for tokens in super().video_tokens_per_layer(frames, n_vision, n_layers)]

    def video_extra_flops(self, frames: int, n_vision: int, n_text: int = 0) -> float:
        """Besides, the linear layer on label rows and the decoder layer on the queries."""
        d = self.geometry.llm_width
        length = max(self._search.largest, frames)
        linear = frames * n_vision * d + length * d * (8 * d + 2 * self.params.feedforward)
        return super().video_extra_flops(frames, n_vision, n_text) + 2.0 * (linear + 4 * length * length * d)


@register("vq_attn_paper")
class VQAttentionPaper(VQToken[VQAttentionParams]):
    """The paper's attention: B' = MHA(B W_Q, B W_K, M W_V) with codes B and the map M of where clusters are.

    The paper makes M, `[K, D]`, from the flattened label map by an MLP. Read as one vector this would take an output
    layer of K D rows (0.5G weights at 7B and K = 32). Our reading: row k is the MLP of the map of cluster k over the N
    places of a frame, 1 where it is and 0 elsewhere, averaged over frames; two layers with GELU, hidden width D.
    """

    Params = VQAttentionParams

    def __init__(self, params: VQAttentionParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        _check_heads(self, params.heads)
        width = geometry.llm_width
        self.place = nn.Sequential(nn.Linear(geometry.n_vision, width), nn.GELU(), nn.Linear(width, width))
        self.attention = nn.MultiheadAttention(width, params.heads, batch_first=True)

    def reset_parameters(self) -> None:
        """Linears and attention as torch initialises them (our choice)."""
        super().reset_parameters()
        attention: Any = self.attention
        attention._reset_parameters()

    def attend(self, codes: Tensor, found: Clusters, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return `[R, K, D]`."""
        absent = torch.arange(codes.shape[1], device=codes.device) >= found.count[:, None]
        value = self.place(self.occupancy(found.label, real).to(codes.dtype))
        pad = absent if bool(absent.any()) else None
        return self.attention(codes, codes, value, key_padding_mask=pad, need_weights=False)[0], found.count

    def occupancy(self, label: Tensor, real: Tensor) -> Tensor:
        """Return the share of frames in which cluster k holds place p, `[R, K, N]`, from labels `[R, T * N]`."""
        maps = label.unflatten(1, (real.shape[1], -1))
        k = torch.arange(self._search.largest, device=label.device)
        held = (maps[:, :, None] == k[:, None]).sum(1)
        return held / real.sum(1)[:, None, None]

    def video_extra_flops(self, frames: int, n_vision: int, n_text: int = 0) -> float:
        """Besides, MLP and attention on K rows."""
        d, k, n = self.geometry.llm_width, self._search.largest, n_vision
        return super().video_extra_flops(frames, n_vision, n_text) + 2.0 * (
            k * d * (n + d) + 4 * k * d * d + 2 * k * k * d
        )


def _repeated(rows: Tensor, index: Tensor) -> Tensor:
    """Return the rows `[R, L, D]` at `index` `[R, L]`."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))

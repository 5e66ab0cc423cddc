"""VoCo-LLaMA: learned tokens behind an image are all that later text sees of it (arXiv 2406.12275, CVPR 2025)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from visiontokens.compress.base import Compressor, Decoder, Geometry, MethodParams, Seq, VisionIn, register
from visiontokens.compress.places import visible

INIT_STD = 0.02
"""Standard deviation of new embedding rows in transformers; the authors call theirs completely random."""


class VocoParams(MethodParams):
    """Parameters of `voco`.

    Attributes:
        tokens: learned tokens after each image. The paper's main result has 1; the released code is fixed to 2.
        separator: put a learned token between the image and them, as the official prompt puts a line break there.
    """

    tokens: int = Field(default=2, ge=1)
    separator: bool = False


@register("voco")
class Voco(Compressor[VocoParams]):
    """Compression by attention: two phases in one mask, and the image leaves the cache after the prefill (sec. 3).

    All VoCo tokens share one embedding, `token` `[1, D]`, and differ by position only, as in the official vocabulary.
    Positions count the image, also when it has left the cache. Our choices: the tokens follow the image directly;
    text after several images sees the VoCo tokens of all of them, where the official mask would show it the raw
    tokens of the second; frames of a video are images of their own.
    """

    Params = VocoParams
    packable = False
    dense_mask = True

    def __init__(self, params: VocoParams, geometry: Geometry) -> None:
        super().__init__(params, geometry)
        self.token = nn.Parameter(torch.zeros(1, geometry.llm_width))
        if params.separator:
            self.separator = nn.Parameter(torch.zeros(1, geometry.llm_width))

    def reset_parameters(self) -> None:
        """Draw the embeddings as transformers draws new rows of a vocabulary."""
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=INIT_STD)

    @property
    def run(self) -> int:
        """Tokens that a frame brings into the language model."""
        return self.geometry.n_vision + self.params.separator + self.params.tokens

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor:
        """Return `[F, N + n, D]`: the projected patches, then the VoCo token n times."""
        image = projector(vision.features)
        rows = self.token.expand(self.params.tokens, -1)
        if self.params.separator:
            rows = torch.cat([self.separator, rows])
        return torch.cat([image, rows.to(image.dtype).expand(len(image), -1, -1)], 1)

    def roles(self, seq: Seq) -> Roles:
        """Return what every token of a full sequence is."""
        place = seq.rank % self.run
        voco = seq.vis & (place >= self.run - self.params.tokens)
        return Roles(seq, voco, seq.vis & (place == self.run - 1), seq.rank // self.run)

    def begin(self, seq: Seq, lm: Decoder) -> Seq:
        """Set the two-phase mask.

        Raises:
            ValueError: samples are packed, so that a row has more than one first image.
        """
        if seq.doc is not None:
            raise ValueError("VoCo's mask is one sample's: a row cannot hold several (packable = False)")
        if bool(seq.vis.any()):
            seq.mask = two_phase(seq, self.roles(seq))
        return seq

    def end(self, seq: Seq, lm: Decoder, cache: Any | None) -> None:
        """Leave in the cache what later text may see: VoCo tokens and the text after the first of them."""
        if cache is None or not bool(seq.vis.any()):
            return
        readable = self.roles(seq).readable
        for layer in range(len(lm.layers)):
            cache.keep(layer, readable)

    def n_tokens(self, n_vision: int) -> int:
        """N + n."""
        return n_vision + self.run - self.geometry.n_vision

    def kv_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """The VoCo tokens."""
        return [float(self.params.tokens)] * n_layers


class Roles:
    """What the tokens of a sequence are to a VoCo mask; all bool `[B, S]`, but for `frame`.

    Attributes:
        voco: VoCo tokens.
        raw: other tokens of images.
        frame: image and frame of a vision token, `[B, S]`.
        first: tokens up to the last VoCo token of their row's first frame, and all of a row without any.
        readable: VoCo tokens, and text that is not before the first VoCo token of its row.
    """

    def __init__(self, seq: Seq, voco: Tensor, last: Tensor, frame: Tensor) -> None:
        self.voco, self.raw = voco, seq.vis & ~voco
        self.frame = seq.image * (int(frame.max()) + 1) + frame
        self.first = last.long().cumsum(1) - last.long() == 0
        begun = voco.long().cumsum(1) > 0
        self.readable = voco | ~seq.vis & (begun | ~voco.any(1, keepdim=True))


def two_phase(seq: Seq, roles: Roles) -> Tensor:
    """Return who sees whom, bool `[B, 1, S, S]`; the official rule, where a row has one image (sec. 3.2).

    Up to the first image's VoCo tokens everything is causal. After them, text sees VoCo tokens and the text behind
    the first of them. Later images see that and all earlier text, and of raw tokens only those of their own frame.
    """
    keys, queries = (slice(None), None), (slice(None), slice(None), None)
    own = roles.frame[keys] == roles.frame[queries]
    image = seq.vis[queries] & (~roles.raw[keys] | own)
    return visible(seq) & (roles.first[queries] | roles.readable[keys] | image)[:, None]

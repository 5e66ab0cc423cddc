"""The compressor contract: a method is one class that overrides the hooks it needs.

Seams: A inside the vision tower (`run_tower`), B before the language model (`tokens`, `compress`), C inside the
language model during prefill (`begin`, `before_layer`, `run_layer`, `after_layer`, `end`), D training (`set_stage`,
`variants`, `extra_loss`, `parameter_groups`), E accounting (`n_tokens`, `tokens_per_layer`, `queries_per_layer`,
`kv_per_layer`, `extra_flops`). Every default is the identity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from visiontokens.compress.registry import (
    MethodError,
    MethodParams,
    MethodSpec,
    PositionParams,
    lookup,
    methods,
    parse_params,
    register,
)
from visiontokens.compress.schedule import Stage, scale_depth
from visiontokens.compress.sequence import Probe, Seq

__all__ = [
    "Compressor",
    "Decoder",
    "Geometry",
    "LayerCall",
    "MethodError",
    "MethodParams",
    "MethodSpec",
    "PositionParams",
    "Probe",
    "Seq",
    "Stage",
    "VisionIn",
    "lookup",
    "methods",
    "parse_params",
    "register",
]

P = TypeVar("P", bound=MethodParams)
PAPER_BLOCKS = 24
PAPER_LAYERS = 32
VICUNA_MLP = 11008 / 4096


@dataclass(frozen=True)
class Geometry:
    """The sizes a compressor is built for: widths, depths and the patch grid of the model."""

    vision_width: int
    vision_layers: int
    grid: tuple[int, int]
    llm_width: int
    llm_layers: int
    feature_level: int = -2
    vision_heads: int = 16  # CLIP ViT-L
    vision_mlp: int | None = None  # hidden width of the tower's MLPs; None = 4 C, as in CLIP
    llm_mlp: int = 0  # hidden width of the decoder's gated MLP; 0 = not known, Vicuna's ratio to the width
    llm_kv_width: int = 0  # channels of a token's keys; 0 = not known, as many as its queries

    def llm_flops(self, tokens: int) -> float:
        """Matrix FLOPs (two per multiply-add) of the stock decoder layers on one text of so many tokens.

        Linear maps and dense attention products, as in `measure/flops`; no output layer.
        """
        width, mlp = self.llm_width, self.llm_mlp or round(self.llm_width * VICUNA_MLP)
        linear = 2 * width * width + 2 * width * (self.llm_kv_width or width) + 3 * width * mlp
        return 2.0 * self.llm_layers * (tokens * linear + 2 * tokens**2 * width)

    @property
    def n_vision(self) -> int:
        """Vision tokens of one image, without CLS."""
        return self.grid[0] * self.grid[1]

    def level(self, level: int, of: int = PAPER_BLOCKS) -> int:
        """Return the hidden-state index for `level` of `of` blocks (0 = embeddings; negative counts from the end)."""
        if level < 0:
            return self.vision_layers + 1 + level
        return max(1, math.floor(level / of * self.vision_layers + 0.5)) if level else 0

    def layer(self, layer: int, of: int = PAPER_LAYERS) -> int:
        """Return the decoder layer index for `layer` of `of` layers (0 and -1 stay)."""
        return scale_depth(layer, of, self.llm_layers)

    @property
    def default_level(self) -> int:
        """Hidden-state index of the feature that LLaVA projects (-2)."""
        return self.level(self.feature_level)


@dataclass
class VisionIn:
    """What seam B receives: hidden states of the tower for all frames of the batch, CLS apart from the patches."""

    levels: dict[int, Tensor]  # hidden-state index -> [F, N, C]
    default: int  # the level LLaVA projects
    grid: tuple[int, int]
    frames: Sequence[int]  # frames of each image run in reading order; they sum to F
    cls: dict[int, Tensor] = field(default_factory=dict)  # hidden-state index -> [F, C], where `class_levels` asks
    tower: nn.Module | None = None  # frozen; for what a method computes from states with a block's own weights
    query: Tensor | None = None  # state of the question about each frame, [F, D], for methods with `text_query`

    @property
    def features(self) -> Tensor:
        """The default level, `[F, N, C]`."""
        return self.levels[self.default]

    def whole(self, level: int) -> Tensor:
        """One level with CLS in front, `[F, 1 + N, C]`, as the tower's blocks see it."""
        return torch.cat([self.cls[level][:, None], self.levels[level]], 1)


class Decoder(Protocol):
    """What seam C may use of the language model."""

    layers: nn.ModuleList
    config: Any
    rotary_emb: Any


class LayerCall(Protocol):
    """Runs the stock layer at hand on any sequence."""

    def __call__(self, seq: Seq, *, queries: Tensor | None = None, cached: Tensor | None = None) -> Tensor:
        """Return the states `[B, S, D]` after the layer.

        Args:
            seq: the tokens; all of them give keys and values.
            queries: bool `[B, S]`: only these tokens are queries, and `[B, Q, D]` is returned, in the order and with
                the padding of `places.compact`. Flash attention cannot do it: such a method declares `dense_mask`.
            cached: bool `[B, S]`: only the keys and values of these tokens stay in the cache.
        """


class Compressor(nn.Module, Generic[P]):
    """Base of all methods; by itself the identity (stock LLaVA).

    Attributes:
        name: registered name.
        Params: pydantic model of the method's parameters.
        prefix_safe: hidden states and cache of system prompt + image do not depend on the text after them.
        query_aware: which tokens or what they hold depends on the question; `None`: what `prefix_safe` says.
        identity: parameters that reproduce the uncompressed model, if there are any.
        stochastic: results depend on a random draw even in eval mode.
        packable: several samples may share a row in training (`Seq.doc`); false for methods that look at whole rows,
            or mask them densely.
        text_query: reads the question before the language model: the model computes `VisionIn.query`, and training
            gives every turn of a conversation a row of its own. Such a method is neither prefix-safe nor packable.
        dense_mask: sets `Seq.mask`, which flash attention cannot apply; such a method always gets SDPA.
    """

    name: ClassVar[str] = "none"
    Params: ClassVar[type[MethodParams]] = MethodParams
    prefix_safe: ClassVar[bool] = True
    query_aware: ClassVar[bool | None] = None
    identity: ClassVar[Mapping[str, Any] | None] = None
    stochastic: ClassVar[bool] = False
    packable: ClassVar[bool] = True
    text_query: ClassVar[bool] = False
    dense_mask: ClassVar[bool] = False

    def __init__(self, params: P, geometry: Geometry) -> None:
        super().__init__()
        self.params = params
        self.geometry = geometry
        self.stage: Stage | None = None

    # -- A: inside the vision tower ------------------------------------------------------------------------------

    @property
    def levels(self) -> tuple[int, ...]:
        """Hidden-state indices of the tower that this method reads (distinct, ascending)."""
        return (self.geometry.default_level,)

    @property
    def class_levels(self) -> tuple[int, ...]:
        """Those of `levels` whose class token (CLS) this method reads too; their states come with it in front."""
        return ()

    def state_shapes(self, frames: int) -> dict[int, tuple[int, int, int]]:
        """Shapes of the hidden states of F frames by level: `[F, N, C]`, with CLS `[F, 1 + N, C]`."""
        n, width = self.geometry.n_vision, self.geometry.vision_width
        return {level: (frames, n + (level in self.class_levels), width) for level in self.levels}

    def run_tower(self, tower: nn.Module, pixel_values: Tensor) -> dict[int, Tensor]:
        """Return the hidden states that this method reads (`state_shapes`) from pixels `[F, 3, H, W]`."""
        states = tower(pixel_values, output_hidden_states=list(self.levels), return_dict=True).hidden_states
        return {level: states[level][:, int(level not in self.class_levels) :] for level in self.levels}

    # -- B: before the language model ----------------------------------------------------------------------------

    def projector_sizes(self) -> tuple[int, int, int]:
        """Widths (in, hidden, out) of the two-layer projector; LLaVA-1.5 is (C, D, D)."""
        c, d = self.geometry.vision_width, self.geometry.llm_width
        return c, d, d

    def tokens(self, vision: VisionIn, projector: nn.Module) -> Tensor | list[Tensor]:
        """Return the LLM tokens of every frame: `[F, M, D]`, or a list of `[M_f, D]` when counts differ."""
        return projector(vision.features)

    def compress(self, vision: VisionIn, projector: nn.Module) -> list[Tensor]:
        """Return the LLM tokens of every image run, `[M_i, D]` each; frames of a run are concatenated.

        Override this instead of `tokens` to work across the frames of a video.
        """
        per_frame = list(self.tokens(vision, projector))
        if len(vision.frames) == len(per_frame):
            return per_frame
        runs, at = [], 0
        for count in vision.frames:
            runs.append(torch.cat(per_frame[at : at + count]))
            at += count
        return runs

    # -- C: inside the language model, prefill only --------------------------------------------------------------

    def begin(self, seq: Seq, lm: Decoder) -> Seq:
        """Prepare a prefill: may set `seq.mask` or switch probes on with `watch`."""
        return seq

    def before_layer(self, index: int, seq: Seq, lm: Decoder) -> Seq:
        """Return the sequence that layer `index` and later layers see; `seq.keep` and `seq.merge` shorten it."""
        return seq

    def run_layer(self, index: int, seq: Seq, lm: Decoder, call: LayerCall) -> Tensor:
        """Return the states `[B, S, D]` after layer `index`; `call` runs the stock layer on any sequence."""
        return call(seq)

    def after_layer(self, index: int, seq: Seq, lm: Decoder) -> Seq:
        """Look at or change the sequence after layer `index`."""
        return seq

    def end(self, seq: Seq, lm: Decoder, cache: Any | None) -> None:
        """Finish a prefill; may shorten the cache once (`cache.keep(layer, mask)`)."""

    @staticmethod
    def watch(lm: Decoder, index: int, seq: Seq) -> Probe:
        """Ask layer `index` for the attention row of each row's last token; read `.weights` after the layer.

        Raises:
            ValueError: samples are packed, so that a row has no one last token.
        """
        probe = Probe(*seq.asking())
        layer: Any = lm.layers[index]
        layer.self_attn.probe = probe
        return probe

    # -- D: training ---------------------------------------------------------------------------------------------

    def set_stage(self, stage: Stage | None) -> None:
        """Set the training stage; `None` returns to the parameters of the method file."""
        self.stage = stage

    def variants(self) -> list[dict[str, Any]]:
        """Settings whose losses are averaged in one training step (M3's scales); `[{}]` is one plain loss."""
        return [{}]

    def use_variant(self, variant: dict[str, Any]) -> None:
        """Switch to one of `variants()`; `{}` returns to the parameters of the method file."""

    def extra_loss(self) -> Tensor | None:
        """A loss to add to the language-model loss of the last forward, or `None`."""
        return None

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimizer groups of the compressor's own parameters, with their learning rates."""
        params = [p for p in self.parameters() if p.requires_grad]
        return [{"params": params, "lr": lr}] if params else []

    def reset_parameters(self) -> None:
        """Initialise own weights from torch's global generator; default: torch's own linear initialisation."""
        parts: list[Any] = [module for module in self.modules() if module is not self]
        for part in parts:
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()

    # -- what a reader is told -----------------------------------------------------------------------------------

    @classmethod
    def looks_at_question(cls) -> bool:
        """Whether the method chooses or mixes tokens by the question."""
        return not cls.prefix_safe if cls.query_aware is None else cls.query_aware

    # -- E: accounting -------------------------------------------------------------------------------------------

    @classmethod
    def settings(cls, geometry: Geometry) -> Iterator[dict[str, Any]]:
        """Yield the parameters a token budget may choose from, nearest to the published ones first.

        By default only the default parameters: weights that were trained for one number of tokens serve no other.
        """
        yield {}

    def n_tokens(self, n_vision: int) -> int | None:
        """Tokens that enter the language model for `n_vision` patches; `None` when data-dependent."""
        return n_vision

    def tokens_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """Vision tokens of one image that every layer sees during prefill (data-dependent: the expected number)."""
        count = self.n_tokens(n_vision)
        if count is None:
            raise NotImplementedError(
                f"method {self.name!r} has data-dependent counts and must state the expected ones"
            )
        return [float(count)] * n_layers

    def queries_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """Those of `tokens_per_layer` that are queries and pass the MLP; the others only give keys and values."""
        return self.tokens_per_layer(n_vision, n_layers)

    def kv_per_layer(self, n_vision: int, n_layers: int) -> list[float]:
        """Vision tokens of one image whose keys and values are left in every layer's cache after the prefill."""
        return self.tokens_per_layer(n_vision, n_layers)

    def video_tokens_per_layer(self, frames: int, n_vision: int, n_layers: int) -> list[float]:
        """Vision tokens of a video alive in every layer; by default every frame costs what an image costs.

        Override this, and `video_extra_flops`, where `compress` works across frames.
        """
        return [frames * tokens for tokens in self.tokens_per_layer(n_vision, n_layers)]

    def video_extra_flops(self, frames: int, n_vision: int, n_text: int = 0) -> float:
        """`extra_flops` of a video of `frames` frames."""
        return frames * self.extra_flops(n_vision, n_text)

    def projector_flops(self, tokens: int) -> float:
        """FLOPs (two per multiply-add) of the projector's two linears on `tokens` tokens."""
        width_in, hidden, out = self.projector_sizes()
        return 2.0 * tokens * (width_in * hidden + hidden * out)

    def extra_flops(self, n_vision: int, n_text: int = 0) -> float:
        """Matrix FLOPs (two per multiply-add) of one image outside the tower and the stock decoder layers.

        Projector, own modules and probes; additions, norms and activations are not counted.
        """
        return self.projector_flops(n_vision)

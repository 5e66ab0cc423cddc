"""What the mini LLM is pretrained on, in which order: the phases, and the plan from which the shipped one was made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from visiontokens.data.miniworld.scenes import MAX_OBJECTS
from visiontokens.models.tiny import MINI_LLM, MINI_TOWER, LlmDims

from .turns import WEIGHTS, Mix


@dataclass(frozen=True)
class Phase:
    """A stretch of training with its own schedule; grids take turns step by step."""

    steps: int
    learning_rate: float
    grids: tuple[int, ...]
    layers: int
    turns: int = 10
    captioned: float = 0.25  # share of the samples with a caption turn
    ordered: float = 1.0  # share of the scenes whose digits carry their place in the number
    batch_size: int = 16
    objects: tuple[int, int] = (1, MAX_OBJECTS)
    input_rate: float = 3.0  # times the learning rate, for what makes the scene's tokens: codes, or the projector
    pixels: bool = False  # the scene's tokens come from the vision tower
    mix: Mix = field(default_factory=Mix)


@dataclass(frozen=True)
class Plan:
    """The whole pretraining."""

    phases: tuple[Phase, ...]
    dims: LlmDims = MINI_LLM
    channels: int = MINI_TOWER.hidden
    caption_weight: float = 0.3
    blur: float = 0.08  # share of blurred scenes
    weight_decay: float = 0.01
    warmup: float = 0.05  # shares of each phase
    decay: float = 0.3
    max_grad_norm: float = 1.0
    seed: int = 0
    held_out: int = 300  # scenes for the final accuracy
    precision: str = "auto"  # as in the two stages


EASY = Mix(
    weights={**dict.fromkeys(("exist", "color", "shape", "texture", "size", "row", "column"), 1.0), "number": 0.5},
    chinese=0.0,
    choice=0.0,
    may_refuse=0.0,
    bare=1.0,
    ocr=0.0,
)
HARD = {"relation": 3.0, "count": 2.0, "compare": 1.2, "arithmetic": 0.6}  # what comes last
SEEN = Mix({**WEIGHTS, **HARD, "number": 2.0, "row": 1.4, "column": 1.4}, chinese=0.25, choice=0.3)
CHINESE = replace(EASY, chinese=0.8, choice=0.3, choice_chinese=0.5)
MINI_PLAN = Plan(
    phases=(
        # Matching a phrase with a cell and saying whether it fits comes suddenly, after some 700 steps. Nothing else is
        # learned well before it, so the first phase stays with easy questions until it has come.
        Phase(1200, 2e-3, (4,), layers=4, turns=6, captioned=0.0, input_rate=1.0, mix=EASY),
        Phase(1800, 2e-3, (4,), layers=4, turns=8, captioned=0.1, mix=Mix(chinese=0.0, choice=0.1, bare=0.6)),
        Phase(1800, 2e-3, (4,), layers=4, turns=8, captioned=0.1, ordered=0.7, mix=Mix({**WEIGHTS, **HARD}, bare=0.6)),
        Phase(1200, 1.5e-3, (4, 8), layers=4, turns=8, ordered=0.7),
        Phase(600, 1e-3, (8, 12), layers=8, turns=12, ordered=0.4, batch_size=8),
        Phase(600, 7e-4, (12, 24), layers=8, turns=24, ordered=0.2, batch_size=8),
        # Pixels: the projector first, almost alone, then everything.
        Phase(
            200, 1e-4, (12,), layers=8, turns=16, captioned=0.5, input_rate=30.0, pixels=True, batch_size=8, mix=SEEN
        ),
        Phase(1000, 7e-4, (12, 24), layers=8, turns=24, captioned=0.5, pixels=True, batch_size=8, mix=SEEN),
        # Chinese on the easiest grids, where its words are learned in minutes.
        Phase(800, 2e-3, (4,), layers=8, turns=8, captioned=0.0, mix=CHINESE),
        Phase(700, 7e-4, (12, 24), layers=8, turns=24, captioned=0.5, pixels=True, batch_size=8, mix=SEEN),
    )
)

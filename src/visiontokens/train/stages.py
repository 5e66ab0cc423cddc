"""The two training stages of LLaVA and the compression schedules inside them.

What trains: in `align` the projector and the compressor, in `tune` also the language model. The vision tower never.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import nn

from visiontokens.compress.schedule import Schedule, Stage
from visiontokens.train.lora import MARK

StageName = Literal["align", "tune"]
STAGES: tuple[StageName, ...] = ("align", "tune")


class CountedSchedule(Schedule):
    """A schedule that may also be counted the way the released LLaVolta code counts.

    Without `pivots`, stages end at optimizer steps: exact under gradient accumulation and after a
    resume. With `pivots`, one count is made per forward pass and stage i is left after the forward whose number (from
    0) is `pivots[i]`, so the first stage lasts one forward longer than its pivot says; see `official_stage`.
    """

    pivots: tuple[int, ...] = Field(default=())

    @model_validator(mode="after")
    def _one_pivot_per_switch(self) -> Self:
        if self.pivots and len(self.pivots) != len(self.stages) - 1:
            raise ValueError(
                f"expected {len(self.stages) - 1} pivots for {len(self.stages)} stages, found {self.pivots}"
            )
        if any(pivot < 1 for pivot in self.pivots):
            raise ValueError(f"pivots must be at least 1, found {self.pivots}")
        return self

    def stage(self, step: int, total: int, forward: int, epochs: float = 1.0) -> Stage:
        """Return the stage of optimizer step `step` of `total`, whose next forward pass has number `forward`."""
        if self.pivots:
            return self.stages[official_stage(forward, self.pivots, [stage.stride for stage in self.stages])]
        return self.at(step, total, epochs)


def official_stage(forward: int, pivots: Sequence[int], strides: Sequence[int]) -> int:
    """Return the stage number that forward pass `forward` (from 0) uses in the released LLaVolta code.

    After forward n > 0, if n is a multiple of the current pivot and the current stride is above 1, the next stage
    and pivot are taken; after the last pivot nothing changes any more. (A multiple, not "at least": a pivot below
    its predecessor is reached at its next multiple.)
    """
    stage = 0
    for done in range(1, forward):
        if stage < len(pivots) and strides[stage] > 1 and done % pivots[stage] == 0:
            stage += 1
    return stage


def load_schedule(name: str, folder: str | Path) -> CountedSchedule | None:
    """Read `<folder>/<name>.yaml`; an empty name is no schedule.

    Raises:
        FileNotFoundError: no such schedule.
        ValueError: malformed; the message names the file.
    """
    return CountedSchedule.from_yaml(Path(folder) / f"{name}.yaml") if name else None


def freeze_for(model: nn.Module, stage: StageName) -> list[str]:
    """Set `requires_grad` for a stage and return the names of the parameters that train.

    Where the language model has low-rank adapters, they train in its place.

    Raises:
        ValueError: an unknown stage, or nothing would train.
    """
    if stage not in STAGES:
        raise ValueError(f"stage: expected one of {STAGES}, found {stage!r}")
    names = []
    adapted = any(f".{MARK}" in name for name, _ in model.named_parameters())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_trains(name, stage, adapted))
        if parameter.requires_grad:
            names.append(name)
    if not names:
        raise ValueError(f"stage {stage}: expected parameters of a projector or compressor, found none")
    return names


def _trains(name: str, stage: StageName, adapted: bool) -> bool:
    parts = name.split(".")
    if "vision_tower" in parts:
        return False
    if "multi_modal_projector" in parts or "compressor" in parts:
        return True
    return stage == "tune" and (not adapted or f".{MARK}" in name)

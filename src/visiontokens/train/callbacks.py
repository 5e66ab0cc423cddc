"""Trainer callbacks: the stage schedule, the per-step log, and the mark of a complete checkpoint."""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from visiontokens.compress.schedule import Stage
from visiontokens.data.progress import Progress
from visiontokens.provenance import write_json
from visiontokens.train.processes import StopRequest, total, wait_for_all
from visiontokens.train.records import MARK
from visiontokens.train.stages import CountedSchedule

log = logging.getLogger(__name__)


@dataclass
class Meter:
    """What this process's trainer measured since the last optimizer step (`loss` is times the processes)."""

    loss: float = 0.0
    tokens: int = 0
    forwards: int = 0
    stage: Stage | None = None

    def reset(self) -> None:
        """Start counting the next step; the stage stays."""
        self.loss, self.tokens, self.forwards = 0.0, 0, 0


class StageSwitch:
    """Sets the compressor's stage before every forward pass, from the step alone: nothing to lose on resume.

    Args:
        compressor: has `set_stage`.
        schedule: None = no stages.
        accumulation: forward passes per optimizer step (for official counting).
        epochs: passes over the data in the whole run.
    """

    def __init__(
        self, compressor: Any, schedule: CountedSchedule | None, accumulation: int, epochs: float = 1.0
    ) -> None:
        self._compressor, self._schedule = compressor, schedule
        self._accumulation, self._epochs = accumulation, epochs

    def __call__(self, step: int, total: int, micro: int) -> Stage | None:
        """Set and return the stage of micro-batch `micro` of optimizer step `step` of `total`."""
        if self._schedule is None:
            return None
        stage = self._schedule.stage(step, total, step * self._accumulation + micro, self._epochs)
        self._compressor.set_stage(stage)
        return stage


class StepLog(TrainerCallback):
    """Sums up what all processes did in an optimizer step; the first one logs it, and all stop if one was asked to.

    One line goes to `log.jsonl` after every step, and progress to the log every few seconds.

    Args:
        path: the `log.jsonl`.
        meter: of this process.
        label: begins every progress line.
        request: noted signals of this process.
        first: whether this process writes.
        every: seconds between progress lines.
    """

    def __init__(
        self, path: Path, meter: Meter, label: str, request: StopRequest, *, first: bool = True, every: float = 5.0
    ) -> None:
        self._path, self._meter, self._label, self._every = path, meter, label, every
        self._request, self._first = request, first
        self._progress: Progress | None = None
        self._wall = self._cpu = 0.0
        self._lr = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clocks."""
        if self._first:
            self._progress = Progress(log, self._label, state.max_steps, state.global_step, self._every)
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the learning rate that this step uses."""
        self._lr = float(kwargs["optimizer"].param_groups[0]["lr"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the line of the step just done, and end with a checkpoint if any process was asked to."""
        wall, cpu = time.perf_counter(), time.process_time()
        mine = [self._meter.loss, self._meter.tokens, cpu - self._cpu, self._request.asked]
        loss, tokens, cpu_seconds, asked = total(mine, args.device)
        if asked:
            control.should_save = control.should_training_stop = True
        if self._first:
            self._write(state.global_step, loss / args.world_size, int(tokens), wall - self._wall, cpu_seconds)
        self._wall, self._cpu = wall, cpu
        self._meter.reset()

    def _write(self, step: int, loss: float, tokens: int, seconds: float, cpu_seconds: float) -> None:
        stage = self._meter.stage
        compressed = stage is not None and stage.stride > 1
        row = {
            "step": step,
            "loss": loss,
            "lr": self._lr,
            "tokens": tokens,
            "seconds": round(seconds, 4),
            "cpu_seconds": round(cpu_seconds, 4),
            "stage_layer": str(stage.layer) if compressed and stage is not None else None,
            "stage_stride": stage.stride if compressed and stage is not None else None,
        }
        with self._path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        if self._progress is not None:
            where = f"  K,S {row['stage_layer']},{row['stage_stride']}" if compressed else ""
            self._progress.advance(1, f"loss {row['loss']:.4f}  lr {row['lr']:.2e}{where}")


class CheckpointMark(TrainerCallback):
    """Marks a checkpoint as complete once all processes' files are written, and only then removes older ones."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the mark into the checkpoint of the current step."""
        wait_for_all()
        if not state.is_world_process_zero:
            return
        newest = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        write_json(newest / MARK, {"step": state.global_step})
        for folder in newest.parent.glob("checkpoint-*"):
            if folder != newest:
                shutil.rmtree(folder)

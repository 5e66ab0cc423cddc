"""Trainer callbacks: the stage schedule, the per-step log, and the mark of a complete checkpoint."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from visiontokens.compress.schedule import Stage
from visiontokens.data.progress import Progress
from visiontokens.models.load import Load
from visiontokens.provenance import write_json
from visiontokens.seals import seal
from visiontokens.train.processes import StopRequest, total, wait_for_all
from visiontokens.train.records import MARK
from visiontokens.train.speed import Peak
from visiontokens.train.stages import CountedSchedule

log = logging.getLogger(__name__)


@dataclass
class Meter:
    """What this process's trainer measured since the last optimizer step (`loss` is times the processes)."""

    loss: float = 0.0
    tokens: int = 0
    forwards: int = 0
    load: Load = field(default_factory=Load)
    flops: float = 0.0
    stage: Stage | None = None

    def reset(self) -> None:
        """Start counting the next step; the stage stays."""
        self.loss, self.tokens, self.forwards = 0.0, 0, 0
        self.load, self.flops = Load(), 0.0


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

    One line goes to `log.jsonl` after every step, and progress to the log every few seconds. `lm_tokens` are the tokens
    that entered the language model (vision tokens too) and `padding` the share of its slots that held none;
    `tokens_per_second` and `mfu` are those of all processes together.

    Args:
        path: the `log.jsonl`.
        meter: of this process.
        label: begins every progress line.
        request: noted signals of this process.
        peak: of one process's device.
        first: whether this process writes.
        every: seconds between progress lines.
    """

    def __init__(
        self,
        path: Path,
        meter: Meter,
        label: str,
        request: StopRequest,
        peak: Peak,
        *,
        first: bool = True,
        every: float = 5.0,
    ) -> None:
        self._path, self._meter, self._label, self._every = path, meter, label, every
        self._request, self._peak, self._first = request, peak, first
        self._progress: Progress | None = None
        self._wall = self._cpu = 0.0
        self._lr = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clocks."""
        if self._first:
            log.info("%s: MFU is relative to %.3g FLOP/s (%s)", self._label, self._peak.flops, self._peak.source)
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
        meter = self._meter
        mine = [meter.loss, meter.tokens, meter.load.tokens, meter.load.slots, meter.flops, cpu - self._cpu]
        *sums, asked = total([*mine, self._request.asked], args.device)
        if asked:
            control.should_save = control.should_training_stop = True
        if self._first:
            self._write(state.global_step, sums, wall - self._wall, args.world_size)
        self._wall, self._cpu = wall, cpu
        self._meter.reset()

    def _write(self, step: int, sums: Sequence[float], seconds: float, processes: int) -> None:
        """Write the line of a step from sums over processes, in the order of `on_step_end`."""
        loss, tokens, lm_tokens, slots, flops, cpu_seconds = sums
        stage = self._meter.stage
        compressed = stage is not None and stage.stride > 1
        row = {
            "step": step,
            "loss": loss / processes,
            "lr": self._lr,
            "tokens": int(tokens),
            "seconds": round(seconds, 4),
            "cpu_seconds": round(cpu_seconds, 4),
            "lm_tokens": int(lm_tokens),
            "padding": round(1 - lm_tokens / slots, 4) if slots else 0.0,
            "tokens_per_second": round(lm_tokens / seconds, 1),
            "mfu": round(flops / seconds / (self._peak.flops * processes), 6),
            "stage_layer": str(stage.layer) if compressed and stage is not None else None,
            "stage_stride": stage.stride if compressed and stage is not None else None,
        }
        with self._path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        if self._progress is not None:
            where = f"  K,S {row['stage_layer']},{row['stage_stride']}" if compressed else ""
            speed = f"{row['tokens_per_second']:.0f} tokens/s  MFU {row['mfu']:.1%}  padding {row['padding']:.0%}"
            self._progress.advance(1, f"loss {row['loss']:.4f}  lr {row['lr']:.2e}  {speed}{where}")


class CheckpointMark(TrainerCallback):
    """Marks a checkpoint as complete once all processes' files are written, and only then removes older ones."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the mark into the checkpoint of the current step."""
        wait_for_all()
        if not state.is_world_process_zero:
            return
        newest = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        seal(newest)
        write_json(newest / MARK, {"step": state.global_step})
        for folder in newest.parent.glob("checkpoint-*"):
            if folder != newest:
                shutil.rmtree(folder)

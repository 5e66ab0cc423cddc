"""The Trainer's arguments from a stage's settings, and DeepSpeed's configuration with them."""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from visiontokens.data.precision import use_bf16
from visiontokens.data.ranks import accumulation
from visiontokens.provenance import read_json
from visiontokens.train.processes import Processes, pose_as_launched

CHECKPOINTING = {"use_reentrant": False, "determinism_check": "none"}
"""Non-reentrant, which distributed wrappers need. The check compares shapes, and under ZeRO-3 a weight is empty outside
its layer's forward, so it would refuse what is right."""
BATCH_KEYS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")


def deepspeed_config(path: Path | None) -> dict[str, Any] | None:
    """Read a DeepSpeed configuration; what it leaves to the settings must say `auto`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a JSON object, no ZeRO stage, its own optimizer or scheduler, or sizes that are set elsewhere.
    """
    if path is None:
        return None
    config = read_json(path)
    stage = config.get("zero_optimization", {}).get("stage") if isinstance(config, dict) else None
    if stage not in (1, 2, 3):
        raise ValueError(f"{path}: key 'zero_optimization.stage': expected 1, 2 or 3, found {stage!r}")
    for key in ("optimizer", "scheduler"):
        if key in config:
            raise ValueError(f"{path}: key {key!r}: expected none (both come from the settings of the stage)")
    for key in (*BATCH_KEYS, "gradient_clipping"):
        if config.get(key, "auto") != "auto":
            raise ValueError(f"{path}: key {key!r}: expected 'auto' (the stage's settings decide), found {config[key]}")
    return config


def prepare_deepspeed(path: Path, device: str) -> None:
    """Check that DeepSpeed is there and set it up for the device, before it is imported.

    Raises:
        ValueError: it is not installed.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise ValueError(
            f"deepspeed: {path} needs the package deepspeed, found it not installed (extra 'train'; see docs/slurm.md)"
        )
    pose_as_launched()
    if device != "cpu":
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed.ops

    # Its shared-memory collectives would be compiled at the first start; gloo does the same without a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def arguments(
    settings: Any, folder: Path, seed: int, steps: int, *, device: str, processes: Processes | None = None
) -> TrainingArguments:
    """Return the Trainer's arguments for stage settings (`TrainStageConfig`).

    Raises:
        ValueError: `batch_size` does not divide among micro-batches and processes; see also `deepspeed_config`.
    """
    processes = processes or Processes()
    sharded: dict[str, Any] = {}
    config = deepspeed_config(settings.deepspeed)
    if config is not None:
        prepare_deepspeed(settings.deepspeed, device)
        sharded = {"deepspeed": config, "bf16": use_bf16(settings.precision, device)}
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=accumulation(settings.batch_size, settings.micro_batch_size, processes.count),
        max_steps=steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(settings.warmup_ratio * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=seed,
        use_cpu=device == "cpu",
        tf32=True if settings.tf32 and device != "cpu" else None,
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs=CHECKPOINTING,
        save_strategy="steps" if settings.save_every else "no",
        save_steps=settings.save_every or steps,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=device != "cpu",
        ddp_find_unused_parameters=False,
        **sharded,
    )

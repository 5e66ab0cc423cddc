"""The training loop: a thin subclass of the Hugging Face Trainer with exact resume, for one process or many."""

from __future__ import annotations

import logging
import math
import re
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from visiontokens.data.precision import autocast, use_bf16
from visiontokens.data.ranks import RankBatches, WithFillers
from visiontokens.data.sampler import RunSampler
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.train.arguments import arguments
from visiontokens.train.callbacks import CheckpointMark, Meter, StageSwitch, StepLog
from visiontokens.train.processes import Processes, Stopped, StopRequest, disconnect, from_first, wait_for_all
from visiontokens.train.records import newest_checkpoint, trim_log
from visiontokens.train.speed import Peak, peak_flops, step_flops
from visiontokens.train.weights import (
    Weights,
    gather_trained_weights,
    load_trained_weights,
    parameter_groups,
    trained_weights,
)

log = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
FULL = re.compile("iostream error|unexpected pos|file write failed|PytorchStreamWriter")
"""How torch's writer words that a file cannot grow."""


class StageTrainer(Trainer):
    """The Trainer with our batch order, loss, schedule and checkpoints.

    The loss of an optimizer step is the weighted mean over all its target tokens, however they are spread over
    micro-batches and processes; a compressor's variants (M3's scales) are averaged.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        batches: RankBatches,
        switch: StageSwitch,
        precision: str,
        connector_lr: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model=model, args=args, **kwargs)
        self.connector_lr = connector_lr
        self.network = model
        self.batches, self.switch, self.precision = batches, switch, precision
        self.meter = Meter()
        self.loss_is_scaled_for_ga = True

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return this process's micro-batches; Accelerate would deal out others and repeat samples at the end."""
        return DataLoader(
            WithFillers(self.train_dataset),  # type: ignore[arg-type]
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return AdamW over what trains; the compressor names its own parameter groups."""
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(
                parameter_groups(
                    self.network, float(self.args.learning_rate), self.args.weight_decay, self.connector_lr
                ),
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
            )
        return self.optimizer

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor:
        """Return the total weight of the target tokens of one optimizer step, over all processes."""
        total = torch.stack([target_weight(batch) for batch in batch_samples]).sum().to(device)
        return self.accelerator.gather(total).sum() if self.args.world_size > 1 else total

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the share of the step's loss that this micro-batch, in the variant set, has.

        It is taken times the processes, whose gradients are averaged.
        """
        with autocast(self.precision, str(self.args.device)):
            outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
        loss = outputs["loss"] * self.args.world_size / len(self._variants())
        return (loss, outputs) if return_outputs else loss

    def _variants(self) -> list[dict[str, Any]]:
        """Return the compressor's settings whose losses are averaged; one for most methods."""
        compressor = getattr(self.network, "compressor", None)
        return [{}] if compressor is None else compressor.variants()

    def _variant_steps(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any) -> Tensor:
        """Run forward and backward of every variant in turn, so that one graph is alive at a time; sum the losses.

        Processes exchange gradients, and DeepSpeed counts a step, with the last variant only.
        """
        variants = self._variants()
        if len(variants) == 1:
            return super().training_step(model, inputs, num_items_in_batch)
        compressor: Any = self.network.compressor
        losses, boundary = [], self.accelerator.sync_gradients
        for number, variant in enumerate(variants, 1):
            last = number == len(variants)
            compressor.use_variant(variant)
            self.accelerator.sync_gradients = boundary and last
            with nullcontext() if last else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, inputs, num_items_in_batch))
        compressor.use_variant({})
        return torch.stack(losses).sum()

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Set the stage, run forward and backward, and meter both."""
        meter = self.meter
        meter.stage = self.switch(self.state.global_step, self.state.max_steps, meter.forwards)
        tokens = int(inputs["attention_mask"].sum())
        loss = self._variant_steps(model, inputs, num_items_in_batch)
        meter.loss += float(loss)
        meter.tokens += tokens
        if isinstance(self.network, LlavaWithCompressor):
            load = self.network.load.take()
            meter.load.add(load)
            meter.flops += step_flops(self.network, load)
        meter.forwards += 1
        return loss

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint; torch's writer does not say that a disk is full, so we do."""
        try:
            super()._save_checkpoint(model, trial)
        except RuntimeError as err:
            if not FULL.search(str(err)):
                raise
            folder = str(self.args.output_dir)
            free = shutil.disk_usage(folder).free
            raise OSError(f"{folder}: no checkpoint can be written, {free} bytes are free there ({err})") from err

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights of a checkpoint, unless DeepSpeed writes them with the optimizer's state anyway."""
        if not self.is_deepspeed_enabled and self.args.should_save:
            self._save(output_dir)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the weights that train, under their own names (the frozen rest is in the start weights)."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained_weights(self.network, state_dict), folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load them back; every name must match."""
        load_trained_weights(model or self.network, Path(resume_from_checkpoint) / WEIGHTS)


def target_weight(batch: dict[str, Tensor]) -> Tensor:
    """Return the summed loss weight of a batch's targets (the first token of a row is never predicted)."""
    if "loss_weights" in batch:
        return batch["loss_weights"][:, 1:].sum()
    return (batch["labels"][:, 1:] != -100).sum().float()


def fit(
    model: nn.Module,
    dataset: Any,
    collator: Any,
    settings: Any,
    run_dir: Path,
    *,
    seed: int,
    lengths: Sequence[int],
    schedule: Any = None,
    device: str = "cpu",
    label: str = "train",
) -> Weights | None:
    """Train `model`; continue from the run folder's newest complete checkpoint if there is one.

    Below `torchrun`, every process calls it. The batches, and up to rounding the results, do not depend on their
    number.

    Args:
        model: with `requires_grad` set for the stage.
        dataset: map-style samples.
        collator: samples to model inputs.
        settings: a `TrainStageConfig`.
        run_dir: holds `log.jsonl` and `checkpoints/`.
        seed: fixes batch order and torch's generator.
        lengths: signed sample lengths for grouping.
        schedule: a `CountedSchedule` or None.
        device: `cpu` or `cuda`.
        label: begins every progress line.

    Returns:
        None: the model is trained in place. Below DeepSpeed, which takes the model apart, the trained weights in fp32
        by name instead (empty in all processes but the first).

    Raises:
        Stopped: a signal asked to stop; the work so far is in a checkpoint.
    """
    processes = Processes.from_environment()
    order = RunSampler(lengths, settings.batch_size, seed, settings.epochs)
    steps = math.ceil(len(order) / settings.batch_size)
    args = arguments(settings, run_dir / "checkpoints", seed, steps, device=device, processes=processes)
    compressor = getattr(model, "compressor", None)
    trainer = StageTrainer(
        model,
        args,
        batches=RankBatches(
            list(order),
            lengths,
            settings.batch_size,
            settings.micro_batch_size,
            processes=processes.count,
            rank=processes.rank,
        ),
        switch=StageSwitch(compressor, schedule, args.gradient_accumulation_steps, settings.epochs),
        precision=settings.precision,
        connector_lr=settings.connector_learning_rate,
        train_dataset=dataset,
        data_collator=collator,
    )
    dtype = torch.bfloat16 if use_bf16(settings.precision, device) else torch.float32
    _run(trainer, run_dir, label, processes, peak_flops(torch.device(device), dtype))
    whole = gather_trained_weights(model, keep=processes.first) if trainer.is_deepspeed_enabled else None
    disconnect()
    if schedule is not None:
        model.compressor.set_stage(None)  # type: ignore[union-attr,operator]
    return whole


def _run(trainer: StageTrainer, run_dir: Path, label: str, processes: Processes, peak: Peak) -> None:
    """Train from the newest checkpoint to the end, or to a request to stop."""
    for unwanted in list(trainer.callback_handler.callbacks):
        if type(unwanted).__name__ in ("PrinterCallback", "ProgressCallback"):
            trainer.remove_callback(unwanted)
    request = StopRequest()
    trainer.add_callback(StepLog(run_dir / "log.jsonl", trainer.meter, label, request, peak, first=processes.first))
    trainer.add_callback(CheckpointMark())
    start = from_first(newest_checkpoint(run_dir / "checkpoints") if processes.first else None)
    if processes.first:
        trim_log(run_dir / "log.jsonl", int(start.name.rsplit("-", 1)[1]) if start else 0)
    if start and processes.first:
        log.info("%s: continuing from %s", label, start)
    with request:
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    step, steps = trainer.state.global_step, trainer.state.max_steps
    if step < steps:
        wait_for_all()  # torchrun ends the other processes as soon as one has ended
        raise Stopped(f"{label}: stopped on request after step {step} of {steps}; started again, it continues there")


def discard_checkpoints(run_dir: Path) -> None:
    """Remove the rolling checkpoints of a finished run; its log and identity stay."""
    shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)

"""The training loop: a thin subclass of the Hugging Face Trainer with exact resume."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments

from visiontokens.data.precision import autocast, use_bf16
from visiontokens.data.sampler import RunSampler
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.train.callbacks import CheckpointMark, Meter, StageSwitch, StepLog
from visiontokens.train.records import newest_checkpoint, trim_log
from visiontokens.train.speed import peak_flops, step_flops

log = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
CHECKPOINTING = {"use_reentrant": False, "determinism_check": "none"}
"""Non-reentrant, which distributed wrappers need. The check compares shapes, and under ZeRO-3 a weight is empty outside
its layer's forward, so it would refuse what is right."""


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
        order: RunSampler,
        switch: StageSwitch,
        precision: str,
        connector_lr: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model=model, args=args, **kwargs)
        self.connector_lr = connector_lr
        self.network = model
        self.order, self.switch, self.precision = order, switch, precision
        self.meter = Meter()
        self.loss_is_scaled_for_ga = True

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.order

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
        """Return this micro-batch's share of the step's loss."""
        compressor = getattr(self.accelerator.unwrap_model(model), "compressor", None)
        variants = compressor.variants() if compressor is not None else [{}]
        losses = []
        with autocast(self.precision, str(self.args.device)):
            for variant in variants:
                if compressor is not None:
                    compressor.use_variant(variant)
                outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
                losses.append(outputs["loss"] * self.args.world_size)
        loss = torch.stack(losses).mean()
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Set the stage, run forward and backward, and meter both."""
        meter = self.meter
        meter.stage = self.switch(self.state.global_step, self.state.max_steps, meter.forwards)
        tokens = int(inputs["attention_mask"].sum())
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        meter.loss += float(loss)
        meter.tokens += tokens
        if isinstance(self.network, LlavaWithCompressor):
            load = self.network.load.take()
            meter.load.add(load)
            meter.flops += step_flops(self.network, load)
        meter.forwards += 1
        return loss

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


def trained_weights(model: nn.Module, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the parameters that train, by name (tied ones once), detached and contiguous."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {name: (state[name] if state else p).detach().contiguous() for name, p in named.items()}


def load_trained_weights(model: nn.Module, path: Path) -> None:
    """Copy saved weights into the model.

    Raises:
        ValueError: names or shapes differ from what the model trains.
    """
    saved, own = load_file(path), {name: p for name, p in model.named_parameters() if p.requires_grad}
    wrong = sorted(saved.keys() ^ own.keys()) or [n for n in own if own[n].shape != saved[n].shape]
    if wrong:
        raise ValueError(
            f"{path}: expected the {len(own)} weights that train, found {len(saved)}; differing: {wrong[:3]}"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(saved[name])


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, connector_lr: float | None = None
) -> list[dict[str, Any]]:
    """Return optimizer groups: matrices with weight decay, vectors without, and the compressor's own.

    Projector and compressor learn at `connector_lr`, if given.
    """
    connector_lr = lr if connector_lr is None else connector_lr
    compressor = getattr(model, "compressor", None)
    own = compressor.parameter_groups(connector_lr) if compressor is not None else []
    taken = {id(p) for group in own for p in group["params"]}
    rest = [(n, p) for n, p in model.named_parameters() if p.requires_grad and id(p) not in taken]
    groups = []
    for connects, rate in ((False, lr), (True, connector_lr)):
        params = [p for name, p in rest if ("multi_modal_projector" in name) == connects]
        groups += [
            {"params": [p for p in params if p.ndim >= 2], "lr": rate, "weight_decay": weight_decay},
            {"params": [p for p in params if p.ndim < 2], "lr": rate, "weight_decay": 0.0},
        ]
    return [group for group in groups if group["params"]] + [{"weight_decay": weight_decay, **group} for group in own]


def arguments(settings: Any, folder: Path, seed: int, steps: int, *, device: str) -> TrainingArguments:
    """Return the Trainer's arguments for stage settings (`TrainStageConfig`).

    Raises:
        ValueError: `batch_size` is not a multiple of `micro_batch_size`.
    """
    batch, micro = settings.batch_size, settings.micro_batch_size
    if batch % micro:
        raise ValueError(f"batch_size: expected a multiple of micro_batch_size {micro}, found {batch}")
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=batch // micro,
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
    )


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
) -> None:
    """Train `model` in place; continue from the run folder's newest complete checkpoint if there is one.

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
    """
    order = RunSampler(lengths, settings.batch_size, seed, settings.epochs)
    steps = math.ceil(len(order) / settings.batch_size)
    args = arguments(settings, run_dir / "checkpoints", seed, steps, device=device)
    compressor = getattr(model, "compressor", None)
    switch = StageSwitch(compressor, schedule, args.gradient_accumulation_steps, settings.epochs)
    trainer = StageTrainer(
        model,
        args,
        order=order,
        switch=switch,
        precision=settings.precision,
        connector_lr=settings.connector_learning_rate,
        train_dataset=dataset,
        data_collator=collator,
    )
    for unwanted in list(trainer.callback_handler.callbacks):
        if type(unwanted).__name__ in ("PrinterCallback", "ProgressCallback"):
            trainer.remove_callback(unwanted)
    dtype = torch.bfloat16 if use_bf16(settings.precision, device) else torch.float32
    trainer.add_callback(StepLog(run_dir / "log.jsonl", trainer.meter, label, peak_flops(torch.device(device), dtype)))
    trainer.add_callback(CheckpointMark())
    start = newest_checkpoint(run_dir / "checkpoints")
    trim_log(run_dir / "log.jsonl", int(start.name.rsplit("-", 1)[1]) if start else 0)
    if start:
        log.info("%s: continuing from %s", label, start)
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    if schedule is not None:
        model.compressor.set_stage(None)  # type: ignore[union-attr,operator]


def discard_checkpoints(run_dir: Path) -> None:
    """Remove the rolling checkpoints of a finished run; its log and identity stay."""
    shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)

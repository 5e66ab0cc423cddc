"""Training one stage (align or tune) of one experiment, from configuration to `model.safetensors` and `record.json`."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from visiontokens.compress.base import Compressor, MethodSpec, lookup
from visiontokens.config import Config, TrainStageConfig
from visiontokens.config.tables import read_experiments
from visiontokens.data.class_states import open_sets
from visiontokens.data.encoders import FastEncoder
from visiontokens.data.images import Preprocessor
from visiontokens.data.instruct import Collator, FeatureSource, ImageSource, InstructDataset, PixelSource
from visiontokens.data.precision import use_bf16
from visiontokens.data.videos import TRAIN_SET, split_key
from visiontokens.models.build import build_model, load_model, save_model, save_processors, weights_hash
from visiontokens.models.kernels import Kernel, choose_kernel, use_kernel
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.provenance import read_json, sha256_file, write_json
from visiontokens.train.arguments import deepspeed_config
from visiontokens.train.loop import discard_checkpoints, fit
from visiontokens.train.lora import add_lora, merge_lora
from visiontokens.train.processes import Processes
from visiontokens.train.records import claim, final_record, read_log
from visiontokens.train.stages import CountedSchedule, StageName, freeze_for, load_schedule
from visiontokens.train.weights import put_trained_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One stage of one experiment with one seed, resolved."""

    config: Config
    experiment: str
    seed: int
    stage: StageName
    init: Path | None
    method: MethodSpec
    schedule: CountedSchedule | None
    device: str

    @property
    def settings(self) -> TrainStageConfig:
        """The stage's settings."""
        return self.config.train.align if self.stage == "align" else self.config.train.tune

    @property
    def kernel(self) -> Kernel:
        """The attention kernel of this run."""
        bf16 = use_bf16(self.settings.precision, self.device)
        dtype = torch.bfloat16 if bf16 else torch.float32
        return choose_kernel(self.settings.attention, torch.device(self.device), dtype, lookup(self.method.name))

    @property
    def packed(self) -> bool:
        """Whether samples share rows: asked for, and possible with the method."""
        return self.settings.packing and lookup(self.method.name).packable

    @property
    def label(self) -> str:
        """Begins every log line."""
        return f"{self.experiment} {self.stage} s{self.seed}"


def train_stage(
    config: Config,
    experiment: str,
    seed: int,
    stage: StageName,
    *,
    run_dir: str | Path,
    out: str | Path,
    init: str | Path | None = None,
) -> Path:
    """Train one stage and return the path of its `record.json`.

    A killed run that is started again with the same arguments continues at its last checkpoint and ends with the
    same weights, bit by bit, as one that was never stopped. Below `torchrun` every process calls this, and the first
    one writes.

    Args:
        config: the run's settings.
        experiment: a trained row of the experiment table.
        seed: fixes initialisation, batch order and every draw.
        stage: `align` (projector and compressor) or `tune` (language model too).
        run_dir: work folder for checkpoints, `run.json` and `log.jsonl`; not an output.
        out: receives `config.json`, `model.safetensors`, tokenizer, image settings, `log.jsonl` and, last,
            `record.json`.
        init: the align stage's `out`; tune without it starts from a fresh projector.

    Raises:
        ConfigError, FileNotFoundError, RecordError, FeatureError: something the run needs is missing or malformed.
        ResumeError: `run_dir` belongs to a run with other settings, or of another number of processes.
        Stopped: a signal asked the run to stop; see `fit`.
    """
    run_dir, out = Path(run_dir), Path(out)
    torch.set_num_threads(config.threads)
    run = _resolve(config, experiment, seed, stage, None if init is None else Path(init))
    processes = Processes.from_environment()
    identity = _identity(run, processes)
    claim(run_dir, identity, write=processes.first)
    model = _model(run)
    use_kernel(model, run.kernel)
    if run.settings.packing and not run.packed:
        log.info("%s: not packed, method %r looks at whole rows", run.label, run.method.name)
    trained = freeze_for(model, stage)
    dataset, collator = _data(run, model)
    log.info("%s: %d samples, %d tensors train%s", run.label, len(dataset), len(trained), _stages(run.schedule))
    gathered = fit(
        model, dataset, collator, run.settings, run_dir, seed=seed, lengths=dataset.lengths, schedule=run.schedule,
        device=run.device, label=run.label,
    )  # fmt: skip
    if not processes.first:
        return out / "record.json"
    if gathered is not None:  # the frozen rest comes from the start weights, in their own precision
        model = _model(run)
        freeze_for(model, stage)
        put_trained_weights(model, gathered, str(run_dir))
    model.config.compressor = run.method.to_config()
    save_processors(config.backbones.tower, config.backbones.llm, out)
    if run.settings.saved_precision == "bf16":
        model.to(torch.bfloat16)  # type: ignore[arg-type]
    return _finish(model, identity, run_dir, out)


def _resolve(config: Config, experiment: str, seed: int, stage: StageName, init: Path | None) -> Run:
    """Look up what an experiment trains with (schedules belong to the tune stage)."""
    table = config.experiments.table
    rows = read_experiments(table)
    if experiment not in rows or not rows[experiment].trained:
        trained = [name for name, row in rows.items() if row.trained]
        raise ValueError(f"{table}: expected a trained experiment, found {experiment!r}; trained: {', '.join(trained)}")
    row = rows[experiment]
    method = MethodSpec.from_yaml(table.parent / "methods" / f"{row.train_method}.yaml")
    schedule = load_schedule(row.schedule, table.parent / "schedules") if stage == "tune" else None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Run(config, experiment, seed, stage, init, method, schedule, device)


def staged_method(method: MethodSpec) -> MethodSpec:
    """Return what a stage schedule acts on: for plain LLaVA the parameter-free visual context compressor, at rest.

    Raises:
        ValueError: a method that has no stages.
    """
    if method.name == "none":
        return MethodSpec(name="vcc", params={"stride": 1})
    if lookup(method.name).set_stage is Compressor.set_stage:
        raise ValueError(f"method {method.name!r} has no stages; a schedule needs 'none' or a method that has")
    return method


def _model(run: Run) -> LlavaWithCompressor:
    method = run.method if run.schedule is None else staged_method(run.method)
    if run.init is not None:
        model = load_model(run.init, method)
    else:
        backbones = run.config.backbones
        model = build_model(backbones.tower, backbones.llm, method, run.seed, llm_layers=backbones.llm_layers)
    if run.settings.lora is not None and run.stage == "tune":
        add_lora(model, run.settings.lora, run.seed)
    return model


def _identity(run: Run, processes: Processes) -> dict[str, Any]:
    """Return everything the resulting weights depend on (how often checkpoints are written is not among it).

    The number of processes is part of it: it decides how sums are rounded, and into how many shares ZeRO cuts a state.
    """
    folders = {"tower": run.config.backbones.tower, "llm": run.config.backbones.llm}
    if run.init is not None:
        folders["init"] = run.init
    annotations = run.config.data_dir / run.settings.annotations
    return {
        "experiment": run.experiment,
        "stage": run.stage,
        "seed": run.seed,
        "scale": run.config.scale,
        "method": run.method.to_config(),
        "schedule": run.schedule.model_dump(mode="json") if run.schedule else None,
        "settings": run.settings.model_dump(mode="json", exclude={"save_every"}),
        "bf16": use_bf16(run.settings.precision, run.device),
        "attention": run.kernel.name,
        "packed": run.packed,
        "device": run.device,
        "threads": run.config.threads,
        "processes": processes.count,
        "deepspeed": deepspeed_config(run.settings.deepspeed),
        "data_hash": sha256_file(annotations),
        "llm_layers": run.config.backbones.llm_layers,
        "weights": {name: weights_hash(folder) for name, folder in folders.items()},
    } | ({"frames": run.config.video.frames} if _names_videos(annotations) else {})


def _names_videos(annotations: Path) -> bool:
    """Return whether an annotation file has records with a video, without reading it as JSON."""
    with annotations.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b'"video"') >= 0


def _data(run: Run, model: LlavaWithCompressor) -> tuple[InstructDataset, Collator]:
    """Return the stage's samples and collator; all images are checked to be there."""
    from transformers import AutoTokenizer

    config, settings = run.config, run.settings
    encoder = FastEncoder(AutoTokenizer.from_pretrained(config.backbones.llm))
    dataset = InstructDataset(
        config.data_dir / settings.annotations,
        encoder,
        model.config.image_token_id,
        settings.template,
        isolate_turns=settings.isolate_turns,
        caption_weight=settings.caption_weight,
        samples=settings.samples,
        frames=config.video.frames,
    )
    images = dataset.images
    source = _images(run, model, videos=any(map(split_key, images))) if images else None
    if source is not None:
        source.check(images, str(dataset.path))
    weighted = settings.caption_weight != 1.0
    unrolled = dataset.isolated and lookup(run.method.name).text_query
    return dataset, Collator(
        encoder.pad_id, source, segments=dataset.isolated, weighted=weighted, packed=run.packed, unrolled=unrolled
    )


def _images(run: Run, model: LlavaWithCompressor, *, videos: bool) -> ImageSource:
    """Return cached features where they exist and the method leaves the tower alone, else image and video files."""
    config, settings = run.config, run.settings
    tower = config.backbones.tower
    names = [settings.image_set, TRAIN_SET] if videos else [settings.image_set]
    folders = [config.data_dir / "features" / name for name in names]
    own_tower_pass = type(model.compressor).run_tower is not Compressor.run_tower
    if all((folder / "index.json").is_file() for folder in folders) and not own_tower_pass:
        method, made_by = model.compressor, sha256_file(tower / "model.safetensors")
        store = open_sets(folders, method.levels, method.class_levels, tower=made_by)
        return FeatureSource(store, settings.images.as_posix(), config.video.videos.as_posix())
    processor = Preprocessor.from_config(
        read_json(tower / "preprocessor_config.json"), pad=settings.template != "plain"
    )
    return PixelSource(config.data_dir / settings.images, processor, config.data_dir / config.video.videos)


def _stages(schedule: CountedSchedule | None) -> str:
    if schedule is None:
        return ""
    unit = {"run": " of the run"}.get(schedule.unit, f" {schedule.unit}")
    ends = ("the end" if s.until in {None, 1.0} else f"{s.until:g}{unit}" for s in schedule.stages)
    stages = zip(schedule.stages, ends, strict=True)
    return "; stages " + ", ".join(f"({s.layer}, {s.stride}) to {end}" for s, end in stages)


def _finish(model: LlavaWithCompressor, identity: Mapping[str, Any], run_dir: Path, out: Path) -> Path:
    """Write the outputs, the record last, and drop the checkpoints."""
    rows = read_log(run_dir / "log.jsonl")
    counts = {
        "total": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    merge_lora(model)
    save_model(model, out)
    (out / "log.jsonl").write_text((run_dir / "log.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    record = final_record(identity, rows, counts)
    record["weights_hash"] = sha256_file(out / "model.safetensors")
    write_json(out / "record.json", record)
    discard_checkpoints(run_dir)
    log.info("%s: done, loss %.4f, %.0f s", out, record["loss_last_tenth"], record["wall_seconds"])
    return out / "record.json"

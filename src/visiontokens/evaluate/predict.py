"""Predictions of one experiment: LLaVA answer records for every benchmark, resumable question by question."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from visiontokens.compress.base import MethodSpec
from visiontokens.config import Config, read_experiments
from visiontokens.data.benchmarks import FURTHER_SET, Benchmark, Example, find_benchmark, subset
from visiontokens.data.encoders import FastEncoder
from visiontokens.data.precision import autocast, use_bf16
from visiontokens.data.progress import Progress
from visiontokens.data.videos import TEST_SET, frame_keys
from visiontokens.evaluate.greedy import Greedy, Levels, Prompt, encode_question
from visiontokens.evaluate.images import LevelSource, level_source
from visiontokens.evaluate.methods import tested_method
from visiontokens.evaluate.predictions import VISION_TOKENS, PredictionWriter, answer_record, mean_vision_tokens
from visiontokens.models.build import load_model, weights_hash
from visiontokens.models.kernels import choose_kernel, use_kernel
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.models.processors import load_tokenizer
from visiontokens.provenance import sha256_file, sha256_json, stamp, write_json

log = logging.getLogger(__name__)

Group = list[tuple[Example, Prompt]]
"""The questions about one image."""


class Predictor:
    """Answers benchmark questions with one model and writes answer records.

    Args:
        model: the model under test, in eval mode.
        tokenizer: a fast tokenizer of `transformers`.
        data_dir: folder that feature paths are relative to.
        features: tower features of the test images.
        batch_size: questions per forward pass.
        max_new_tokens: longest answer.
        precision: auto, fp32 or bf16.
    """

    def __init__(
        self,
        model: LlavaWithCompressor,
        tokenizer: Any,
        data_dir: Path,
        features: LevelSource,
        *,
        batch_size: int,
        max_new_tokens: int,
        precision: str = "auto",
    ) -> None:
        self.model, self.tokenizer, self.encoder = model, tokenizer, FastEncoder(tokenizer)
        self.data_dir, self.features, self.batch_size, self.precision = data_dir, features, batch_size, precision
        self.greedy = Greedy(model, self.encoder, max_new_tokens, batch_size)
        self.counted = model.compressor.n_tokens(model.geometry.n_vision) is None
        self.vision_tokens: dict[str, int] = {}

    @property
    def benchmarks_dir(self) -> Path:
        """Folder of the official benchmark files."""
        return self.data_dir / "benchmarks"

    @classmethod
    def of(cls, config: Config, model: LlavaWithCompressor, *sets: str) -> Predictor:
        """Return the predictor that a configuration asks for, for the images of some sets (errors: `level_source`)."""
        settings = config.evaluate
        return cls(
            model,
            load_tokenizer([Path(str(model.name_or_path)), config.backbones.llm]),
            config.data_dir,
            level_source(config, model, *sets),
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
            precision=settings.precision,
        )

    def answers(
        self, examples: Sequence[Example], locate: Callable[[Example], str], frames: int = 0
    ) -> Iterator[list[tuple[Example, str]]]:
        """Yield batches of examples with their answers, questions about one image or video together.

        `locate` names the path under which an example's image is in the feature store. With `frames` the paths are
        those of videos, of which so many frames are read. Where the number of vision tokens depends on the image,
        `vision_tokens` holds it by question id afterwards.
        """
        for batch in self._batches(examples):
            image = batch[0][0][0].image is not None
            levels = self._levels([locate(group[0][0]) for group in batch], frames) if image else None
            prompts = [[prompt for _, prompt in group] for group in batch]
            with autocast(self.precision, str(self.model.device)):
                new = self.greedy.answer(levels, prompts)
            if image and self.counted:
                spent = self.greedy.image_tokens
                self.vision_tokens |= {e.question_id: spent[n] for n, group in enumerate(batch) for e, _ in group}
            yield [
                (example, self.tokenizer.decode(ids, skip_special_tokens=True).strip())
                for group, answers in zip(batch, new, strict=True)
                for (example, _), ids in zip(group, answers, strict=True)
            ]

    def _levels(self, paths: Sequence[str], frames: int) -> Levels:
        """Return the features of images `[F, N, C]`, or of videos `[V, T, N, C]`, by hidden-state index."""
        if not frames:
            return self.features.get(paths)
        flat = self.features.get([key for path in paths for key in frame_keys(path, frames)])
        return {level: values.unflatten(0, (len(paths), frames)) for level, values in flat.items()}

    def spent(self, example: Example) -> dict[str, int]:
        """Return the metadata of an answer: its vision tokens, where they depend on the image."""
        count = self.vision_tokens.get(example.question_id)
        return {} if count is None else {VISION_TOKENS: count}

    def feature_path(self, benchmark: Benchmark, example: Example) -> str:
        """Return the path under which an example's image is in the feature store."""
        path = benchmark.image_path(self.benchmarks_dir, example)
        assert path is not None
        return path.relative_to(self.data_dir).as_posix()

    def _batches(self, examples: Sequence[Example]) -> Iterator[list[Group]]:
        """Group questions by image, similar lengths together, up to `batch_size` questions a batch.

        An image with more questions than that is a batch of its own, which `Greedy` answers in parts.
        """
        groups: dict[str, Group] = {}
        image_id = self.model.config.image_token_id
        for number, example in enumerate(examples):
            prompt = encode_question(example.prompt, self.encoder, image_id, image=example.image is not None)
            groups.setdefault(example.image or f"\0{number}", []).append((example, prompt))
        order = sorted(groups.values(), key=lambda g: (g[0][0].image is None, max(len(p.rest) for _, p in g)))
        batch: list[Group] = []
        for group in order:
            mixed = bool(batch) and (batch[0][0][0].image is None) != (group[0][0].image is None)
            if batch and (mixed or sum(map(len, batch)) + len(group) > self.batch_size):
                yield batch
                batch = []
            batch.append(group)
        if batch:
            yield batch


def predict_benchmark(
    predictor: Predictor, name: str, out: Path, fingerprint: str, *, limit: int, model_id: str, frames: int = 8
) -> int:
    """Write the answer records of one benchmark to `out`, in question order; return how many.

    A killed run continues from the answers it had written; `fingerprint` stands for weights, method, settings and data.
    `frames` is how many a model reads of a video, where the benchmark has videos.
    """
    benchmark = find_benchmark(name)
    locate = partial(predictor.feature_path, benchmark)
    examples = subset(benchmark.read(predictor.benchmarks_dir), limit)
    with PredictionWriter(out, fingerprint) as writer:
        todo = [example for example in examples if example.question_id not in writer.done]
        progress = Progress(log, f"predict {model_id} {name}", len(examples), len(examples) - len(todo))
        for batch in predictor.answers(todo, locate, frames if benchmark.video else 0):
            writer.write(answer_record(example, text, model_id, predictor.spent(example)) for example, text in batch)
            progress.advance(len(batch))
        writer.finish(examples)
    return len(examples)


def _digest(config: Config, name: str) -> str | None:
    """Return what stands for the bytes of generated videos or further benchmarks; None where they are official."""
    record = config.data_dir / name
    return sha256_file(record) if record.is_file() else None


def experiment_model(config: Config, experiment: str, seed: int, model_dir: Path) -> LlavaWithCompressor:
    """Return an experiment's model in eval mode with its test-time method, after fixing threads and draws.

    Raises:
        FileNotFoundError: the weights, or the result of a search that the method needs, are missing.
        ValueError: the table has no such experiment, or weights and method differ.
    """
    rows = read_experiments(config.experiments.table)
    if experiment not in rows:
        raise ValueError(f"{config.experiments.table}: no experiment {experiment!r}; known: {', '.join(rows)}")
    method = tested_method(config, experiment, rows[experiment].method)
    torch.set_num_threads(config.threads)
    torch.manual_seed(seed)
    return place_model(config, model_dir, method)


def place_model(config: Config, model_dir: Path, method: MethodSpec) -> LlavaWithCompressor:
    """Return a model in eval mode on the GPU if there is one, else on the CPU.

    A GPU that computes in bfloat16 holds the weights in it too: 7B then take 14 GB. On the CPU they stay in fp32, which
    autocast starts from.

    Raises:
        FileNotFoundError, CheckpointError: see `load_model`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    half = device == "cuda" and use_bf16(config.evaluate.precision, device)
    model = load_model(model_dir, method, torch.bfloat16 if half else torch.float32)
    nn.Module.to(model, device)
    return model


def predict_experiment(config: Config, experiment: str, seed: int, model_dir: Path, out_dir: Path) -> None:
    """Answer all configured benchmarks with one experiment's model and test-time method.

    Writes `<out_dir>/<benchmark>.jsonl` each, then `record.json` with what identifies the run.

    Raises:
        FileNotFoundError: weights, features or an official file are missing.
        ValueError: the experiment does not run under `config`, a benchmark is unknown, or weights and method differ.
    """
    model = experiment_model(config, experiment, seed, model_dir)
    settings = config.evaluate
    dtype = torch.bfloat16 if use_bf16(settings.precision, str(model.device)) else torch.float32
    kernel = use_kernel(model, choose_kernel(settings.attention, model.device, dtype, type(model.compressor)))
    sets = list(dict.fromkeys(find_benchmark(name).test_set for name in settings.benchmarks))
    predictor = Predictor.of(config, model, *sets)
    identity = {
        "weights": weights_hash(model_dir),
        "method": model.method.to_config(),
        "evaluate": settings.model_dump(mode="json", include={"batch_size", "max_new_tokens", "limit", "precision"}),
        "data": sha256_file(config.data_dir / "world.json"),
        "seed": seed,
        "attention": kernel.name,
    }
    if TEST_SET in sets:
        identity |= {"frames": config.video.frames, "clips": _digest(config, "clips.json")}
    if FURTHER_SET in sets:
        identity |= {"further": _digest(config, "further.json")}
    model_id = f"{experiment}-seed{seed}"
    counts = {
        name: predict_benchmark(
            predictor,
            name,
            out_dir / f"{name}.jsonl",
            sha256_json(identity),
            limit=settings.limit,
            model_id=model_id,
            frames=config.video.frames,
        )
        for name in settings.benchmarks
    }
    spent = {name: mean_vision_tokens(out_dir / f"{name}.jsonl") for name in counts} if predictor.counted else {}
    head = {"experiment": experiment, "questions": counts} | ({VISION_TOKENS: spent} if spent else {})
    write_json(out_dir / "record.json", {**head, **identity, "run": stamp()})

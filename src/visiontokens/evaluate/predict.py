"""Predictions of one experiment: LLaVA answer records for every benchmark, resumable batch by batch, in any shares."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from visiontokens.compress.base import MethodSpec
from visiontokens.config import Config, read_experiments
from visiontokens.data.benchmarks import FURTHER_SET, Example, find_benchmark, subset
from visiontokens.data.precision import use_bf16
from visiontokens.data.progress import Progress
from visiontokens.data.videos import TEST_SET
from visiontokens.evaluate.cache import ResponseCache
from visiontokens.evaluate.methods import tested_method
from visiontokens.evaluate.parts import Parts, Share
from visiontokens.evaluate.predictions import VISION_TOKENS, mean_vision_tokens
from visiontokens.evaluate.predictor import Batch, Predictor, questions
from visiontokens.evaluate.respond import identity_of
from visiontokens.models.build import load_model
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.provenance import read_json, sha256_file, sha256_json, stamp, write_json

log = logging.getLogger(__name__)


def predict_benchmark(
    predictor: Predictor, name: str, out: Path, identity: Mapping[str, Any], *, limit: int, model_id: str
) -> int:
    """Write the answer records of one benchmark to `out`, in question order; return how many.

    A killed run continues behind the last whole batch; arguments as in `answer_benchmark`.
    """
    with ExitStack() as stack:
        parts, examples = answer_benchmark(stack, predictor, name, out, identity, limit=limit, model_id=model_id)
        parts.join(examples)
        parts.remove()
    return len(examples)


def answer_benchmark(
    stack: ExitStack,
    predictor: Predictor,
    name: str,
    out: Path,
    identity: Mapping[str, Any],
    *,
    limit: int,
    model_id: str,
    frames: int = 8,
    share: Share | None = None,
) -> tuple[Parts, list[Example]]:
    """Answer this process's share of one benchmark; return the parts, to be joined, and the benchmark's questions.

    Args:
        stack: holds this process's part open until it ends.
        predictor: of the model.
        name: the benchmark's.
        out: the prediction file that the parts will be joined to.
        identity: stands for weights, method, settings and data; answers made by anything else are made again.
        limit: about so many questions; 0 = all.
        model_id: goes into every answer.
        frames: how many a model reads of a video, where the benchmark has videos.
        share: this process's; everything if not given.
    """
    benchmark = find_benchmark(name)
    locate = partial(predictor.feature_path, benchmark)
    examples = subset(benchmark.read(predictor.benchmarks_dir), limit)
    batches = predictor.batches(examples)
    share = share or Share()
    own = [batch for number, batch in enumerate(batches) if number in share]
    parts = stack.enter_context(Parts(out, {**identity, "prompts": prompts_hash(batches)}, share))
    todo = [batch for batch in own if not parts.has([example.question_id for example in questions(batch)])]
    total, left = (sum(len(questions(batch)) for batch in some) for some in (own, todo))
    if left < total:
        log.info("%s %s: %d of %d answers are there, continuing", model_id, name, total - left, total)
    progress = Progress(log, f"predict {model_id} {name}", total, total - left)
    for batch in todo:
        responses = predictor.respond(batch, locate, frames if benchmark.video else 0, benchmark.max_new_tokens)
        asked = questions(batch)
        parts.write(predictor.record(e, r, model_id) for e, r in zip(asked, responses, strict=True))
        progress.advance(len(asked))
    return parts, examples


def prompts_hash(batches: Sequence[Batch]) -> str:
    """Return the hash of what is asked and in which batches: ids, images and tokens of all questions."""
    return sha256_json(
        [[[e.question_id, e.image, p.prefix, p.rest] for group in batch for e, p in group] for batch in batches]
    )


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


def predict_experiment(
    config: Config, experiment: str, seed: int, model_dir: Path, out_dir: Path, *, share: Share | None = None
) -> bool:
    """Answer all configured benchmarks, or a share of their questions, with one experiment's model and method.

    Writes `<out_dir>/<benchmark>.jsonl` each, then `record.json` with what identifies the run, as soon as all shares
    are answered: the last process does. What is there already, made by the same, is not made again.

    Returns:
        Whether the files are all there; False while other shares have answers to come.

    Raises:
        FileNotFoundError: weights, features or an official file are missing.
        ValueError: the experiment does not run under `config`, a benchmark is unknown, or weights and method differ.
    """
    share = share or Share()
    _choose_gpu()
    model = experiment_model(config, experiment, seed, model_dir)
    settings = config.evaluate
    sets = list(dict.fromkeys(find_benchmark(name).test_set for name in settings.benchmarks))
    made_by = identity_of(config, model, model_dir, sets)
    identity = made_by | {
        "evaluate": made_by["evaluate"] | {"limit": settings.limit},
        "data": sha256_file(config.data_dir / "world.json"),
        "seed": seed,
    }
    if TEST_SET in sets:
        identity |= {"frames": config.video.frames, "clips": _digest(config, "clips.json")}
    if FURTHER_SET in sets:
        identity |= {"further": _digest(config, "further.json")}
    if _finished(out_dir, settings.benchmarks, identity):
        log.info("%s: complete, nothing to do", out_dir)
        return True
    with ExitStack() as stack:
        cache = stack.enter_context(ResponseCache(config.cache_dir, made_by)) if settings.cache else None
        predictor = Predictor.of(config, model, *sets, cache=cache)
        answered = {
            name: answer_benchmark(
                stack, predictor, name, out_dir / f"{name}.jsonl", identity, limit=settings.limit,
                model_id=f"{experiment}-seed{seed}", frames=config.video.frames, share=share,
            )
            for name in settings.benchmarks
        }  # fmt: skip
        hits = {name: parts.join(examples) for name, (parts, examples) in answered.items()}
        if None in hits.values():
            log.info("%s: share %d of %d is answered, others are not yet", out_dir, share.index, share.count)
            return False
        counts = {name: len(examples) for name, (_, examples) in answered.items()}
        head: dict[str, Any] = {"experiment": experiment, "questions": counts, "processes": share.count}
        if cache is not None:
            head["cached"] = hits
        if predictor.responder.counted:
            head[VISION_TOKENS] = {name: mean_vision_tokens(out_dir / f"{name}.jsonl") for name in counts}
        files = {name: sha256_file(out_dir / f"{name}.jsonl") for name in counts}
        write_json(out_dir / "record.json", {**head, **identity, "answers": files, "run": stamp()})
        for parts, _ in answered.values():
            parts.remove()
    return True


def _choose_gpu() -> None:
    """Take the GPU that `torchrun` means for this process."""
    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def _finished(out_dir: Path, benchmarks: Sequence[str], identity: Mapping[str, Any]) -> bool:
    """Tell whether all answer files are there as the record of a run of the same identity says."""
    record = out_dir / "record.json"
    if not record.is_file():
        return False
    found = read_json(record)
    files = {name: out_dir / f"{name}.jsonl" for name in benchmarks}
    return (
        {key: found.get(key) for key in identity} == dict(identity)
        and all(path.is_file() for path in files.values())
        and found.get("answers") == {name: sha256_file(path) for name, path in files.items()}
    )

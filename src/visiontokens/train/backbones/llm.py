"""Pretraining of the mini LLM on symbolic scenes, then captions, on grids that grow from 4 x 4 to 24 x 24.

Without it a small LLaVA stays at prior level: question-conditioned lookup does not emerge within a tuning budget. The
model starts shallow on short grids, where steps are cheap, and grows to its depth without changing its function.
"""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from visiontokens.data.miniworld.phrases import SYSTEM
from visiontokens.data.miniworld.scenes import MAX_OBJECTS, Scenes
from visiontokens.data.miniworld.tokenizer import build_tokenizer
from visiontokens.models.tiny import MINI_LLM, LlmDims
from visiontokens.provenance import atomic_write, stamp, write_json

from .reader import Optimizer, SceneReader, grow, new_reader
from .symbolic import complete
from .turns import CAPTION, IGNORED, WEIGHTS, Mix, Packed, draw_turns, pack

FAMILIES = (*WEIGHTS, CAPTION)
SPARE = 4  # scenes drawn per scene used: coarse grids leave out those where objects share a cell
NOTE_EVERY = 50  # steps


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
    code_rate: float = 3.0  # times the learning rate, for the codes of rows, columns and digit places
    mix: Mix = field(default_factory=Mix)


@dataclass(frozen=True)
class Plan:
    """The whole pretraining."""

    phases: tuple[Phase, ...]
    dims: LlmDims = MINI_LLM
    caption_weight: float = 0.3
    blur: float = 0.08  # share of blurred scenes
    weight_decay: float = 0.01
    warmup: float = 0.05  # shares of each phase
    decay: float = 0.3
    max_grad_norm: float = 1.0
    seed: int = 0
    held_out: int = 300  # scenes for the final accuracy
    precision: str = "auto"  # bf16 where the processor has it, else fp32; or "fp32", "bf16"


EASY = Mix(
    weights={**dict.fromkeys(("exist", "color", "shape", "texture", "size", "row", "column"), 1.0), "number": 0.5},
    chinese=0.0,
    choice=0.0,
    may_refuse=0.0,
    bare=1.0,
    ocr=0.0,
)
HARD = {"relation": 3.0, "count": 2.0, "compare": 1.2, "arithmetic": 0.6}  # what comes last
MINI_PLAN = Plan(
    phases=(
        # Matching a phrase with a cell and saying whether it fits comes suddenly, after some 700 steps. Nothing else is
        # learned well before it, so the first phase stays with easy questions until it has come.
        Phase(1200, 2e-3, (4,), layers=4, turns=6, captioned=0.0, code_rate=1.0, mix=EASY),
        Phase(1800, 2e-3, (4,), layers=4, turns=8, captioned=0.1, mix=Mix(chinese=0.0, choice=0.1, bare=0.6)),
        Phase(1800, 2e-3, (4,), layers=4, turns=8, captioned=0.1, ordered=0.7, mix=Mix({**WEIGHTS, **HARD}, bare=0.6)),
        Phase(1200, 1.5e-3, (4, 8), layers=4, turns=8, ordered=0.7),
        Phase(600, 1e-3, (8, 12), layers=8, turns=12, ordered=0.4, batch_size=8),
        Phase(600, 7e-4, (12, 24), layers=8, turns=24, ordered=0.2, batch_size=8),
    )
)


def use_bf16(precision: str) -> bool:
    """Whether to compute in bf16: as asked, or by what the processor can do.

    Raises:
        ValueError: `precision` is not auto, fp32 or bf16.
    """
    if precision not in {"auto", "fp32", "bf16"}:
        raise ValueError(f"precision: found {precision!r}, expected auto, fp32 or bf16")
    return precision == "bf16" or (precision == "auto" and torch.cpu._is_avx512_bf16_supported())


@dataclass
class Batch:
    """What one step trains on."""

    scenes: Scenes
    grid: int
    packed: Packed
    system: Tensor  # [P]
    ordered: Tensor  # [B]


def make_batch(
    tokenizer: PreTrainedTokenizerBase, plan: Plan, phase: Phase, *, grid: int, split: str, key: Sequence[int]
) -> Batch:
    """Draw a batch; the same `key` gives the same batch, so that a resumed run sees the same data."""
    rng = np.random.default_rng([plan.seed, *key])
    drawn = SPARE * phase.batch_size
    scenes = Scenes.sample(drawn, int(rng.integers(2**31)), split, blur=plan.blur, objects=phase.objects)
    fit = complete(scenes, grid)
    scenes = scenes.select(np.argsort(~fit, kind="stable")[: phase.batch_size])
    captioned = rng.random(phase.batch_size) < phase.captioned
    samples = [
        draw_turns(scene, rng, tokenizer, n=phase.turns, captioned=bool(also), mix=phase.mix)
        for scene, also in zip(scenes, captioned, strict=True)
    ]
    system = tokenizer(f"{' '.join(SYSTEM)} USER:", return_tensors="pt").input_ids[0]
    packed = pack(
        samples,
        FAMILIES,
        system=len(system),
        scene=grid * grid,
        caption_weight=plan.caption_weight,
        pad=tokenizer.pad_token_id,
    )
    ordered = torch.from_numpy((rng.random(phase.batch_size) < phase.ordered).astype(np.float32))
    return Batch(scenes, grid, packed, system, ordered)


def _forward(reader: SceneReader, batch: Batch, bf16: bool) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return reader(batch.scenes, batch.grid, batch.system, batch.packed, batch.ordered)


def _targets(packed: Packed) -> tuple[Tensor, Tensor, Tensor]:
    """Return labels, weights and family numbers `[M]` of the places with a label."""
    chosen = packed.labels != IGNORED
    return packed.labels[chosen], packed.weights[chosen], packed.first[chosen]


def accuracy(reader: SceneReader, batches: Iterator[Batch], bf16: bool) -> dict[str, float]:
    """Return the share of first answer tokens that are right, by family, and "mean" over the question families."""
    hits: dict[str, list[float]] = defaultdict(list)
    reader.eval()
    for batch in batches:
        with torch.no_grad():
            predicted = _forward(reader, batch, bf16).argmax(-1)
        labels, _, first = _targets(batch.packed)
        _count_hits(hits, predicted == labels, first)
    reader.train()
    return _shares(hits)


def _count_hits(hits: dict[str, list[float]], right: Tensor, first: Tensor) -> None:
    """Add what is right among the first answer tokens to the lists of their families."""
    for hit, number in zip(right.tolist(), first.tolist(), strict=True):
        if number >= 0:
            hits[FAMILIES[number]].append(float(hit))


def _shares(hits: dict[str, list[float]]) -> dict[str, float]:
    shares = {family: sum(values) / len(values) for family, values in sorted(hits.items())}
    asked = [share for family, share in shares.items() if family != CAPTION]
    return {family: round(share, 3) for family, share in {**shares, "mean": sum(asked) / len(asked)}.items()}


def held_out(
    tokenizer: PreTrainedTokenizerBase, plan: Plan, grid: int, scenes: int, ordered: float = 0.0
) -> Iterator[Batch]:
    """Yield validation batches on one grid, by default without help on the order of digits."""
    phase = Phase(steps=0, learning_rate=0, grids=(grid,), layers=0, turns=16, ordered=ordered)
    for step in range(math.ceil(scenes / phase.batch_size)):
        yield make_batch(tokenizer, plan, phase, grid=grid, split="validation", key=(9999, grid, step))


class Pretraining:
    """A pretraining run that can be stopped and continued: `run_dir` holds its state and its history."""

    def __init__(self, plan: Plan, run_dir: Path) -> None:
        self.plan, self.run_dir = plan, run_dir
        self.tokenizer = build_tokenizer()
        self.bf16 = use_bf16(plan.precision)
        self.phase = self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        torch.manual_seed(plan.seed)
        self.reader = new_reader(self.tokenizer, plan.dims, plan.phases[0].layers)
        self.optimizer = Optimizer(self.reader, self.plan.weight_decay)
        if (run_dir / "state.pt").exists():
            self._restore(torch.load(run_dir / "state.pt", weights_only=False))

    def _restore(self, state: dict[str, Any]) -> None:
        self.phase, self.step, self.seconds, self.history = (state[k] for k in ("phase", "step", "seconds", "history"))
        if state["layers"] != self.reader.llm.config.num_hidden_layers:
            grow(self.reader, state["layers"])
        self.reader.load_state_dict(state["reader"])
        self.optimizer = Optimizer(self.reader, self.plan.weight_decay)
        if state["optimizer"] is not None:
            self.optimizer.load_state_dict(state["optimizer"])

    def save_state(self, with_optimizer: bool = True) -> None:
        """Write everything needed to continue."""
        state = {
            "phase": self.phase,
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "layers": self.reader.llm.config.num_hidden_layers,
            "reader": self.reader.state_dict(),
            "optimizer": self.optimizer.state_dict() if with_optimizer else None,
        }
        with atomic_write(self.run_dir / "state.pt", "wb") as handle:
            torch.save(state, handle)

    def run(self, save_every: int = 100) -> None:
        """Train all phases from where the run stands."""
        for number in range(self.phase, len(self.plan.phases)):
            phase = self.plan.phases[number]
            if self.reader.llm.config.num_hidden_layers != phase.layers:
                grow(self.reader, phase.layers)
                self.optimizer = Optimizer(self.reader, self.plan.weight_decay)
            self._run_phase(number, phase, save_every)
            self.phase, self.step = number + 1, 0
            self.optimizer = Optimizer(self.reader, self.plan.weight_decay)
            self.save_state(with_optimizer=False)

    def _run_phase(self, number: int, phase: Phase, save_every: int) -> None:
        losses: list[float] = []
        hits: dict[str, list[float]] = defaultdict(list)
        while self.step < phase.steps:
            start = time.process_time()
            grid = phase.grids[self.step % len(phase.grids)]
            batch = make_batch(self.tokenizer, self.plan, phase, grid=grid, split="train", key=(number, self.step))
            losses.append(self._train_step(batch, phase, hits))
            self.step += 1
            self.seconds += time.process_time() - start
            if self.step % NOTE_EVERY == 0 or self.step == phase.steps:
                self._note(number, losses, hits)
                losses.clear()
                hits.clear()
            if self.step % save_every == 0:
                self.save_state()

    def _train_step(self, batch: Batch, phase: Phase, hits: dict[str, list[float]]) -> float:
        logits = _forward(self.reader, batch, self.bf16)
        labels, weights, first = _targets(batch.packed)
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.reader.parameters(), self.plan.max_grad_norm)
        rate = phase.learning_rate * _trapezoid(self.step / phase.steps, self.plan.warmup, self.plan.decay)
        self.optimizer.step(rate, phase.code_rate)
        _count_hits(hits, logits.argmax(-1) == labels, first)
        return loss.item()

    def _note(self, phase: int, losses: Sequence[float], hits: dict[str, list[float]]) -> None:
        note = {
            "phase": phase,
            "step": self.step,
            "loss": round(float(np.mean(losses)), 4),
            "first_answer_accuracy": _shares(hits),
            "cpu_seconds": round(self.seconds, 1),
        }
        self.history.append(note)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        write_json(self.run_dir / "history.json", self.history)

    def export(self, out: Path) -> dict[str, Any]:
        """Write the LLM (fp16), its tokenizer and a record with held-out accuracies into `out`; return the record."""
        grids = sorted({grid for phase in self.plan.phases for grid in phase.grids})
        measured = {
            f"{grid}x{grid}": accuracy(
                self.reader, held_out(self.tokenizer, self.plan, grid, self.plan.held_out), self.bf16
            )
            for grid in grids
        }
        record = {
            "what": "mini LLM pretrained on symbolic scenes (language and scene-graph tokens, no pixels)",
            "parameters": sum(p.numel() for p in self.reader.llm.parameters()),
            "plan": asdict(self.plan),
            "phases_done": self.phase,
            "cpu_seconds": round(self.seconds, 1),
            "history": self.history,
            "held_out_first_answer_accuracy": measured,
            "stamp": stamp(),
        }
        export_llm(self.reader.llm, self.tokenizer, out)
        write_json(out / "record.json", record)
        return record


def export_llm(llm: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write config, fp16 weights, generation config and tokenizer so that the Auto classes load them."""
    half = copy.deepcopy(llm).half()  # type: ignore[no-untyped-call]
    half.set_attn_implementation("sdpa")
    half.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        half.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for path in sorted(Path(folder).iterdir()):
            path.chmod(0o644)
            path.replace(out / path.name)


def _trapezoid(done: float, warmup: float, decay: float) -> float:
    """Return the factor of the learning rate: linear warm-up, constant, linear decay to 5 % over the last share."""
    return min((done + 1e-3) / warmup, 1.0, max((1 - done) / decay, 0.05))


def pretrain_llm(out: Path, run_dir: Path, plan: Plan = MINI_PLAN) -> dict[str, Any]:
    """Pretrain the mini LLM (continuing what `run_dir` holds) and write it to `out`; return its record."""
    run = Pretraining(plan, run_dir)
    run.run()
    return run.export(out)

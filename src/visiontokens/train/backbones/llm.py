"""Pretraining of the mini LLM: symbolic scenes on grids that grow from 4 x 4 to 24 x 24, then what the tower sees.

Without it a small LLaVA stays at prior level: question-conditioned lookup does not emerge within a tuning budget. The
model starts shallow on short grids, where steps are cheap, and grows to its depth without changing its function.
The last phases show pixels, through a projector that is thrown away, in all tokens and 2 x 2-pooled by turns: every
method starts from a model that has read long and short grids, so that none is ahead by being quicker to learn.
"""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from visiontokens.data.miniworld.phrases import SYSTEM
from visiontokens.data.miniworld.scenes import Scenes
from visiontokens.data.miniworld.tokenizer import build_tokenizer
from visiontokens.data.precision import autocast
from visiontokens.provenance import atomic_write, stamp, write_json

from .pixels import Eyes
from .plan import MINI_PLAN, Phase, Plan
from .reader import Optimizer, grow, new_reader
from .symbolic import complete
from .turns import CAPTION, IGNORED, WEIGHTS, Packed, draw_turns, pack

FAMILIES = (*WEIGHTS, CAPTION)
SPARE = 4  # scenes drawn per scene used: coarse grids leave out those where objects share a cell
NOTE_EVERY = 50  # steps


@dataclass
class Batch:
    """What one step trains on."""

    scenes: Scenes
    grid: int
    packed: Packed
    system: Tensor  # [P]
    ordered: Tensor  # [B]
    pixels: bool


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
    return Batch(scenes, grid, packed, system, ordered, phase.pixels)


def _targets(packed: Packed) -> tuple[Tensor, Tensor, Tensor]:
    """Return labels, weights and family numbers `[M]` of the places with a label."""
    chosen = packed.labels != IGNORED
    return packed.labels[chosen], packed.weights[chosen], packed.first[chosen]


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
    tokenizer: PreTrainedTokenizerBase, plan: Plan, grid: int, scenes: int, pixels: bool = False
) -> Iterator[Batch]:
    """Yield validation batches on one grid, without help on the order of digits."""
    phase = Phase(steps=0, learning_rate=0, grids=(grid,), layers=0, turns=16, ordered=0.0, pixels=pixels)
    for step in range(math.ceil(scenes / phase.batch_size)):
        yield make_batch(tokenizer, plan, phase, grid=grid, split="validation", key=(9999, grid, step))


class Pretraining:
    """A pretraining run that can be stopped and continued: `run_dir` holds its state and its history."""

    def __init__(self, plan: Plan, run_dir: Path, tower: Path) -> None:
        self.plan, self.run_dir = plan, run_dir
        self.tokenizer = build_tokenizer()
        self.eyes = Eyes(tower, plan.precision)
        self.phase = self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        torch.manual_seed(plan.seed)
        self.reader = new_reader(self.tokenizer, plan.dims, plan.phases[0].layers, plan.channels)
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

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits `[M, V]` of the M places of the batch with a label."""
        with autocast(self.plan.precision):
            if batch.pixels:
                cells = self.reader.pixels(self.eyes(batch.scenes), batch.grid)
            else:
                cells = self.reader.look(batch.scenes, batch.grid, batch.ordered)
            logits: Tensor = self.reader(cells, batch.system, batch.packed)
        return logits

    def accuracy(self, batches: Iterator[Batch]) -> dict[str, float]:
        """Return the share of first answer tokens that are right, by family, and "mean" over question families."""
        hits: dict[str, list[float]] = defaultdict(list)
        self.reader.eval()
        for batch in batches:
            with torch.no_grad():
                predicted = self.logits(batch).argmax(-1)
            labels, _, first = _targets(batch.packed)
            _count_hits(hits, predicted == labels, first)
        self.reader.train()
        return _shares(hits)

    def _train_step(self, batch: Batch, phase: Phase, hits: dict[str, list[float]]) -> float:
        logits = self.logits(batch)
        labels, weights, first = _targets(batch.packed)
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.reader.parameters(), self.plan.max_grad_norm)
        rate = phase.learning_rate * _trapezoid(self.step / phase.steps, self.plan.warmup, self.plan.decay)
        self.optimizer.step(rate, phase.input_rate)
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
        seen = sorted({(phase.pixels, grid) for phase in self.plan.phases for grid in phase.grids})
        measured = {
            f"{grid}x{grid}{' pixels' if pixels else ''}": self.accuracy(
                held_out(self.tokenizer, self.plan, grid, self.plan.held_out, pixels)
            )
            for pixels, grid in seen
        }
        record = {
            "what": "mini LLM pretrained on symbolic scenes (language and scene-graph tokens), then on what the mini "
            "tower sees, through a projector that is not kept",
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


def pretrain_llm(out: Path, run_dir: Path, tower: Path, plan: Plan = MINI_PLAN) -> dict[str, Any]:
    """Pretrain the mini LLM (continuing what `run_dir` holds) with a `tower`, write it to `out`; return its record."""
    run = Pretraining(plan, run_dir, tower)
    run.run()
    return run.export(out)

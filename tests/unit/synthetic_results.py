"""Made-up result files in the layout of `results/<scale>`, for the report's tests. The numbers mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from visiontokens.analyze.collect import benchmarks, experiments
from visiontokens.data.benchmarks import MAIN_BENCHMARKS
from visiontokens.measure.tokens import compression_ratio, pooled_tokens

LAYERS, VISION = 8, 576
POINTS = [(2, 4), (2, 8), (2, 16), (2, 64), (8, 4), (8, 8), (8, 16), (8, 64), (16, 4), (16, 8), (16, 16), (16, 64)]


def write_json(path: Path, obj: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(obj))


def per_layer(method: str) -> list[float]:
    """Return plausible tokens per layer for a method id."""
    if method.startswith(("avgpool", "stf")):
        return [144.0] * LAYERS
    if method.startswith("qformer"):
        return [32.0] * LAYERS
    parts = method.split("-")
    if len(parts) == 3 and parts[1].isdigit():
        return pooled_tokens(VISION, LAYERS, max(1, round(int(parts[1]) / 32 * LAYERS)), int(parts[2]))
    return [float(VISION)] * LAYERS


def write_results(root: Path, *, only: list[str] | None = None, seeds: int = 1, skip: tuple[str, ...] = ()) -> Path:
    """Write scores, efficiency, training logs and redundancy tables for some experiments; return `root`.

    Args:
        root: plays `results/mini`.
        only: experiment ids; default all.
        seeds: number of seeds.
        skip: benchmarks without scores.
    """
    rng = np.random.default_rng(0)
    table = experiments()
    for number, row in table.iterrows():
        name = row["id"]
        if only is not None and name not in only:
            continue
        tokens = per_layer(row["method"])
        level = 78 - 6 * np.log2(VISION / np.mean(tokens)) * (1.6 if name.endswith("-test") else 0.5) + rng.normal(0, 1)
        for seed in range(seeds):
            _scores(root / f"scores/{name}/seed{seed}", level + rng.normal(0, 0.4), rng, skip)
            if not row["weights_from"]:
                _training(root, name, seed, rng)
                _validation(root, name, seed, level, rng)
        _efficiency(root, name, tokens, int(number))
    _redundancy(root, rng)
    chosen = f"{{sets: [main, full, field, video, 13b], seeds: {seeds}}}"
    (root / "config.yaml").write_text(f"scale: mini\ndata: {root / 'no-data'}\nexperiments: {chosen}\n")
    return root


def _validation(root: Path, name: str, seed: int, level: float, rng: np.random.Generator) -> None:
    right = rng.random(400) * 100 < level
    questions = [[f"{i // 4:03d}-{i % 4}", ("color", "number")[i % 2], int(ok)] for i, ok in enumerate(right)]
    families = {
        family: {"value": level, "se": 2.0, "prior": 20.0, "shuffled": 18.0, "n": 200} for family in ("color", "number")
    }
    content = {"experiment": name, "seed": seed, "value": level, "families": families, "questions": questions}
    write_json(root / f"validation/{name}/seed{seed}.json", content)


def _scores(folder: Path, level: float, rng: np.random.Generator, skip: tuple[str, ...]) -> None:
    for bench, row in benchmarks().iterrows():
        if bench in skip or bench not in MAIN_BENCHMARKS:
            continue
        value = float(np.clip(level + rng.normal(0, 4), 5, 99)) * row["divisor"]
        half = 2.2 * row["divisor"]
        write_json(
            folder / f"{bench}.json",
            {
                "benchmark": bench,
                "metric": row["metric"],
                "value": value,
                "ci_low": value - half,
                "ci_high": value + half,
            }
            | {"se": half / 1.96, "n": 1000, "parts": {"number": value - 3, "by": {"color": value + 2}}},
        )


def _efficiency(root: Path, name: str, tokens: list[float], number: int) -> None:
    mean = sum(tokens) / len(tokens)
    write_json(
        root / f"efficiency/{name}.json",
        {
            "experiment": name, "vision_tokens": VISION, "layers": LAYERS, "tokens_per_layer": tokens,
            "tokens_total": sum(tokens), "tokens_mean": mean, "compression_ratio": compression_ratio(tokens, VISION),
            "prefill_flops": 2e8 + 5e6 * mean, "decode_flops": 5e6 + 1e3 * mean, "extra_flops": 3.8e7,
            "kv_bytes": 4096 * mean, "kv_bytes_image": 4000 * mean, "kv_tokens_per_layer": tokens,
            "prefill_ms": 6 + 0.055 * mean + number / 20, "prefill_q25_ms": 6.0,
            "prefill_q75_ms": 60.0, "peak_bytes": int(3e6 + 2e4 * mean), "parameters": 1_700_000,
            "parameters_compressor": 0, "parameters_connector": 33024, "text_tokens": 40, "device": "test",
            "threads": 1, "dtype": "bfloat16",
        },
    )  # fmt: skip


def _training(root: Path, name: str, seed: int, rng: np.random.Generator) -> None:
    for stage, steps, start in (("align", 120, 3.0), ("tune", 300, 2.0)):
        folder = root / f"models/{name}/seed{seed}/{stage}"
        losses = 0.5 + (start - 0.5) * np.exp(-np.arange(steps) / 60) + rng.normal(0, 0.05, steps)
        rows = [{"step": i + 1, "loss": float(loss), "lr": 1e-3, "tokens": 100} for i, loss in enumerate(losses)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        record = {
            "steps": steps,
            "epochs": 1.0,
            "loss_last": rows[-1]["loss"],
            "wall_seconds": 90.0 + steps,
            "run": {"stage": stage},
        }
        write_json(folder / "record.json", record)


def _redundancy(root: Path, rng: np.random.Generator) -> None:
    folder = root / "redundancy"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["layer,stride,kept,tokens,benchmark,metric,value,ci_low,ci_high,n,difference,difference_se"]
    first = 0.0
    for bench, top in (("gqa", 62), ("textvqa", 70), ("pope", 90), ("mmbench", 66)):
        for layer, stride in [(0, 1), *POINTS]:
            kept = sum(pooled_tokens(VISION, LAYERS, round(layer / 4), stride)) / VISION / LAYERS
            value = top * (1 - 0.25 * (1 - kept) * np.log2(stride) / 3) + rng.normal(0, 0.5)
            first = value if stride == 1 else first
            spread = f"{value - 2.5},{value + 2.5},400,{value - first},{0.0 if stride == 1 else 0.6}"
            lines.append(f"{layer},{stride},{kept},{kept * VISION},{bench},accuracy,{value},{spread}")
    (folder / "curve.csv").write_text("\n".join(lines) + "\n")
    lines = ["layer,target,attention,n"]
    for layer in range(LAYERS):
        for target, height in (("vision", 3e-4), ("system", 2e-2), ("text", 5e-3)):
            lines.append(f"{layer},{target},{height * np.exp(rng.normal(0, 0.4))},64")
    (folder / "attention.csv").write_text("\n".join(lines) + "\n")
    lines = ["level,offset,distance,mean,std,n"]
    for level in range(1, 9):
        for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (0, 4), (4, 0), (0, 8), (8, 0)):
            far = np.hypot(dy, dx)
            lines.append(f'{level},"{dy},{dx}",{far},{0.4 + 0.5 / far * (1 - level / 20)},0.15,200')
        lines.append(f"{level},random,,0.35,0.2,200")
    (folder / "similarity.csv").write_text("\n".join(lines) + "\n")
    lines = ["level,target,accuracy,n"]
    for level in range(1, 9):
        for target, top in (("colour", 0.99), ("shape", 0.9), ("size", 0.95), ("texture", 0.97), ("digit", 0.92)):
            lines.append(f"{level},{target},{top * (1 - 0.3 * np.exp(-level / 2)) - 0.01 * max(0, level - 5)},800")
    (folder / "probe.csv").write_text("\n".join(lines) + "\n")

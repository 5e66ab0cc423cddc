"""The model card of a folder with weights (its README.md): method, data, tokens, FLOPs, scores, licence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import LlavaConfig
from transformers.initialization import no_init_weights

from visiontokens.analyze.collect import is_result
from visiontokens.compress.base import MethodSpec, lookup
from visiontokens.config import Config, load_experiments, seeds_of
from visiontokens.measure.record import cost_record
from visiontokens.models.llava import LlavaWithCompressor
from visiontokens.provenance import atomic_write, read_json

TEXT_TOKENS = 40
LICENCES = (
    ("vicuna", "Llama 2 Community License"),
    ("llava-stf", "CC BY-NC 4.0 (LLaVA-STF) on the Llama 2 Community License"),
    ("llava", "Llama 2 Community License"),
    ("llama", "Llama 2 Community License"),
    ("clip-vit", "MIT"),
)
"""Licences of base weights by a part of their name, as their publishers state them."""
OWN = "Apache-2.0 (made by this package)"
UNKNOWN = "not recorded; see where the weights come from"


def write_card(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    bases: Sequence[str | Path] = (),
    scores: str | Path | None = None,
) -> Path:
    """Write the card of a model folder from its settings and records; return its path.

    Args:
        folder: with `config.json`, and `record.json` (training) or `conversion.json` where there are.
        out: where to, if not `README.md` in the folder.
        bases: folders of the weights that training started from; if empty, the source of a converted model.
        scores: folder with one JSON file per benchmark, as `visiontokens score-run` writes it.

    Raises:
        FileNotFoundError: no settings there.
        ValueError: a record or score file is not what it should be; the message names it.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no model here (config.json not found)")
    records = {name: _maybe(folder / f"{name}.json") for name in ("record", "conversion")}
    lines = [
        *_head(folder, records, bases),
        *_method(folder),
        *_training(records["record"]),
        *_origin(records["conversion"]),
    ]
    if scores is not None:
        lines += _scores(Path(scores))
    lines += _licence(_bases(records, bases))
    path = Path(out or folder / "README.md")
    with atomic_write(path) as handle:
        handle.write("\n".join(lines) + "\n")
    return path


def write_cards(config: Config, out: Path) -> None:
    """Write the cards of a run's trained rows with their scores into `out`; rows without weights are left out.

    The folders of the weights are finished results and stay as they are.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = load_experiments(config)
    for name in (name for name, row in rows.items() if row.trained):
        for seed in seeds_of(config, rows, name):
            model = config.results_dir / "models" / name / f"seed{seed}" / "tune"
            scores = config.results_dir / "scores" / name / f"seed{seed}"
            if (model / "config.json").is_file() and scores.is_dir():
                bases = [config.backbones.llm, config.backbones.tower]
                write_card(model, out / f"{name}.seed{seed}.md", bases=bases, scores=scores)


def _maybe(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.is_file() else {}


def _bases(records: dict[str, dict[str, Any]], bases: Sequence[str | Path]) -> list[str]:
    found = [str(base) for base in bases]
    source = records["conversion"].get("source")
    return found or ([str(source)] if source else [])


def licence_of(base: str | Path) -> str:
    """Return the licence of base weights: our own where a record of ours lies beside them, else by their name."""
    if (Path(base) / "record.json").is_file():
        return OWN
    name = str(base).lower()
    return next((licence for part, licence in LICENCES if part in name), UNKNOWN)


def _head(folder: Path, records: dict[str, dict[str, Any]], bases: Sequence[str | Path]) -> Iterator[str]:
    """Yield the metadata block that the hub reads, and the title."""
    run = records["record"].get("run", {})
    title = run.get("experiment") or folder.name
    data = {"library_name": "transformers", "pipeline_tag": "image-text-to-text", "tags": ["llava", "visiontokens"]}
    yield from ("---", *yaml.safe_dump(data, sort_keys=False).splitlines(), "---", "", f"# {title}", "")


def _method(folder: Path) -> Iterator[str]:
    config = LlavaConfig.from_pretrained(folder)
    method = MethodSpec.from_config(getattr(config, "compressor", None))
    with torch.device("meta"), no_init_weights():
        cost = cost_record(LlavaWithCompressor(config), text_tokens=TEXT_TOKENS)
    words = (lookup(method.name).__doc__ or "").splitlines()[0]
    params = ", ".join(f"{key} {value}" for key, value in method.params.items()) or "defaults"
    yield from ("## Method", "", f"`{method.name}` ({params}): {words}", "", "| | |", "| :-- | --: |")
    yield f"| Vision tokens of an image | {cost['vision_tokens']} |"
    yield f"| of them read by an average decoder layer | {cost['tokens_mean']:.1f} |"
    yield f"| FLOPs of a prefill, {TEXT_TOKENS} text tokens, without the tower | {cost['prefill_flops']:.4g} |"
    yield f"| FLOPs of one new token | {cost['decode_flops']:.4g} |"
    yield from (f"| Parameters | {cost['parameters']:,} |", "")
    yield "```python"
    yield "import visiontokens"
    yield ""
    yield 'model = visiontokens.load("path/of/this/folder")'
    yield from ("```", "")


def _training(record: dict[str, Any]) -> Iterator[str]:
    if not record:
        return
    run, settings = record["run"], record["run"]["settings"]
    yield from ("## Training", "", "| | |", "| :-- | --: |")
    rows = {
        "Experiment, stage, seed": f"{run['experiment']}, {run['stage']}, {run['seed']}",
        "Scale": run["scale"],
        "Stages": "constant" if not run.get("schedule") else f"{len(run['schedule']['stages'])}",
        "Data": f"`{settings['annotations']}`, SHA-256 {record['data_hash'][:16]}",
        "Epochs, batch size, peak learning rate": (
            f"{settings['epochs']:g}, {settings['batch_size']}, {settings['learning_rate']:g}"
        ),
        "Optimizer steps": f"{record['steps']:,}",
        "Tokens seen": f"{record['tokens_seen']:,}",
        "Loss, last tenth": f"{record['loss_last_tenth']:.4f}",
        "Trained parameters": f"{record['parameters']['trained']:,}",
        "Made by": f"commit {record['commit'] or 'unknown'}{' (edited)' if record['dirty'] else ''}, {record['date']}",
    }
    yield from (*(f"| {key} | {value} |" for key, value in rows.items()), "")


def _origin(record: dict[str, Any]) -> Iterator[str]:
    if record:
        yield from ("## Origin", "")
        yield f"Converted from `{record['source']}` (layout `{record['from']}`), values bit for bit."
        yield ""


def _scores(folder: Path) -> Iterator[str]:
    """Yield the scores with their confidence intervals, without those that a stand-in judged."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise FileNotFoundError(f"{folder}: no score files (*.json)")
    yield from (
        "## Scores",
        "",
        "| Benchmark | Metric | Value | Interval | Questions |",
        "| :-- | :-- | --: | --: | --: |",
    )
    for path in files:
        score = read_json(path)
        if not is_result(score):
            continue
        missing = [key for key in ("metric", "value", "ci_low", "ci_high", "n") if key not in score]
        if missing:
            raise ValueError(f"{path}: expected the keys of a score, missing {', '.join(missing)}")
        interval = f"{score['ci_low']:.1f} to {score['ci_high']:.1f}"
        yield f"| {path.stem} | {score['metric']} | {score['value']:.1f} | {interval} | {score['n']} |"
    yield ""


def _licence(bases: list[str]) -> Iterator[str]:
    yield from ("## Licence", "", "The licence of the base weights holds for these too.", "")
    for base in bases or ["unknown"]:
        yield f"- `{Path(base).name}`: {licence_of(base)}"

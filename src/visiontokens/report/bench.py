"""The benchmark's records as one CSV and one Markdown page that says where and with what they were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from visiontokens.provenance import atomic_write, stamp
from visiontokens.report.write import Table, markdown, number

COLUMNS: Mapping[str, tuple[str, int]] = {
    "tokens_mean": ("Tokens per layer", 0),
    "prefill_ms": ("Prefill ms", 1),
    "stock_prefill_ms": ("stock", 1),
    "prefill_speedup": ("Speed-up", 2),
    "prefill_share": ("of ideal", 2),
    "outside_ms": ("Outside LLM ms", 2),
    "outside_share": ("of prefill", 3),
    "mixed_ms": ("Mixed batch ms", 1),
    "mixed_speedup": ("over one by one", 2),
    "decode_tokens_s": ("Decode tokens/s", 1),
    "stock_decode_tokens_s": ("stock ", 1),
    "prefill_peak_mib": ("Peak MiB", 0),
    "stock_prefill_peak_mib": ("stock  ", 0),
    "train_tokens_s": ("Training tokens/s", 0),
    "stock_train_tokens_s": ("stock   ", 0),
    "train_speedup": ("Speed-up ", 2),
    "train_share": ("of ideal ", 2),
    "answers_s": ("Answers/s", 2),
    "stock_answers_s": ("stock    ", 2),
    "answers_speedup": ("Speed-up  ", 1),
    "answers_batching": ("over own batch 1", 1),
    "answers_identical_fp32": ("Same answers, fp32", 2),
    "answers_identical_bf16": ("bf16", 2),
}
"""Columns of the page: heading and decimals."""


def device_line() -> dict[str, Any]:
    """Return what identifies machine and software, for every row of the CSV."""
    who = stamp()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {
        "device": gpu or f"{who['processor']}, {torch.get_num_threads()} threads", "date": who["date"],
        "commit": who["commit"], "dirty": who["dirty"],
        "versions": " ".join(f"{name} {value}" for name, value in who["versions"].items() if value),
    }  # fmt: skip


def write_bench(records: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write `<folder>/<geometry>.csv` and `.md`; return the page.

    Raises:
        ValueError: there are no records.
    """
    if not records:
        raise ValueError("benchmark: found no records, expected at least one method")
    where = device_line()
    geometry = str(records[0]["geometry"])
    frame = pd.DataFrame([{**record, **where} for record in records])
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"{geometry}.csv") as handle:
        handle.write(frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    page = folder / f"{geometry}.md"
    with atomic_write(page) as handle:
        handle.write(_page(frame, geometry, where))
    return page


def _page(frame: pd.DataFrame, geometry: str, where: Mapping[str, Any]) -> str:
    shown = pd.DataFrame({"Method": frame["method"]})
    for name, (heading, digits) in COLUMNS.items():
        shown[heading] = [number(None if value is None else float(value), digits) for value in frame[name]]
    kernels = ", ".join(sorted(set(frame["attention"])))
    caption = (
        f"Geometry {geometry} with random weights, {where['device']}, {where['date']}, commit {where['commit']}"
        f"{' (changed)' if where['dirty'] else ''}; {where['versions']}; attention {kernels}. "
        "`stock` is transformers' LLaVA on the same weights, timed in turns with the method. `of ideal`: the speed-up "
        "over the ratio of matrix FLOPs. Training tokens are those of the uncompressed sample; forward and backward. "
        "Outside the LLM: projector, compressor, splicing and what a method adds to the tower; at 7B it should stay "
        "below 0.03 of the prefill. Mixed batch: three prompts with one, two and one image and texts of different "
        "lengths in one padded batch, against the same prompts one by one. "
        f"Answers: {frame['answers_per_image'][0]} questions an image, {frame['answers_tokens'][0]} tokens each, "
        "tower included, against `generate` at batch 1 from pixels; `over own batch 1` is the method against itself, "
        "one question at a time from the same features. `Same answers`: share of answers equal to those of batch 1. "
        "The vision tower is in no other number."
    )
    return f"# Benchmark, {geometry}\n\n{markdown(Table(shown, caption))}\n"

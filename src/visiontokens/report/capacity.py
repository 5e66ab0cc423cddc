"""Which GPUs the recipe needs: memory per GPU at the papers' sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from visiontokens.compress.base import MethodSpec
from visiontokens.measure.capacity import TrainStage, capacity
from visiontokens.measure.geometry import SHAPES, meta_model
from visiontokens.report.write import NOT_PRINTED, Table, number

GPUS = (1, 2, 4, 8, 16)
METHODS: Mapping[str, Mapping[str, str]] = {
    "LLaVA-1.5": {"7b": "none", "13b": "none"},
    "LLaVA-STF": {"7b": "stf-mbtf", "13b": "stf-mbtf-13b"},
}
"""Rows: their method file at each size."""
PER_GPU: Mapping[TrainStage, int] = {"align": 32, "tune": 16}
"""Samples per GPU and forward in both papers' scripts (eight GPUs)."""
GIB = 2**30


def capacity_table(
    folder: Path = Path("config/methods"), sizes: Sequence[str] = ("7b", "13b"), text_tokens: int = 200
) -> Table:
    """Return GiB per GPU of both stages, for 1 to 16 GPUs, with and without gradient checkpointing.

    Args:
        folder: of the method files.
        sizes: keys of `measure.geometry.SHAPES`.
        text_tokens: length of the text around the image.
    """
    lines = []
    for label, files in METHODS.items():
        for size in sizes:
            model = meta_model(SHAPES[size], MethodSpec.from_yaml(folder / f"{files[size]}.yaml"))
            cases: list[tuple[TrainStage, int, bool]] = [("align", 2, True), ("tune", 3, True), ("tune", 3, False)]
            for stage, zero, checkpointing in cases:
                line = {"Model": f"{label} {size.upper()}", "Stage": stage, "ZeRO": str(zero)}
                line["Checkpointing"] = "yes" if checkpointing else NOT_PRINTED
                for gpus in GPUS:
                    plan = capacity(
                        model, stage, gpus=gpus, zero=zero, micro_batch=PER_GPU[stage], text_tokens=text_tokens,
                        checkpointing=checkpointing,
                    )  # fmt: skip
                    line[f"{gpus} GPU{'s' * (gpus > 1)}"] = number(plan.total / GIB, 0)
                lines.append(line)
    caption = (
        f"Planned GiB per GPU: weights, gradients, Adam states, activations and a chunk of logits, for {text_tokens} "
        f"text tokens and {PER_GPU['align']} (align) or {PER_GPU['tune']} (tune) samples per GPU and forward. Smaller "
        "micro-batches shrink the activations; the global batch stays. The CUDA context and fragmentation come on top."
    )
    return Table(pd.DataFrame(lines), caption)

"""Made-up results with a notebook's page and traces, for the tests of the site."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Self

import torch
from PIL import Image
from synthetic_results import LAYERS, write_json, write_results

from visiontokens.analyze.errata import errata
from visiontokens.analyze.explorer import layer_record
from visiontokens.analyze.trace import GONE, SPREAD, LayerTrace
from visiontokens.config import Config
from visiontokens.report.render import to_html
from visiontokens.report.summaries import errata_table
from visiontokens.report.write import write_table

SCALE = "mini"
SIDE = 24
PATCHES = SIDE * SIDE
ROWS = ["none", "avgpool", "stf-mbtf", "vcc-2-8-test", "fastv-2-8-test", "qformer-32"]


class Here(Config):
    """The defaults, with results elsewhere."""

    place: Path = Path()

    @property
    def results_dir(self) -> Path:
        return self.place

    @classmethod
    def at(cls, root: Path) -> Self:
        return cls(place=root)


def owners(row: str) -> list[torch.Tensor]:
    """Return plausible places of the patches in every layer."""
    own = torch.arange(PATCHES)
    square = (own // SIDE // 2) * (SIDE // 2) + own % SIDE // 2
    few = torch.where(own % 8 == 0, own // 8, GONE)
    late = {"avgpool": square, "stf-mbtf": square, "vcc-2-8-test": own // 8, "fastv-2-8-test": few}
    always = {"avgpool", "stf-mbtf"}
    if row == "qformer-32":
        return [torch.full((PATCHES,), SPREAD)] * LAYERS
    return [late.get(row, own) if layer or row in always else own for layer in range(LAYERS)]


def trace(row: str) -> dict[str, object]:
    """Return a row's record as `visiontokens explore` writes it."""
    maps: dict[tuple[int, ...], int] = {}
    layers = []
    for number, owner in enumerate(owners(row)):
        count = 32 if row == "qformer-32" else int(owner.max()) + 1
        weights = torch.linspace(0, 1, count) ** (number + 1) / count
        layers.append(layer_record(LayerTrace(count, owner, weights), maps))
    item = {"answer": "yes", "correct": 1.0, "entered": layers[0]["tokens"], "layers": layers}
    return {
        "experiment": row, "method": row, "grid": [SIDE, SIDE], "stochastic": False, "query_aware": row[0] == "f",
        "maps": [list(owner) for owner in maps], "items": {"gqa-1/1": item, "gqa-1/2": item | {"correct": 0.0}},
    }  # fmt: skip


def write_site_results(root: Path) -> Path:
    """Write results of some rows, a notebook with its page and tables, and traces; return `root`."""
    write_results(root, only=ROWS)
    notebook = root / "notebooks/06_errata.ipynb"
    notebook.parent.mkdir()
    notebook.write_bytes(Path("notebooks/06_errata.ipynb").read_bytes())
    notebook.with_suffix(".html").write_text(to_html(notebook), encoding="utf-8")
    lines = errata()
    for name, short in (("errata", True), ("errata_all", False)):
        write_table(errata_table(lines, only_differences=short), root / "paper/tables" / name)
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((96, 96)).convert("RGB").save(buffer, "PNG")
    questions = [{"id": str(n), "prompt": f"Question {n}?\nAnswer it.", "gold": "yes"} for n in (1, 2)]
    picture = {
        "id": "gqa-1", "benchmark": "gqa", "file": "benchmarks/gqa/images/n1.jpg", "questions": questions,
        "png": base64.b64encode(buffer.getvalue()).decode(),
    }  # fmt: skip
    write_json(root / "explorer/questions.json", {"images": [picture]})
    for row in ROWS:
        write_json(root / f"explorer/{row}.json", trace(row))
    return root


def add_verdicts(root: Path) -> None:
    """Write a ledger of three made-up claims, and a leaderboard of two rows."""
    claims = [
        {
            "id": f"C{n}", "paper": "stf", "where": "Table 2", "statement": f"claim {n}", "verdict": verdict,
            "tested_as": "", "published": "1.0", "found": f"{n}.0 [0.0, 2.0], expected >= 0",
        }
        for n, verdict in enumerate(("PASS", "FAIL", "NOT RUN"), 1)
    ]  # fmt: skip
    write_json(root / "verify/ledger.json", {"claims": claims})
    table = root / "leaderboard/tables/leaderboard.csv"
    table.parent.mkdir(parents=True)
    head = "Method,Weights,Sees the question,Tokens,Average,Verdict\n"
    table.write_text(f"{head}A,trained,no,576,70.1,baseline\nB,training-free,yes,64,60.2,below\n", encoding="utf-8")

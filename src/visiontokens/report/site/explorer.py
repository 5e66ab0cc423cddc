"""The token explorer's page and its data: what `visiontokens explore` wrote, as scripts, which a disk can serve."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from visiontokens.provenance import read_json
from visiontokens.report.book import Book
from visiontokens.report.site.shell import Shell

GLOBAL = "visiontokens"


def write_explorer(shell: Shell, book: Book, traces: Path, methods: dict[str, str]) -> None:
    """Write `explorer.html` and its data; the page says so where nothing was traced.

    Args:
        shell: of the site.
        book: names and costs.
        traces: folder that `visiontokens explore` wrote.
        methods: method file -> page of the method.
    """
    images = read_json(traces / "questions.json")["images"] if (traces / "questions.json").is_file() else []
    rows: list[dict[str, Any]] = []
    for name in book.experiments.index if images else []:
        path = traces / f"{name}.json"
        if path.is_file():
            record = read_json(path)
            shell.script(f"data/explorer/{name}", GLOBAL, name, _slim(record))
            rows.append(_row(book, name, record, methods))
    if images:
        labels = {name: str(book.benchmarks["label"].get(name, name)) for name in book.benchmarks.index}
        shown = [image | {"label": labels.get(image["benchmark"], image["benchmark"])} for image in images]
        shell.script("data/explorer/index", GLOBAL, "index", {"images": shown, "rows": rows})
    shell.page("explorer", "Token explorer", "explorer", ready=bool(rows))


def _row(book: Book, name: str, record: dict[str, Any], methods: dict[str, str]) -> dict[str, Any]:
    flops = book.cost(name, "prefill_flops")
    return {
        "id": name,
        "label": book.label(name),
        "page": methods.get(str(book.experiments["method"].get(name, "")), ""),
        "flops": None if math.isnan(flops) else flops,
        "items": {
            key: [item["answer"], item["correct"], _mean(item["layers"])] for key, item in record["items"].items()
        },
    }


def _mean(layers: list[dict[str, Any]]) -> float:
    return round(sum(layer["tokens"] for layer in layers) / len(layers), 1)


def _slim(record: dict[str, Any]) -> dict[str, Any]:
    """Return a trace as the page wants it; of a map, patches that are tokens of their own, in order, become null."""
    own = list(range(record["grid"][0] * record["grid"][1]))
    return record | {"maps": [None if owner == own else owner for owner in record["maps"]]}

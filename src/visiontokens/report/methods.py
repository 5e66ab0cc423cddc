"""The page of all methods: a table and a figure per method file, generated from classes, files and rows."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch

from visiontokens.compress.base import Compressor, Geometry, MethodSpec, lookup, methods
from visiontokens.config import Experiment, read_experiments
from visiontokens.measure.flops import VICUNA_7B
from visiontokens.measure.geometry import CLIP_L_336
from visiontokens.provenance import atomic_write
from visiontokens.report.field import acts, kinds, profile
from visiontokens.report.write import NOT_PRINTED, Table, markdown, number

BEGIN, END = "<!-- {}:begin -->", "<!-- {}:end -->"
PARTS = ("methods", "choices")
"""Generated parts of the page, each between its two markers."""
CHOICE = "our choice"
"""Words that mark, in a docstring, what a paper leaves open."""


@dataclass(frozen=True)
class Facts:
    """What is drawn and listed about one method file, at LLaVA-1.5-7B's sizes.

    Attributes:
        id: of the method file.
        name: registered name.
        note: the file's own words.
        places: where it acts (`field.SEAMS`).
        levels: hidden-state indices of the tower that it reads.
        tokens: vision tokens alive in every decoder layer during prefill.
        computed: those of them that a layer computes anew; the others only give it keys and values.
        cached: vision rows in every layer's cache after it.
        searched: the counts come from a search; before it they are the most that it can find.
        query_aware: it looks at the question.
        weights: how the rows of the table use it: `trained`, `training-free`, or both.
    """

    id: str
    name: str
    note: str
    places: tuple[str, ...]
    levels: tuple[int, ...]
    tokens: tuple[float, ...]
    computed: tuple[float, ...]
    cached: tuple[float, ...]
    searched: bool
    query_aware: bool
    weights: str

    @property
    def mean(self) -> float:
        """The budget: tokens of an average layer."""
        return sum(self.tokens) / len(self.tokens)

    def drawn(self) -> str:
        """Return all that the figure shows, as text; it is stored in the figure and compared with it."""
        return repr({key: value for key, value in asdict(self).items() if key not in ("note", "weights")})


def all_facts(config: Path = Path("config")) -> list[Facts]:
    """Return the facts of every method file that a row of the experiment table uses at test time, in its order."""
    rows = read_experiments(config / "experiments.tsv")
    used: dict[str, list[Experiment]] = {}
    for row in rows.values():
        used.setdefault(row.method, []).append(row)
    known = kinds(rows, config)
    return [
        facts(config / "methods" / f"{name}.yaml", {known[row.id].trained for row in mine})
        for name, mine in used.items()
    ]


def facts(path: Path, trained: set[bool]) -> Facts:
    """Return the facts of one method file, which rows use trained or untrained; no weights are made."""
    spec = MethodSpec.from_yaml(path)
    shape, side = VICUNA_7B, CLIP_L_336.grid
    geometry = Geometry(CLIP_L_336.hidden, CLIP_L_336.layers, (side, side), shape.hidden, shape.layers)
    with torch.device("meta"):
        built: Compressor = spec.build(geometry)
    counts, computed, cached = (
        tuple(float(n) for n in counted(geometry.n_vision, shape.layers))
        for counted in (built.tokens_per_layer, built.queries_per_layer, built.kv_per_layer)
    )
    weights = [word for word, kind in (("trained", True), ("training-free", False)) if kind in trained]
    return Facts(
        id=path.stem, name=spec.name, note=spec.note, places=tuple(acts(built)), levels=built.levels,
        tokens=counts, computed=computed, cached=cached, searched=spec.search is not None,
        query_aware=type(built).looks_at_question(), weights=", ".join(weights),
    )  # fmt: skip


def methods_table(found: list[Facts], pages: Path) -> Table:
    """Return the table of all methods.

    Args:
        found: see `all_facts`.
        pages: folder of the pages, named like the method or its module; a method without one is not linked.
    """
    lines = [
        {
            "Method": _linked(fact, pages),
            "Idea": fact.note,
            "Acts": ", ".join(fact.places) or NOT_PRINTED,
            "Rows": fact.weights,
            "Sees the question": "yes" if fact.query_aware else "no",
            "Tokens per layer": "searched" if fact.searched else profile(fact.tokens),
            "Budget": "searched" if fact.searched else number(fact.mean),
            "Figure": f"[figure](figures/methods/{fact.id}.png)",
        }
        for fact in found
    ]
    caption = (
        "Tokens per layer and budget (their mean) of one image at LLaVA-1.5-7B's sizes: 576 patches, 32 layers; "
        "expected numbers where counts depend on the image. Rows: whether rows of the experiment table train it."
    )
    return Table(pd.DataFrame(lines), caption)


def _linked(fact: Facts, pages: Path) -> str:
    module = lookup(fact.name).__module__.rpartition(".")[2]  # one page for all methods of a file
    for stem in (fact.name, module):
        if (pages / f"{stem}.md").is_file():
            return f"[`{fact.id}`]({pages.name}/{stem}.md)"
    return f"`{fact.id}`"


def choices() -> dict[str, list[str]]:
    """Return the sentences of every registered method's file that say `our choice`, by registered name."""
    modules = {name: inspect.getmodule(lookup(name)) for name in sorted(methods())}
    found = {name: list(_marked(Path(inspect.getfile(module)))) for name, module in modules.items() if module}
    return {name: sentences for name, sentences in found.items() if sentences}


def _marked(path: Path) -> Iterator[str]:
    """Yield the marked sentences of a file's docstrings, each once; a line of `Attributes` counts as a sentence."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    seen = set()
    for block in (block for text in texts for block in re.split(r"\n\s*\n|\n(?=\s*\w+: )", text)):
        for sentence in re.split(r"(?<=[.;])\s+(?=[A-Z`])", " ".join(block.split())):
            if CHOICE in sentence.lower() and sentence not in seen:
                seen.add(sentence)
                yield sentence


def blocks(pages: Path, config: Path = Path("config")) -> Mapping[str, str]:
    """Return the generated parts of the page by name."""
    marked = [f"- **{name}**: {sentence}" for name, sentences in choices().items() for sentence in sentences]
    table = markdown(methods_table(all_facts(config), pages)).strip()
    return {"methods": table, "choices": "\n".join(marked) or "None is marked."}


def with_blocks(text: str, parts: Mapping[str, str], path: Path, opening: str = BEGIN) -> str:
    """Return a page with its generated parts replaced; `opening` is the marker before a part, with its name left open.

    Raises:
        ValueError: a marker is missing.
    """
    for name, body in parts.items():
        begin, end = opening.format(name), END.format(name)
        if begin not in text or end not in text:
            raise ValueError(f"{path}: expected the markers {begin} and {end}, found none")
        text = f"{text.split(begin, maxsplit=1)[0]}{begin}\n\n{body}\n\n{end}{text.split(end)[1]}"
    return text


def update_methods(page: Path, config: Path = Path("config")) -> Path:
    """Replace the generated parts of the page; the pages of single methods lie in the folder of its name."""
    text = with_blocks(page.read_text(encoding="utf-8"), blocks(page.with_suffix(""), config), page)
    with atomic_write(page) as handle:
        handle.write(text)
    return page

"""What kind of method each row of the experiment table is, read from the row and the method's class, never typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from visiontokens.compress.base import Compressor, MethodSpec, lookup
from visiontokens.config import Experiment, read_experiments, weights_root

BASELINE = "none"
POOLING = ("avgpool", "vcc")
"""Registered methods that average neighbouring tokens, before or inside the language model: what a budget is worth
without any method."""
STAGED = "schedule"
"""Family of rows whose compression changes while they train."""


@dataclass(frozen=True)
class Kind:
    """What a reader wants to know about one experiment before its scores.

    Attributes:
        experiment: id of the row.
        method: id of its method file at test time.
        name: registered name of that method.
        family: rows of one family differ in budget only: the registered name, with `-test` where nothing was trained
            for it, or `schedule`.
        trained: the weights were trained with this method, if perhaps at another budget; otherwise it runs on weights
            that do not know it.
        query_aware: the method looks at the question.
        pooling: it averages neighbouring tokens and does nothing else.
    """

    experiment: str
    method: str
    name: str
    family: str
    trained: bool
    query_aware: bool
    pooling: bool


def kind_of(experiment: str, table: Mapping[str, Experiment], methods: Path) -> Kind:
    """Return the kind of one row of the experiment table, with its method's file in the folder `methods`."""
    row = table[experiment]
    spec = MethodSpec.from_yaml(methods / f"{row.method}.yaml")
    trained, staged = trained_for(experiment, table, methods), bool(row.schedule)
    return Kind(
        experiment=experiment,
        method=row.method,
        name=spec.name,
        family=STAGED if staged else spec.name if trained else f"{spec.name}-test",
        trained=trained,
        query_aware=lookup(spec.name).looks_at_question(),
        pooling=spec.name in POOLING and not staged,
    )


def trained_for(experiment: str, table: Mapping[str, Experiment], methods: Path) -> bool:
    """Whether a row's weights were trained for it: they are its own, or another row's that trained the same method."""
    root = table[weights_root(table, experiment)]
    files = (table[experiment].method, root.train_method)
    tested, taught = (MethodSpec.from_yaml(methods / f"{name}.yaml").name for name in files)
    return root.id == experiment or tested == taught


def kinds(experiments: Iterable[str], config: Path = Path("config")) -> dict[str, Kind]:
    """Return the kinds of some experiments by id; those that the table in `config` does not have are left out."""
    table = read_experiments(config / "experiments.tsv")
    return {name: kind_of(name, table, config / "methods") for name in experiments if name in table}


def profile(per_layer: Sequence[float]) -> str:
    """Return tokens per layer as runs of equal counts from the first layer on: `576 x2, 72 x6`; `144` if all alike."""
    runs = [(value, len(list(group))) for value, group in groupby(round(count, 1) for count in per_layer)]
    return ", ".join(f"{value:g} x{count}" if len(runs) > 1 else f"{value:g}" for value, count in runs)


BEFORE, INSIDE = "before the LLM", "inside the LLM"
SEAMS = {
    "vision tower": ("levels", "run_tower"),
    BEFORE: ("tokens", "compress"),
    INSIDE: ("begin", "before_layer", "run_layer", "after_layer", "end"),
    "training": ("variants", "extra_loss"),
}
"""Where a method acts, by the hooks that it overrides; stage schedules belong to rows, not to methods."""


def acts(method: Compressor) -> list[str]:
    """Return the places where a method acts: those with a hook of its own.

    Where it may act before or inside the language model by its parameters, all patches in the first layer mean inside.
    """
    own = type(method)
    places = [
        place
        for place, hooks in SEAMS.items()
        if any(getattr(own, hook) is not getattr(Compressor, hook) for hook in hooks)
    ]
    geometry = method.geometry
    first = method.tokens_per_layer(geometry.n_vision, geometry.llm_layers)[0]
    if {BEFORE, INSIDE} <= set(places) and first == geometry.n_vision:
        places.remove(BEFORE)
    return places

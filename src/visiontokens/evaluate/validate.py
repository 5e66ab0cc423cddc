"""Exact-match accuracy on the validation split, by question family, with two controls.

Every choice of the mini scale is made here; test questions are for the tables. The *prior* is what the commonest
answer of each family would score, the *shuffled* control is the model itself with every image swapped for another
one: what it gets right without looking at the right picture.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from visiontokens.config import Config
from visiontokens.data.benchmarks import Example
from visiontokens.data.validation import FOLDER, load_validation
from visiontokens.evaluate.predict import experiment_model
from visiontokens.evaluate.predictor import Predictor
from visiontokens.provenance import stamp, write_json


def validate_experiment(config: Config, experiment: str, seed: int, model_dir: Path, out: Path) -> None:
    """Answer the validation questions with one experiment's model and write accuracies and controls to `out`."""
    model = experiment_model(config, experiment, seed, model_dir)
    predictor = Predictor.of(config, model, FOLDER)
    examples = load_validation(config.data_dir)
    right = marks(predictor, examples)
    control = marks(predictor, shuffled(examples))
    families = table(examples, right, control)
    mean = {key: float(np.mean([row[key] for row in families.values()])) for key in ("value", "prior", "shuffled")}
    questions = [[e.question_id, e.meta["family"], int(right[e.question_id])] for e in examples]
    head = {"experiment": experiment, "seed": seed, "n": len(examples), "metric": "exact match, mean over families"}
    write_json(out, {**head, **mean, "families": families, "questions": questions, "run": stamp()})


def marks(predictor: Predictor, examples: Sequence[Example]) -> dict[str, bool]:
    """Return whether each answer equals the gold one, by question id."""
    return {
        example.question_id: text == example.meta["answer"]
        for batch in predictor.answers(examples, lambda example: str(example.image))
        for example, text in batch
    }


def shuffled(examples: Sequence[Example]) -> list[Example]:
    """Return the questions, each about the next record's image."""
    images = list(dict.fromkeys(example.image for example in examples))
    other = dict(zip(images, images[1:] + images[:1], strict=True))
    return [replace(example, image=other[example.image]) for example in examples]


def table(
    examples: Sequence[Example], right: Mapping[str, bool], control: Mapping[str, bool]
) -> dict[str, dict[str, Any]]:
    """Return, by family, accuracy, standard error, prior and shuffled control in percent, and n."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[str(example.meta["family"])].append(example)
    rows = {}
    for family, members in sorted(groups.items()):
        values = np.array([right[e.question_id] for e in members], dtype=float)
        commonest = Counter(e.meta["answer"] for e in members).most_common(1)[0][1]
        rows[family] = {
            "value": 100 * float(values.mean()),
            "se": 100 * float(values.std() / len(values) ** 0.5),
            "prior": 100 * commonest / len(members),
            "shuffled": 100 * float(np.mean([control[e.question_id] for e in members])),
            "n": len(members),
        }
    return rows

"""The validation set of the mini world: single questions with the family each counts under."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks import Example
from visiontokens.data.conversation import IMAGE_TOKEN
from visiontokens.provenance import read_json

FOLDER = "validation"


def load_validation(data_dir: Path) -> list[Example]:
    """Return every turn of `validation/instruct.json` as one question about its image.

    `Example.image` is relative to `data_dir`; `meta` holds the gold `answer` and the `family`.

    Raises:
        FileNotFoundError: no validation set there.
        ValueError: records and families do not match; the message names file, record and counts.
    """
    records = read_json(data_dir / FOLDER / "instruct.json")
    families = read_json(data_dir / FOLDER / "families.json")
    examples = []
    if not isinstance(records, list) or not isinstance(families, dict):
        raise ValueError(f"{data_dir / FOLDER}/instruct.json: expected a list of records, and their families by id")
    for number, record in enumerate(records):
        try:
            examples += _questions(data_dir, record, families)
        except (KeyError, TypeError, AttributeError) as err:
            where = f"{data_dir / FOLDER}/instruct.json: record {number}"
            raise ValueError(f"{where}: {type(err).__name__}: {err}, expected id, image and conversations") from err
    return examples


def _questions(data_dir: Path, record: dict[str, Any], families: dict[str, list[str]]) -> list[Example]:
    """Return the turns of one record as questions."""
    examples = []
    messages, names = record["conversations"], families.get(record["id"], [])
    if len(messages) != 2 * len(names):
        raise ValueError(
            f"{data_dir / FOLDER}/families.json: record {record['id']!r}: expected {len(messages) // 2} families, "
            f"found {len(names)}"
        )
    for turn, family in enumerate(names):
        question = messages[2 * turn]["value"].replace(f"{IMAGE_TOKEN}\n", "")
        meta = {"answer": messages[2 * turn + 1]["value"], "family": family}
        image = f"{FOLDER}/images/{record['image']}"
        examples.append(Example(f"{record['id']}-{turn}", image, question, record["image"], meta))
    return examples

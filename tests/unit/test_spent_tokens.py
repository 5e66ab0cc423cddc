"""Where a method decides on its tokens image by image, tables count what was spent, not what its file expects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_results import VISION, write_results

from visiontokens.analyze.collect import spent_tokens
from visiontokens.report.book import Book

NAMES = ["none", "prumerge-test"]
COUNTED = {"gqa": (40.0, 300), "pope": (20.0, 100)}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of a baseline, and of a row two of whose benchmarks say what was spent, 35 tokens on average."""
    write_results(tmp_path, only=NAMES)
    for bench, (mean, questions) in COUNTED.items():
        path = tmp_path / f"scores/prumerge-test/seed0/{bench}.json"
        score = json.loads(path.read_text())
        path.write_text(json.dumps(score | {"n": questions, "predicted_vision_tokens": {bench: mean, "other": 1.0}}))
    return tmp_path


def test_the_mean_is_over_questions(results: Path) -> None:
    assert spent_tokens(results) == {"prumerge-test": 35.0}


def test_tables_count_what_was_spent_and_keep_what_was_declared(results: Path) -> None:
    book = Book.load(results)
    declared = json.loads((results / "efficiency/prumerge-test.json").read_text())
    found = book.efficiency.loc["prumerge-test"]
    assert declared["tokens_mean"] != 35
    assert found["tokens_declared"] == declared["tokens_mean"]
    assert book.cost("prumerge-test", "tokens_mean") == 35
    assert found["tokens_total"] == pytest.approx(35 * declared["layers"])
    assert found["compression_ratio"] == pytest.approx(VISION / 35)
    row = declared["kv_bytes_image"] / declared["tokens_mean"]
    assert found["kv_bytes_image"] == pytest.approx(35 * row)
    text = declared["kv_bytes"] - declared["kv_bytes_image"]
    assert found["kv_bytes"] == pytest.approx(text + 35 * row)
    assert found["prefill_flops"] == declared["prefill_flops"]


def test_rows_with_a_fixed_number_are_as_measured(results: Path) -> None:
    book = Book.load(results)
    declared = json.loads((results / "efficiency/none.json").read_text())
    assert {key: book.efficiency.loc["none"][key] for key in ("tokens_mean", "kv_bytes")} == {
        key: declared[key] for key in ("tokens_mean", "kv_bytes")
    }

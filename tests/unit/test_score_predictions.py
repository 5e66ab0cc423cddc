"""Prediction files: official format, strict validation with file, line and id, safe resumption."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from visiontokens.data.benchmarks import Example
from visiontokens.evaluate.predictions import (
    PredictionError,
    answer_record,
    mean_vision_tokens,
    read_predictions,
    write_predictions,
)

EXAMPLES = [Example(str(i), None, f"Question {i}?\nAnswer.", f"g{i}") for i in range(4)]


def lines(path, *records):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def answer(i, text="yes"):
    return {"question_id": i, "text": text}


def test_round_trip_keeps_ids_text_and_order(tmp_path):
    path = tmp_path / "deep" / "answers.jsonl"
    records = [answer_record(example, f"文{example.question_id}", "model") for example in EXAMPLES]
    write_predictions(path, reversed(records))
    assert list(read_predictions(path, EXAMPLES).items()) == [(str(i), f"文{i}") for i in range(4)]
    assert set(records[0]) == {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}
    assert len({record["answer_id"] for record in records}) == 4
    assert answer_record(EXAMPLES[0], "文0", "model") == records[0]


def test_mean_vision_tokens_are_those_of_the_answers_that_say_them(tmp_path):
    path = tmp_path / "a.jsonl"
    spent = [{"vision_tokens": 30}, {}, {"vision_tokens": 50}, None]
    write_predictions(path, [answer_record(e, "yes", "m", s) for e, s in zip(EXAMPLES, spent, strict=True)])
    assert mean_vision_tokens(path) == 40
    assert mean_vision_tokens(lines(tmp_path / "b.jsonl", answer(0))) is None


def test_integer_ids_are_accepted(tmp_path):
    path = lines(tmp_path / "a.jsonl", *(answer(i) for i in range(4)))
    assert read_predictions(path, EXAMPLES) == {str(i): "yes" for i in range(4)}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([answer(0), "{torn"], r"a.jsonl:2: not valid JSON"),
        ([answer(0), "[1]"], r"a.jsonl:2: found list, expected an answer object"),
        ([{"text": "yes"}], r"a.jsonl:1: found question_id None, expected a string or an integer"),
        ([answer(True)], r"a.jsonl:1: found question_id True"),
        ([answer(1.0)], r"a.jsonl:1: found question_id 1.0"),
        ([answer(3, None)], r"a.jsonl:1: question id 3: found text None, expected a string"),
        ([answer(0), answer(1), answer(0)], r"a.jsonl:3: question id '0' is answered again \(first on line 1\)"),
        ([answer(0), answer(9)], r"a.jsonl:2: question id '9' is foreign, expected one of the 4"),
        ([answer(0), answer(2)], r"a.jsonl: 2 of 4 questions have no answer, the first is question id '1'"),
        ([], r"4 of 4 questions have no answer"),
    ],
)
def test_bad_files_are_refused_by_file_line_and_id(tmp_path, records, message):
    path = lines(tmp_path / "a.jsonl", *records)
    with pytest.raises(PredictionError, match=message):
        read_predictions(path, EXAMPLES)


def test_llavas_ambiguous_ids_are_resolved_by_the_question(tmp_path):
    examples = [
        Example(f"count/1.png#{k}", "count/1.png", f"{q}\nAnswer.", "count/1.png", {"official_id": "count/1.png"})
        for k, q in enumerate(("Is one?", "Are two?"), 1)
    ]
    records = [
        {"question_id": "count/1.png", "prompt": "Are two?\nAnswer.", "text": "no"},
        {"question_id": "count/1.png", "prompt": "Is one?\nAnswer.", "text": "yes"},
    ]
    path = lines(tmp_path / "mme.jsonl", *records)
    assert read_predictions(path, examples) == {"count/1.png#1": "yes", "count/1.png#2": "no"}
    path = lines(tmp_path / "mme.jsonl", records[0] | {"prompt": "Other?"})
    with pytest.raises(PredictionError, match=r"'count/1\.png' is foreign"):
        read_predictions(path, examples)


def test_scoring_imports_neither_torch_nor_transformers():
    code = (
        "import sys, visiontokens.evaluate.score, visiontokens.data.benchmarks, visiontokens.analyze.stats;"
        "print(sorted({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

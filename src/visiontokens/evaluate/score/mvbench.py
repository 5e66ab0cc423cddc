"""MVBench: letters under three rules, and the mean over tasks or over questions.

* `official`, the authors' notebook: the first word of the first line, behind a bracket, within the gold "(a)" or around
  it. An empty answer is then "(" and counts as right.
* `stf`, LLaVA-STF: the character before the first ")", or the whole answer, equals the letter.
* `letter`, for our own tables: the letter or option that the answer names by MMBench's rules; an empty one is wrong.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visiontokens.data.benchmarks import Example
from visiontokens.data.benchmarks.base import read_jsonl
from visiontokens.data.benchmarks.mvbench import TASKS
from visiontokens.evaluate.bootstrap import FloatArray
from visiontokens.evaluate.predictions import Answer, PredictionError, match_answers, read_predictions
from visiontokens.evaluate.score.base import (
    MEAN_CORRECT,
    Record,
    Score,
    Statistic,
    means_by,
    record_of,
    safe_divide,
    text_for,
)
from visiontokens.evaluate.score.mmbench import extract_letter
from visiontokens.provenance import read_json

_TASKS = tuple(TASKS)


def _terms(record: Record) -> list[float]:
    """Return (gained, possible) of each task, tasks in the official order."""
    terms = [0.0] * (2 * len(_TASKS))
    place = 2 * _TASKS.index(record["task"])
    terms[place : place + 2] = [record["correct"], 1.0]
    return terms


def _mean_over_tasks(sums: FloatArray) -> FloatArray:
    """Map sums `[..., 2 T]` to the mean accuracy in percent of the tasks that have questions."""
    gained, possible = sums[..., 0::2], sums[..., 1::2]
    return 100.0 * safe_divide(safe_divide(gained, possible).sum(axis=-1), (possible > 0).sum(axis=-1).astype(float))


MACRO = Statistic(terms=_terms, combine=_mean_over_tasks)
"""Mean over tasks of their accuracies, in percent."""
AVERAGES = {"macro": MACRO, "micro": MEAN_CORRECT}


def _official(text: str, example: Example) -> bool:
    lines = text.strip().split("\n")
    answer = lines[0] if lines[0].startswith("(") else f"({lines[0]}"
    said, gold = answer.lower().split(" ")[0], f"({example.meta['answer'].lower()})"
    return said.replace(".", "") in gold or gold in said


def _stf(text: str, example: Example) -> bool:
    end = text.find(")")
    return (text if end < 0 else text[end - 1 : end]) == str(example.meta["answer"])


def _letter(text: str, example: Example) -> bool:
    return extract_letter(text.strip().removeprefix("("), example.meta["options"]) == example.meta["answer"]


RULES: dict[str, Callable[[str, Example], bool]] = {"official": _official, "stf": _stf, "letter": _letter}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "official": {"rule": "official", "average": "micro"},
    "correct": {"rule": "letter", "average": "macro"},
    "stf": {"rule": "stf", "average": "macro"},
}
"""The notebook's numbers, ours, and LLaVA-STF's."""


def score_mvbench(
    examples: Sequence[Example], predictions: Mapping[str, str], *, rule: str = "letter", average: str = "macro"
) -> Score:
    """Score MVBench; `parts` has every task and both averages.

    Args:
        examples: the questions.
        predictions: question id -> answer.
        rule: key of `RULES`.
        average: "macro" over tasks or "micro" over questions; the same where all tasks have as many.

    Raises:
        ValueError: an unknown rule or average.
    """
    for name, value, known in (("rule", rule, tuple(RULES)), ("average", average, tuple(AVERAGES))):
        if value not in known:
            raise ValueError(f"mvbench: {name}: found {value!r}, expected one of {', '.join(known)}")
    records = []
    for example in examples:
        text, task = text_for(example, predictions), example.meta["task"]
        right = RULES[rule](text, example)
        records.append(record_of(example, text, right, answer=example.meta["answer"], task=task, stratum=task))
    parts = {name: statistic(records) for name, statistic in AVERAGES.items()} | means_by(records, "task", "task")
    parts["empty"] = float(np.sum([not record["prediction"].strip() for record in records]))
    statistic, policy = AVERAGES[average], {"rule": rule, "average": average}
    return Score("mvbench", f"{average} accuracy", statistic(records), parts, records, statistic, policy)


def read_mvbench(path: Path, examples: Sequence[Example]) -> dict[str, str]:
    """Read answers into question id -> answer, in the order of `examples`.

    The forms: LLaVA's JSON lines; LLaVA-STF's lines with `video`, `question` and `pred`; the JSON object of either
    script, whose `res_list` holds answers in the official order with their gold texts.

    Raises:
        FileNotFoundError: there is no such file.
        PredictionError: an answer is no text, belongs to no question or to another one, or is missing.
    """
    path = Path(path)
    if path.suffix == ".json":
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("res_list"), list):
            raise PredictionError(f"{path}: expected an object with the list 'res_list'")
        return _joined(path, content["res_list"], examples)
    rows = read_jsonl(path)
    return read_predictions(path, examples) if rows and "question_id" in rows[0] else _joined(path, rows, examples)


def _joined(path: Path, rows: Sequence[Mapping[str, Any]], examples: Sequence[Example]) -> dict[str, str]:
    """Join answers to questions: by video and question where they are given, else by place and gold text."""
    waiting: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        waiting[_key(example.meta["task"], example.meta["video"], example.meta["question"])].append(example.question_id)
    if len(rows) != len(examples):
        raise PredictionError(f"{path}: found {len(rows)} answers, expected {len(examples)}")
    answers: dict[str, str] = {}
    for number, (row, example) in enumerate(zip(rows, examples, strict=True), 1):
        where = f"{path}: answer {number}"
        if not isinstance(row, dict) or not isinstance(row.get("pred"), str):
            raise PredictionError(f"{where}: expected an object with the text 'pred', found {row!r}")
        if "question" in row and "video" in row:
            task, video = str(row.get("question_type")), str(row["video"])
            folder = f"{TASKS[task].folder}/" if task in TASKS else ""
            key = _key(task, video.rpartition(folder)[2] if folder else video, str(row["question"]))
            if not waiting.get(key):
                raise PredictionError(f"{where}: no question {row['question']!r} on {video} of task {task!r} is left")
            answers[waiting[key].pop(0)] = row["pred"]
        else:
            letter, options = example.meta["answer"], example.meta["options"]
            gold = f"({letter}) {options['ABCDEFGHIJ'.index(letter)]}"
            if row.get("gt") != gold:
                raise PredictionError(f"{where}: found gt {row.get('gt')!r}, expected {gold!r}: another order")
            answers[example.question_id] = row["pred"]
    return match_answers(path, (Answer(str(path), key, text) for key, text in answers.items()), examples)


def _key(task: str, video: str, question: str) -> str:
    return json.dumps([task, video, question])

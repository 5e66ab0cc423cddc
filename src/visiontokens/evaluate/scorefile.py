"""One released answer file against the official files: what `visiontokens score` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks import Benchmark, BenchmarkError, Example, find_benchmark
from visiontokens.data.benchmarks.base import check_examples
from visiontokens.evaluate.judge import Judge
from visiontokens.evaluate.predictions import PredictionError
from visiontokens.evaluate.score import SCORERS, read_answers, score_answers, score_json
from visiontokens.evaluate.score.judged import Judged

TOLD = "told by the answer file, which may lack questions unnoticed"
"""In the place of a folder of official files, where released results hold truth or verdicts themselves."""

Found = tuple[list[Example], dict[str, str], Judged | None]
"""Questions, answers, verdicts."""


def score_file(
    name: str,
    answers: Path,
    data: Path,
    *,
    policy: str = "official",
    judge: Judge | None = None,
    runs: int = 1,
    resamples: int = 2000,
) -> dict[str, Any]:
    """Score one answer file and return the result as a JSON object.

    Args:
        name: benchmark.
        answers: file (MME: or folder) in a format that answers to the benchmark are released in.
        data: folder of the benchmark's official files, or the folder above it.
        policy: "official", "correct", or another one that the benchmark has.
        judge: who judges free answers; see `score.read_answers`.
        runs: times that every answer is judged.
        resamples: of the bootstrap interval.

    Raises:
        BenchmarkError: the benchmark is unknown, or an official file is damaged.
        FileNotFoundError: a file is missing; the message names the file and where it was looked for.
        PredictionError: answers and questions do not match.
        JudgeError: the judge cannot be asked.
    """
    benchmark = find_benchmark(name)
    if not answers.exists():
        raise FileNotFoundError(f"{answers}: no such answer file")
    (examples, texts, judged), source = _matched(benchmark, answers, data, judge, runs)
    score = score_answers(name, examples, texts, policy=policy, judged=judged)
    found = score_json(score, resamples=resamples)
    interval = {key: found.pop(key) for key in ("ci_low", "ci_high", "se", "bootstrap")}
    return {
        "benchmark": name,
        "score": found.pop("value"),
        **found,
        "interval": {"low": interval.pop("ci_low"), "high": interval.pop("ci_high"), **interval},
        "answers": str(answers),
        "data": source,
    }


def data_folder(benchmark: Benchmark, data: Path) -> Path:
    """Return `data/<benchmark>` if it is there, else `data` itself."""
    below = data / benchmark.folder
    return below if below.is_dir() else data


def _matched(benchmark: Benchmark, path: Path, data: Path, judge: Judge | None, runs: int) -> tuple[Found, str]:
    """Return questions, answers and verdicts of the first split that the answers belong to, and where it came from."""
    folder = data_folder(benchmark, data)
    first: PredictionError | FileNotFoundError | None = None
    for split in benchmark.splits or ("",):
        options = {"split": split} if split else {}
        try:
            examples = check_examples(benchmark.name, benchmark.load(folder, **options))
            return (examples, *read_answers(benchmark.name, path, examples, judge, runs)), _named(folder, split)
        except BenchmarkError:
            if first is None:
                raise  # in a split that is not the first one it says only that there is no such split
        except (PredictionError, FileNotFoundError) as err:
            if isinstance(first, FileNotFoundError) and isinstance(err, PredictionError):
                first = err  # the second split's files are there, the first one's are not
            first = first or err
    if isinstance(first, FileNotFoundError):
        told = _told(benchmark.name, path)
        if told:
            return (told, *read_answers(benchmark.name, path, told, judge, runs)), TOLD
        below = f", nor is there {data / benchmark.folder}" if folder == data else ""
        raise FileNotFoundError(f"official files of {benchmark.name}: {first}{below}") from first
    assert first is not None
    raise first


def _named(folder: Path, split: str) -> str:
    return f"{folder} ({split})" if split else str(folder)


def _told(name: str, path: Path) -> list[Example]:
    """Return the questions of an answer file that holds truth or verdicts itself; none of another file."""
    questions = SCORERS[name].questions
    found = questions(path) if questions else []
    return check_examples(name, found) if found else []

"""Judged benchmarks: what the judge is shown, what counts as a verdict, both policies, released files, no tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from visiontokens.analyze.collect import parts, scores
from visiontokens.analyze.paired import against
from visiontokens.config import Config
from visiontokens.data.benchmarks import BENCHMARKS, BenchmarkError, Example
from visiontokens.evaluate.judge import STAND_IN, Ask, Reply
from visiontokens.evaluate.predictions import PredictionError
from visiontokens.evaluate.score import SCORERS, read_answers, score_answers, score_json, write_score
from visiontokens.evaluate.score import llava_bench as bench
from visiontokens.evaluate.score import mmvet as vet
from visiontokens.evaluate.score import videojudge as video
from visiontokens.evaluate.score.judged import judge_answers
from visiontokens.evaluate.scoring import score_experiment
from visiontokens.report import card

VET = [
    Example("v1_0", "v1_0.png", "What is x?", "v1_0.png", {"answer": "2<AND>-7", "capabilities": ("math", "ocr")}),
    Example("v1_1", "v1_1.png", "What color?", "v1_1.png", {"answer": "red<OR>dark red", "capabilities": ("rec",)}),
]
BENCH = [
    Example(str(n), f"{n}.jpg", "What?", f"{n}.jpg",
            {"category": category, "context": "a red cat", "reference": "a cat", "rule": {}})
    for n, category in enumerate(("conv", "detail", "complex"))
]  # fmt: skip
VIDEO = [
    Example(str(n), f"{name}.mp4", "What?", name,
            {"answer": answer, "kind": "what", "question": f"Q{n}", "official_id": name})
    for n, (name, answer) in enumerate((("a", "dog"), ("a", "running"), ("b", "two")))
]  # fmt: skip


class Script:
    """A judge that says what it is told to, and remembers what it was asked."""

    id, stand_in = "script", False

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.asked: list[Ask] = []

    def reply(self, ask: Ask) -> Reply:
        self.asked.append(ask)
        return Reply(self.texts.pop(0), f"2024-01-0{len(self.asked)}")


def test_mmvet_asks_again_and_warmer_until_there_is_a_grade() -> None:
    judge = Script("Well", "1.5", "0.4", "1.0 because")
    judged = judge_answers(vet.PROTOCOL, judge, VET, {"v1_0": "x = 2", "v1_1": "red"})
    assert judged.replies == {"v1_0": ["0.4"], "v1_1": ["1.0 because"]}
    assert [ask.temperature for ask in judge.asked] == [0.0, 0.0, 0.5, 0.0]
    assert [ask.prompt.endswith(vet.REMINDER) for ask in judge.asked] == [False, True, True, False]
    assert judge.asked[0].prompt.endswith("\nWhat is x? | 2 <AND> -7 | x = 2 | ") and judge.asked[0].max_tokens == 3
    assert judged.judge == {"id": "script", "stand_in": False, "date": ["2024-01-03", "2024-01-04"], "replies": 2}


def test_mmvet_runs_capabilities_and_failures_under_both_policies() -> None:
    replies = {"v1_0": ["0.5", "none"], "v1_1": ["1.0", "0.9"]}
    correct, official = (vet.score_mmvet(VET, {}, replies, **vet.PROTOCOL.policies[p]) for p in ("correct", "official"))
    assert correct.value == pytest.approx(100 * (0.5 + 0.95) / 2)
    assert official.value == pytest.approx(100 * (0.25 + 0.95) / 2)
    assert official.parts["run/1"] == pytest.approx(75) and official.parts["run/2"] == pytest.approx(45)
    assert correct.parts["run/2"] == pytest.approx(90) and correct.parts["failed"] == 1
    assert correct.parts["capability/rec"] == pytest.approx(95) == correct.parts["set/rec"]
    assert official.parts["capability/math"] == pytest.approx(25) == official.parts["set/math+ocr"]
    assert SCORERS["mmvet"].statistic(official.per_question) == pytest.approx(official.value)


def test_mmvet_grade_files_and_results(tmp_path: Path) -> None:
    grades = {"v1_0": {"model": ["gpt-4"], "content": ["no idea"], "score": [0.0]},
              "v1_1": {"model": ["gpt-4"], "content": ["0.5"], "score": [0.5]}}  # fmt: skip
    path = tmp_path / "grades.json"
    path.write_text(json.dumps(grades))
    answers, judged = read_answers("mmvet", path, VET)
    assert answers == {} and judged is not None and judged.judge["id"] == "gpt-4, as released with the answers"
    score = score_answers("mmvet", VET, answers, judged=judged, policy="official")
    assert score.policies == {"official": 25.0, "correct": 50.0} and score.parts["failed"] == 1
    assert [example.question_id for example in vet.graded_questions(path)] == ["v1_0", "v1_1"]
    for content, message in (
        ({"v1_0": grades["v1_0"]}, "1 of 2 questions have no answer"),
        ({**grades, "v1_9": grades["v1_0"]}, "'v1_9' is foreign"),
        ({**grades, "v1_1": {"score": [2]}}, "expected numbers in 0 … 1"),
        ({**grades, "v1_1": {"score": [0.5, 0.5]}}, "same number for every question"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(PredictionError, match=message):
            read_answers("mmvet", path, VET)
    for content in ({"v1_0": "x", "v1_1": "y"}, [{"question_id": 0, "text": "x"}, {"question_id": 1, "text": "y"}]):
        path.write_text(json.dumps(content))
        assert vet.read_mmvet(path, VET) == {"v1_0": "x", "v1_1": "y"}


@pytest.mark.parametrize(
    ("reply", "pair"),
    [
        ("7 9\nBecause", (7, 9)), ("7.5,8", (7.5, 8)), ("7 9 8", None), ("7, 9", None), ("Scores: 7 9", None),
        ("", None), ("-1 -1", None), ("nan 3", None),
    ],
)  # fmt: skip
def test_llava_bench_points(reply: str, pair: tuple[float, float] | None) -> None:
    assert bench.parse(reply) == pair


def test_llava_bench_policies_categories_and_rounding() -> None:
    replies = {"0": ["8 6"], "1": ["9 9"], "2": ["I cannot say"]}
    correct, official = (
        bench.score_llava_bench(BENCH, {}, replies, **bench.PROTOCOL.policies[p]) for p in ("correct", "official")
    )
    assert correct.value == pytest.approx(100 * 15 / 17) and official.value == pytest.approx(100 * 14 / 16)
    assert correct.parts["conv"] == 75 and correct.parts["failed"] == 1
    assert official.parts["points/reference"] == pytest.approx(10 * 16 / 3)
    assert official.parts["printed/all"] == round(100 * 4.667 / 5.333, 1)
    for score in (correct, official):
        assert SCORERS["llava_bench"].statistic(score.per_question) == pytest.approx(score.value)


def test_llava_bench_shows_context_question_and_both_answers(tmp_path: Path) -> None:
    root = tmp_path / "llava_bench"
    root.mkdir()
    rows = [{"question_id": 0, "image": "1.jpg", "category": "conv", "text": "What is it?"}]
    (root / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    example = BENCHMARKS["llava_bench"].read(tmp_path)[0]
    with pytest.raises(BenchmarkError, match=r"no context: context\.jsonl is needed"):
        bench.ask(example, "a dog", 0, 0)
    (root / "context.jsonl").write_text(json.dumps({"image": "1.jpg", "caption": ["A cat.", "It sleeps."]}) + "\n")
    (root / "answers_gpt4.jsonl").write_text(json.dumps({"question_id": 0, "text": "a cat"}) + "\n")
    asked = bench.ask(BENCHMARKS["llava_bench"].read(tmp_path)[0], "a dog", 0, 0)
    order = [asked.prompt.index(text) for text in ("A cat.\nIt sleeps.", "What is it?", "a cat", "a dog", bench.RULE)]
    assert order == sorted(order) and "[Assistant 1]\na cat\n\n[End of Assistant 1]" in asked.prompt
    points = bench.parse(asked.offline)
    assert points is not None and points[0] > points[1], "the stand-in sees that the reference says more of the context"
    rule = {"llava_bench_conv": {"role": "Helper", "prompt": "Own rule."}}
    (root / "rule.json").write_text(json.dumps(rule))
    asked = bench.ask(BENCHMARKS["llava_bench"].read(tmp_path)[0], "a dog", 0, 0)
    assert "[Helper 2]\na dog" in asked.prompt and asked.prompt.endswith("[System]\nOwn rule.\n\n")


def test_reviews_are_joined_by_id(tmp_path: Path) -> None:
    rows = [{"question_id": n, "category": f"llava_bench_{e.meta['category']}", "content": "x", "tuple": [8, 4 + n]}
            for n, e in enumerate(BENCH)]  # fmt: skip
    path = tmp_path / "review.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    _, judged = read_answers("llava_bench", path, BENCH)
    assert judged is not None
    score = score_answers("llava_bench", BENCH, {}, judged=judged)
    assert score.parts["complex"] == 75 and score.value == pytest.approx(100 * 15 / 24)
    assert {example.meta["category"] for example in bench.reviewed_questions(path)} == {"conv", "detail", "complex"}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    with pytest.raises(PredictionError, match="answered again"):
        read_answers("llava_bench", path, BENCH)


@pytest.mark.parametrize(
    ("reply", "official", "correct"),
    [
        ("{'pred': 'yes', 'score': 5}", 1.0, 1.0),
        ("Sure: {'pred': 'Yes', 'score': 4.8}.", 1.0, 1.0),
        ("{'pred': 'no, yes would be wrong', 'score': 1}", 1.0, 0.0),
        ("{'pred': 'not', 'score': 0}", 0.0, 0.0),
        ("{'pred': 'maybe', 'score': 2}", None, 0.0),
        ("yes, 5", None, 0.0),
        ("{'pred': __import__('os').name, 'score': 1}", None, 0.0),
    ],
)
def test_verdicts_on_videos(reply: str, official: float | None, correct: float) -> None:
    replies = {"0": [reply], "1": ["{'pred': 'no', 'score': 0}"], "2": ["{'pred': 'yes', 'score': 4}"]}
    protocol = SCORERS["tgif_qa"].judged
    assert protocol is not None
    loose = protocol.score(VIDEO, {}, replies, loose=True)
    assert loose.value == pytest.approx(100 * (1 + (official or 0)) / (2 if official is None else 3))
    assert protocol.score(VIDEO, {}, replies, loose=False).value == pytest.approx(100 * (1 + correct) / 3)


def test_a_judge_stands_beside_exact_match() -> None:
    answers = {"0": "a dog", "1": "running", "2": "three"}
    judge = Script("{'pred': 'yes', 'score': 4}", "no", "{'pred': 'yes', 'score': 5}", "{'pred': 'no', 'score': 1}")
    protocol = SCORERS["msvd_qa"].judged
    assert protocol is not None
    judged = judge_answers(protocol, judge, VIDEO, answers)
    score = score_answers("msvd_qa", VIDEO, answers, judged=judged)
    assert score.metric == "accuracy of a judge" and score.value == pytest.approx(200 / 3)
    assert score.parts["exact_match"] == pytest.approx(100 / 3) and score.parts["points"] == pytest.approx(10 / 3)
    assert score_answers("msvd_qa", VIDEO, answers).metric == "exact match (offline)"
    assert "Correct Answer: dog\nPredicted Answer: a dog" in judge.asked[0].prompt
    assert video.parse(judge.asked[1].offline) == video.Verdict("yes", 5.0)


def test_released_verdicts_are_found_by_id_or_by_video_and_question(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    verdicts = [{"pred": "yes", "score": 5}, {"pred": "no", "score": 1}, {"pred": "yes", "score": 3}]
    by_id = {str(n): [verdict, {"q": "?"}] for n, verdict in enumerate(verdicts)}
    examples = [Example(e.question_id, e.image, f"Q{n}", e.group, e.meta) for n, e in enumerate(VIDEO)]
    by_name = {name: [verdict, {"q": f"Q{n}", "a": "", "pred": ""}]
               for n, (name, verdict) in enumerate(zip(("a_0", "a_1", "b_0"), verdicts, strict=True))}  # fmt: skip
    for content in (by_id, by_name):
        path.write_text(json.dumps(content))
        _, judged = read_answers("tgif_qa", path, examples)
        assert judged is not None
        score = score_answers("tgif_qa", examples, {}, judged=judged, policy="official")
        assert score.value == pytest.approx(200 / 3) and score.parts["points"] == 3
    path.write_text(json.dumps({**by_id, "9": by_id["0"]}))
    with pytest.raises(PredictionError, match="foreign"):
        read_answers("tgif_qa", path, examples)


def test_nothing_that_a_stand_in_judged_enters_a_table(tmp_path: Path) -> None:
    """Neither the table of scores nor their parts, paired tests, or a model's card."""
    score = SCORERS["mmvet"].score(VET, {"v1_0": "2 and -7", "v1_1": "red"})
    found: dict[str, Any] = score_json(score, resamples=20)
    assert found["judge"]["stand_in"] is True and found["value"] == 100
    for name, who in (("a", score.judge), ("b", {"id": "m", "stand_in": False})):
        for experiment in ("none", "other"):
            path = tmp_path / name / "scores" / experiment / "seed0" / "mmvet.json"
            path.parent.mkdir(parents=True)
            write_score(replace(score, judge=who), path, resamples=20)
    refused, taken = tmp_path / "a", tmp_path / "b"
    assert scores(refused).empty and parts(refused).empty and against(refused, "none", ["other"]).empty
    assert len(scores(taken)) == 2 and not parts(taken).empty and len(against(taken, "none", ["other"])) == 1
    for root, shown in ((refused, False), (taken, True)):
        assert ("mmvet" in "\n".join(card._scores(root / "scores" / "none" / "seed0"))) is shown


def test_the_workflows_scoring_job_names_the_stand_in_or_the_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opted into by `evaluate.benchmarks`; a configured judge is asked about the benchmarks that it is named for."""
    official = tmp_path / "data/benchmarks/mmvet"
    official.mkdir(parents=True)
    rows = {
        e.question_id: {"imagename": e.image, "question": e.prompt, "answer": e.meta["answer"], "capability": ["rec"]}
        for e in VET
    }
    (official / "mm-vet.json").write_text(json.dumps(rows))
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    (predictions / "record.json").write_text("{}")
    lines = [json.dumps({"question_id": e.question_id, "text": "red 2"}) + "\n" for e in VET]
    (predictions / "mmvet.jsonl").write_text("".join(lines))
    judge = Script("0.5", "1.0")
    monkeypatch.setattr("visiontokens.evaluate.scoring.make_judge", lambda _: judge)
    for settings, who, value in (
        ({}, STAND_IN, 75.0),
        ({"judge": {"url": "http://nowhere", "model": "m", "benchmarks": []}}, STAND_IN, 75.0),
        ({"judge": {"url": "http://nowhere", "model": "m"}}, "script", 75.0),
    ):
        evaluate = {"benchmarks": ["mmvet"], "bootstrap": 10, **settings}
        config = Config.model_validate({"scale": "tiny", "data": str(tmp_path / "data"), "evaluate": evaluate})
        score_experiment(config, "none", 0, predictions, tmp_path / "scores")
        found = json.loads((tmp_path / "scores" / "mmvet.json").read_text())
        assert (found["judge"]["id"], found["judge"]["stand_in"]) == (who, who == STAND_IN)
        assert found["value"] == pytest.approx(value) and found["policy"] == "correct"
    assert judge.texts == []

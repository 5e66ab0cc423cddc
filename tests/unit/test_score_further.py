"""SEED-Bench, MMMU and MVBench: parsing, policies, metrics, and the forms in which answers are released."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visiontokens.data.benchmarks import Example, prompts
from visiontokens.data.benchmarks.mvbench import TASKS
from visiontokens.evaluate.predictions import PredictionError
from visiontokens.evaluate.score import SCORERS
from visiontokens.evaluate.score.mmmu import (
    normalise,
    open_match,
    parse_choice,
    parse_open,
    read_mmmu,
    score_mmmu,
)
from visiontokens.evaluate.score.mvbench import MACRO, RULES, read_mvbench, score_mvbench
from visiontokens.evaluate.score.seed import read_seed, score_seed


def seed_example(key, answer="A", kind="Scene Understanding", part="image"):
    meta = {"answer": answer, "type": kind, "part": part, "official_id": str(key).split("#")[0]}
    return Example(str(key), "i", "q", "g", meta)


def jsonl(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_seed_is_exact():
    examples = [seed_example(1), seed_example(2, kind="Text Understanding"), seed_example(3), seed_example(4, "B")]
    score = score_seed(examples, {"1": "A", "2": "A.", "3": "a", "4": "B"})
    assert score.value == 50
    assert score.parts["type/Text Understanding"] == 0
    assert score.parts["part/image"] == 50
    assert score.parts["no_letter"] == 2


def test_seed_reads_llavas_answers_and_the_upload(tmp_path):
    examples = [seed_example("49914"), seed_example("7"), seed_example("49914#2")]
    llava = [{"question_id": 49914, "text": "A"}, {"question_id": 7, "text": "B"}, {"question_id": 49914, "text": "C"}]
    expected = {"49914": "A", "7": "B", "49914#2": "C"}
    assert read_seed(jsonl(tmp_path / "a.jsonl", *llava), examples) == expected
    upload = [{"question_id": str(row["question_id"]), "prediction": row["text"]} for row in llava]
    videos = [{"question_id": "v1738", "prediction": "D"}]
    assert read_seed(jsonl(tmp_path / "b.jsonl", *upload, *videos), examples) == expected
    once = read_seed(jsonl(tmp_path / "c.jsonl", *upload[:2]), examples)
    assert once["49914#2"] == "A"
    own = [{"question_id": key, "text": text} for key, text in expected.items()]
    assert read_seed(jsonl(tmp_path / "d.jsonl", *own), examples) == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question_id": "1", "text": 3}], "a.jsonl:1: question id '1': found 3, expected a text"),
        ([{"question_id": "9", "text": "A"}], "a.jsonl:1: question id '9' is foreign"),
        ([{"question_id": "1", "text": "A"}], "1 of 2 questions have no answer, the first is question id '2'"),
        ([{"question_id": "1", "text": "A"}] * 2, "question id '1' is answered 2 times, expected once"),
    ],
)
def test_seed_answers_that_do_not_fit_are_named(tmp_path, rows, message):
    with pytest.raises(PredictionError, match=message):
        read_seed(jsonl(tmp_path / "a.jsonl", *rows), [seed_example(1), seed_example(2)])


OPTIONS = ("a red ball", "the sea", "Venice", "none")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(C) Venice", "C"),
        ("It is A or rather D", "D"),
        ("(A) is not right, (B) is", "B"),
        ("A (B)", "B"),
        ("I think that this must be Venice", "C"),
        ("This is Venice", ""),
        ("maybe the sea and maybe a red ball there", "A"),
        ("E", ""),
        ("b", ""),
        ("", ""),
    ],
)
def test_mmmu_letters(text, letter):
    assert parse_choice(text, OPTIONS) == letter


@given(st.text(max_size=60), st.lists(st.text(max_size=8), min_size=1, max_size=9))
def test_mmmu_letter_is_always_one_of_the_options(text, options):
    letter = parse_choice(text, options)
    assert letter == "" or letter in "ABCDEFGHI"[: len(options)]


@pytest.mark.parametrize(
    ("text", "answers", "right"),
    [
        ("8", ("8",), True),
        ("The answer is 8.004", ("8",), True),
        ("so x = 1,234.5", ("1234.5",), True),
        ("Total cost is $1,200", ("1200",), True),
        ("6e2", ("600",), True),
        ("The result is blue whale", ("Blue Whale",), True),
        ("blue", ("blue whale",), False),
        ("apple", ("a",), False),
        ("it is a", ("a",), True),
        ("18", ("8",), False),
        ("four", ("4", "four"), True),
        ("", ("8",), False),
    ],
)
def test_mmmu_open_answers(text, answers, right):
    assert open_match(text, answers) is right


def test_mmmu_normal_forms():
    assert normalise(" 1,234.567 ") == [1234.57]
    assert normalise("A") == [" a", "a "]
    assert normalise("Red Ball") == ["red ball"]
    assert parse_open("First it is 3.\nSo x = 12") == {3.0, 12.0}


def mmmu_example(key, answers=("A",), kind="multiple-choice", subject="Art", n_images=1):
    options = OPTIONS if kind == "multiple-choice" else ()
    meta = {"answers": answers, "question_type": kind, "options": options, "subject": subject, "n_images": n_images}
    return Example(key, "i", "q", key, meta)


def test_mmmu_policies_differ_only_where_no_letter_is_found():
    examples = [mmmu_example(f"validation_Art_{n}", ("ABCD"[n % 4],)) for n in range(40)]
    answers = {example.question_id: "A" if n < 20 else "no idea" for n, example in enumerate(examples)}
    correct, official = (score_mmmu(examples, answers, **SCORERS["mmmu"].policies[p]) for p in ("correct", "official"))
    assert correct.value == 100 * 5 / 40
    assert correct.parts["unparsed"] == official.parts["unparsed"] == 20
    rng = random.Random(42)
    drawn = sum(rng.choice("ABCD") == example.meta["answers"][0] for example in examples[20:])
    assert drawn > 0 and official.value == 100 * (5 + drawn) / 40
    assert score_mmmu(examples, answers).policy == {"unparsed": "wrong"}
    with pytest.raises(ValueError, match="unparsed: found 'skip'"):
        score_mmmu(examples, answers, unparsed="skip")


def test_mmmu_is_micro_over_subjects_and_domains():
    examples = [mmmu_example("validation_Art_1"), mmmu_example("validation_Music_1", subject="Music")]
    examples += [mmmu_example("validation_Math_1", ("4",), "open", "Math", n_images=2)]
    score = score_mmmu(examples, {"validation_Art_1": "A", "validation_Music_1": "B", "validation_Math_1": "4"})
    assert score.value == pytest.approx(200 / 3)
    assert score.parts["domain/Art and Design"] == 50
    assert score.parts["domain/Science"] == score.parts["kind/open"] == score.parts["images/several"] == 100


def test_mmmu_reads_every_released_form(tmp_path):
    examples = [mmmu_example("validation_Art_1"), mmmu_example("validation_Music_1", subject="Music")]
    answers = {"validation_Art_1": "A", "validation_Music_1": "two"}
    (tmp_path / "total.json").write_text(json.dumps(answers))
    lines = [{"question_id": key, "text": text} for key, text in answers.items()]
    jsonl(tmp_path / "llava.jsonl", *lines)
    for subject in ("Art", "Music"):
        (tmp_path / "run" / subject).mkdir(parents=True)
        row = {"id": f"validation_{subject}_1", "response": answers[f"validation_{subject}_1"], "answer": "B"}
        (tmp_path / "run" / subject / "output.json").write_text(json.dumps([row]))
    for name in ("total.json", "llava.jsonl", "run"):
        assert read_mmmu(tmp_path / name, examples) == answers
    (tmp_path / "total.json").write_text(json.dumps({"validation_Art_1": "A"}))
    with pytest.raises(PredictionError, match=r"1 of 2 questions have no answer, .* 'validation_Music_1'"):
        read_mmmu(tmp_path / "total.json", examples)
    (tmp_path / "total.json").write_text(json.dumps(answers | {"validation_Art_1": None}))
    with pytest.raises(PredictionError, match="'validation_Art_1': found None, expected a text"):
        read_mmmu(tmp_path / "total.json", examples)
    with pytest.raises(FileNotFoundError, match=r"no <subject>/output\.json"):
        read_mmmu(tmp_path / "run" / "Art", examples)


def mvbench_example(number, task="Action Antonym", answer="B", options=("Sit.", "Run.", "Eat."), question="What next?"):
    asked = prompts.mvbench_question(question, options)
    meta = {"answer": answer, "options": options, "task": task, "video": f"v{number}.mp4", "question": asked}
    return Example(f"{task}/{number}", f"v{number}.mp4", "q", f"v{number}.mp4", meta)


@pytest.mark.parametrize(
    ("text", "official", "stf", "letter"),
    [
        ("B", True, True, True),
        ("(B) Run.", True, True, True),
        ("B) Run.", True, True, True),
        ("B.", True, False, True),
        ("", True, False, False),
        ("Run.", False, False, True),
        ("A", False, False, False),
        ("(B) Run.\nbecause of A", True, True, True),
        (") B", False, False, True),
    ],
)
def test_mvbench_rules(text, official, stf, letter):
    example = mvbench_example(0)
    found = {name: rule(text, example) for name, rule in RULES.items()}
    assert found == {"official": official, "stf": stf, "letter": letter}


def test_mvbench_averages():
    tasks = list(TASKS)[:2]
    examples = [mvbench_example(n, tasks[0]) for n in range(3)] + [mvbench_example(9, tasks[1])]
    answers = {example.question_id: "B" for example in examples[:3]} | {examples[3].question_id: ""}
    scores = {name: score_mvbench(examples, answers, **policy) for name, policy in SCORERS["mvbench"].policies.items()}
    assert scores["official"].value == 100
    assert scores["correct"].value == scores["stf"].value == 50
    assert scores["correct"].parts["micro"] == 75
    assert scores["correct"].parts["empty"] == 1
    assert scores["correct"].statistic is MACRO
    found = MACRO.interval(scores["correct"].per_question, resamples=50)
    assert (found.low, found.high) == (50, 50)
    with pytest.raises(ValueError, match="rule: found 'loose'"):
        score_mvbench(examples, answers, rule="loose")


def test_mvbench_reads_the_scripts_results(tmp_path):
    examples = [mvbench_example(0), mvbench_example(1, answer="A")]
    gold = ["(B) Run.", "(A) Sit."]
    answers = {example.question_id: text for example, text in zip(examples, ("(B", "(C"), strict=True)}
    rows = [{"pred": text, "gt": truth} for text, truth in zip(answers.values(), gold, strict=True)]
    path = tmp_path / "notebook.json"
    path.write_text(json.dumps({"acc_dict": {}, "res_list": rows}))
    assert read_mvbench(path, examples) == answers
    path.write_text(json.dumps({"acc_dict": {}, "res_list": rows[::-1]}))
    with pytest.raises(PredictionError, match=r"answer 1: found gt .* another order"):
        read_mvbench(path, examples)
    folder = "data/video/ssv2_video"
    lines = [
        {"pred": text, "gt": truth, "question": example.meta["question"], "question_type": example.meta["task"],
         "video": f"{folder}/{example.meta['video']}"}
        for text, truth, example in zip(answers.values(), gold, examples, strict=True)
    ]  # fmt: skip
    assert read_mvbench(jsonl(tmp_path / "stf.jsonl", *lines[::-1]), examples) == answers
    with pytest.raises(PredictionError, match="is left"):
        read_mvbench(jsonl(tmp_path / "stf.jsonl", lines[0], lines[0]), examples)
    with pytest.raises(PredictionError, match="found 1 answers, expected 2"):
        read_mvbench(jsonl(tmp_path / "stf.jsonl", lines[0]), examples)
    own = [{"question_id": key, "text": text} for key, text in answers.items()]
    assert read_mvbench(jsonl(tmp_path / "own.jsonl", *own), examples) == answers


@pytest.mark.parametrize("name", ["seed", "mmmu", "mvbench"])
def test_registered_policies_are_options_of_the_scorer(name):
    scorer = SCORERS[name]
    assert {"official", "correct"} <= set(scorer.policies)
    examples = {
        "seed": [seed_example(1)], "mmmu": [mmmu_example("validation_Art_1")], "mvbench": [mvbench_example(0)],
    }[name]  # fmt: skip
    for policy in scorer.policies.values():
        score = scorer.score(examples, {examples[0].question_id: "A"}, **policy)
        assert score.policy == policy and score.benchmark == name

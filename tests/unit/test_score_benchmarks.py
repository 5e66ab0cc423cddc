"""Parsing and metrics of each benchmark, and that every metric can be recomputed on a resample of groups."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visiontokens.data.benchmarks import BENCHMARKS, Example
from visiontokens.data.benchmarks.mme import COGNITION, PERCEPTION
from visiontokens.evaluate.bootstrap import bootstrap_interval
from visiontokens.evaluate.score import SCORERS, read_score, score_benchmark, score_json, write_score
from visiontokens.evaluate.score.base import clusters_of
from visiontokens.evaluate.score.gqa import score_gqa
from visiontokens.evaluate.score.mmbench import extract_letter, score_mmbench
from visiontokens.evaluate.score.mme import COGNITION_SCORE, score_mme
from visiontokens.evaluate.score.mme import parse_yes_no as mme_yes_no
from visiontokens.evaluate.score.pope import parse_yes_no as pope_yes_no
from visiontokens.evaluate.score.pope import score_pope
from visiontokens.evaluate.score.scienceqa import parse_letter, score_scienceqa
from visiontokens.evaluate.score.vqa import score_textvqa, score_vizwiz, score_vqav2, unanswerability


def example(key, group="g", image="i.png", **meta):
    return Example(str(key), image, "q", str(group), meta)


def test_every_benchmark_has_a_scorer():
    assert list(SCORERS) == list(BENCHMARKS)


def vqa_example(key, answers, group="g", kind="other"):
    return example(key, group, answers=answers, answer_type=kind, question_type="what", answerable=1)


def test_vqav2_under_both_policies_and_by_answer_type():
    """Officially ten equal answers are compared letter by letter, which the M4C processor before it makes up for."""
    examples = [
        vqa_example(1, ["yes"] * 10, kind="yes/no"),
        vqa_example(2, ["red"] * 3 + ["blue"] * 7),
        vqa_example(3, ["blue"] * 10),
    ]
    predictions = {"1": "Yes", "2": "Red.", "3": "green"}
    score = score_vqav2(examples, predictions)
    assert score.value == pytest.approx(100 * (1 + 0.9 + 0) / 3)
    assert score.parts["answer_type/yes/no"] == 100
    assert score.parts["answer_type/other"] == pytest.approx(45)
    official = score_vqav2(examples, predictions, even=False)
    assert official.value == score.value
    assert (official.policy, score.policy) == ({"even": False}, {"even": True})
    numbers = [vqa_example(1, ["Two"] * 10), vqa_example(2, ["man's hat"] * 9 + ["hat"])]
    answers = {"1": "two", "2": "man's hat"}
    assert score_vqav2(numbers, answers).value == 100
    assert score_vqav2(numbers, answers, even=False).value == 0


def test_vizwiz_truth_is_normalised_under_the_correct_policy_only():
    examples = [example(1, "1", answers=["a red can."] * 10, answer_type="other", answerable=1)]
    assert score_vizwiz(examples, {"1": "Red can"}).value == 100
    assert score_vizwiz(examples, {"1": "Red can"}, even=False).value == 0


def test_vizwiz_adds_the_answerability_task():
    examples = [
        example(1, "1", answers=["unanswerable"] * 10, answer_type="unanswerable", answerable=0),
        example(2, "2", answers=["can"] * 10, answer_type="other", answerable=1),
    ]
    score = score_vizwiz(examples, {"1": "Unanswerable", "2": "unanswerable"})
    assert score.value == 50
    assert score.parts["unanswerable/f1"] == pytest.approx(100 * 2 / 3)
    assert score.parts["unanswerable/average_precision"] == pytest.approx(50)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_unanswerability_equals_scikit_learn(pairs):
    from sklearn.metrics import average_precision_score, f1_score

    truth, said = (np.array(column) for column in zip(*pairs, strict=True))
    found = unanswerability(truth, said)
    assert found["unanswerable/f1"] == pytest.approx(100 * f1_score(truth, said, zero_division=0))
    if truth.any():
        expected = 100 * average_precision_score(truth, said.astype(float))
        assert found["unanswerable/average_precision"] == pytest.approx(expected)


def test_textvqa_normalises_both_sides():
    score = score_textvqa([vqa_example(1, ["Man's"] * 10), vqa_example(2, ["12"] * 10)], {"1": "man's", "2": "21"})
    assert score.value == 50


def test_gqa_is_exact_after_llavas_conversion():
    examples = [
        example(1, answer="yes", structural="verify", semantic="attr"),
        example(2, answer="red", structural="query", semantic="attr"),
        example(3, answer="left", structural="query", semantic="rel"),
    ]
    score = score_gqa(examples, {"1": "Yes.", "2": "dark red", "3": " left"})
    assert score.value == pytest.approx(100 / 3)
    assert score.parts["kind/binary"] == 100
    assert score.parts["kind/open"] == 0
    assert score.parts["semantic/attr"] == 50


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("E", "E"),
        ("D. The war", "D"),
        ("B.", "FAILED"),
        ("The answer is C.", "C"),
        ("The answer is C!", "C"),
        ("So. The answer is A. The answer is B.", "FAILED"),
        ("The answer is Z.", "Z"),
        ("b", "FAILED"),
        ("", "FAILED"),
        ("AB", "FAILED"),
    ],
)
def test_scienceqa_letters(text, letter):
    assert parse_letter(text) == letter


def test_scienceqa_counts_image_questions_and_refuses_foreign_letters():
    meta = {"answer": "B", "n_choices": 2, "text_context": True, "subject": "language science", "grade": "grade8"}
    examples = [example(1, **meta), example(2, **meta), example(3, image=None, **meta)]
    score = score_scienceqa(examples, {"1": "B", "2": "C", "3": "B"})
    assert score.value == 50
    assert score.parts["all"] == pytest.approx(200 / 3)
    assert score.parts["IMG"] == 50
    assert score.parts["LAN"] == score.parts["TXT"] == score.parts["G7-12"] == pytest.approx(200 / 3)
    assert "NO" not in score.parts
    assert [record["index"] for record in score.per_question] == [1, -1, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes", "yes"),
        ("No", "no"),
        ("no, it is", "no"),
        ("There is not one", "no"),
        ("Yes, not sure", "no"),
        ("Yes. No.", "yes"),
        ("NO", "yes"),
        ("no\n", "yes"),
        ("nope", "yes"),
        ("", "yes"),
    ],
)
def test_pope_parsing(text, said):
    assert pope_yes_no(text) == said


def pope_examples():
    return [
        example(f"{category}{i}", f"image{i // 2}", category=category, label=("yes", "no")[i % 2])
        for category in ("adversarial", "random", "popular")
        for i in range(8)
    ]


def test_pope_mean_f1():
    examples = pope_examples()
    perfect = {e.question_id: e.meta["label"].capitalize() for e in examples}
    assert score_pope(examples, perfect).value == 100
    score = score_pope(examples, {e.question_id: "Yes" for e in examples})
    assert score.value == pytest.approx(100 * 2 / 3)
    assert score.parts["random/yes_ratio"] == 1
    assert score.parts["random/recall"] == 1
    # Nothing answered yes: the official script divides by zero, here the F1 is 0.
    assert score_pope(examples, {e.question_id: "No" for e in examples}).value == 0
    one = [e for e in examples if e.meta["category"] == "random"]
    assert score_pope(one, perfect).value == 100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes", "yes"),
        ("NO", "no"),
        ("Yes, it is", "yes"),
        (" yes", "yes"),
        ("none", "no"),
        ("know", "no"),
        ("Now I", "no"),
        ("It is no", "other"),
        ("", "other"),
        ("n\no", "other"),
        ("\nno", "no"),
    ],
)
def test_mme_looks_at_four_characters(text, said):
    assert mme_yes_no(text) == said


def mme_examples(categories=("count", "OCR"), images=4):
    return [
        example(f"{c}/{i}#{k}", f"{c}/{i}", category=c, label=("yes", "no")[k])
        for c in categories
        for i in range(images)
        for k in range(2)
    ]


def test_mme_sums_accuracy_and_pairs():
    examples = mme_examples()
    predictions = {e.question_id: e.meta["label"] for e in examples}
    assert score_mme(examples, predictions).value == 400
    predictions["count/0#0"] = "no"
    predictions["OCR/1#1"] = "maybe"
    score = score_mme(examples, predictions)
    assert score.parts["count"] == pytest.approx(100 * (7 / 8 + 3 / 4))
    assert score.value == score.parts["perception"] == pytest.approx(2 * 100 * (7 / 8 + 3 / 4))
    assert score.parts["cognition"] == 0
    assert score.parts["other"] == 1
    full = mme_examples(PERCEPTION + COGNITION, images=1)
    whole = score_mme(full, {e.question_id: e.meta["label"] for e in full})
    assert (whole.value, whole.parts["cognition"]) == (2000, 800)
    assert COGNITION_SCORE(whole.per_question) == 800


def test_mme_needs_both_questions_of_an_image():
    with pytest.raises(ValueError, match="'count/0' has 1 questions, expected 2"):
        score_mme(mme_examples()[1:], {e.question_id: "yes" for e in mme_examples()})


OPTIONS = ("a red square", "a blue circle", "a ring")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(C)", "C"),
        ("Answer :D", "D"),
        ("A or B", ""),
        ("A square is in the picture, B.", "B"),
        ("A square", "A"),
        ("It is a blue circle", "B"),
        ("a ring or a red square", ""),
        ("nothing", ""),
        ("", ""),
        ("E", "E"),
        ("Failed to obtain answer via API B", ""),
    ],
)
def test_mmbench_rules(text, letter):
    assert extract_letter(text, OPTIONS) == letter


def mmbench_examples():
    return [
        example(
            base + 1_000_000 * turn,
            base,
            answer="ABC"[turn],
            options=OPTIONS,
            category="color",
            l2_category=f"l{base % 2}",
        )
        for base in range(10)
        for turn in range(3)
    ]


def test_mmbench_circular_accuracy():
    examples = mmbench_examples()
    predictions = {e.question_id: e.meta["answer"] for e in examples}
    predictions["1000004"] = "Z"
    predictions["5"] = "B"
    score = score_mmbench(examples, predictions)
    assert score.value == pytest.approx(80)
    assert score.parts["first_pass"] == pytest.approx(90)
    assert score.parts["all_rows"] == pytest.approx(100 * 28 / 30)
    assert score.parts["unparsed"] == 1
    assert score.parts["category/color"] == pytest.approx(80)
    assert score.parts["l2_category/l0"] == pytest.approx(80)
    with pytest.raises(ValueError, match="come without the base row"):
        score_mmbench(examples[1:], predictions)


def cases():
    vqa = [vqa_example(i, ["red"] * (i % 5) + ["blue"] * (10 - i % 5), group=f"i{i // 3}") for i in range(30)]
    plain = {"answer": "B", "n_choices": 2}
    science = [example(i, f"{i}", image=("i.png", None)[i % 3 == 0], **plain) for i in range(30)]
    gqa = [example(i, f"i{i // 3}", answer="yes", structural="verify", semantic="attr") for i in range(30)]
    return {
        "vqav2": (vqa, ("red", "blue", "x")),
        "vizwiz": (vqa, ("red", "blue", "unanswerable")),
        "textvqa": (vqa, ("red", "blue", "x")),
        "gqa": (gqa, ("yes", "no")),
        "scienceqa": (science, ("B", "A", "nothing")),
        "pope": (pope_examples(), ("Yes", "No")),
        "mme": (mme_examples((*PERCEPTION, *COGNITION)), ("yes", "no", "other")),
        "mmbench": (mmbench_examples(), ("A", "B", "C")),
        "mmbench_cn": (mmbench_examples(), ("A", "B", "C")),
    }


CASES = cases()


def guess(name, seed):
    examples, words = CASES[name]
    rng = np.random.default_rng(seed)
    return SCORERS[name].score(examples, {e.question_id: str(rng.choice(words)) for e in examples})


@pytest.mark.parametrize("name", CASES)
def test_the_statistic_on_the_records_is_the_score(name):
    score = guess(name, 0)
    assert score.statistic is SCORERS[name].statistic
    assert score.statistic(score.per_question) == pytest.approx(score.value)
    assert score.n == len(CASES[name][0])


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=15)
@given(seed=st.integers(0, 1000))
def test_weighting_groups_equals_scoring_the_repeated_questions(name, seed):
    """The bootstrap's shortcut, sums times weights, against scoring a resample written out question by question."""
    score = guess(name, seed)
    groups = sorted({record["group"] for record in score.per_question})
    drawn = np.random.default_rng(seed).choice(groups, len(groups))
    copies = [
        (copy, record) for copy, group in enumerate(drawn) for record in score.per_question if record["group"] == group
    ]
    examples = {e.question_id: e for e in CASES[name][0]}
    renamed, answers = [], {}
    for copy, record in copies:
        old = examples[record["question_id"]]
        suffix = f"~{copy}"
        key = old.question_id + suffix if name not in ("mmbench", "mmbench_cn") else _shift(old.question_id, copy)
        group = old.group + suffix if name not in ("mmbench", "mmbench_cn") else _shift(old.group, copy)
        renamed.append(Example(key, old.image, old.prompt, group, old.meta))
        answers[key] = record["prediction"]
    written_out = SCORERS[name].score(renamed, answers).value
    assert score.statistic([record for _, record in copies]) == pytest.approx(written_out)


def _shift(index, copy):
    return str(int(index) + 100 * (copy + 1))


@pytest.mark.parametrize("name", CASES)
def test_bootstrap_of_each_metric_is_sane_and_repeats(name):
    score = guess(name, 1)
    found = score.statistic.interval(score.per_question, resamples=200)
    assert found == score.statistic.interval(score.per_question, resamples=200)
    assert found.low <= found.high
    assert math.isfinite(found.se)
    assert found.value == pytest.approx(score.value)
    assert found.low - 3 * found.se <= found.value <= found.high + 3 * found.se


def test_mme_is_resampled_within_categories():
    """Every resample must keep each category's number of images, or small subtasks would vanish."""
    score = guess("mme", 2)
    clusters = clusters_of(score.per_question)
    assert len(clusters.strata) == 14
    counts = score.statistic.matrix(score.per_question)[:, 1::4]
    found = bootstrap_interval(counts, lambda sums: sums.min(axis=-1), clusters, resamples=50)
    assert (found.low, found.high) == (8, 8)


def test_score_files_round_trip(tmp_path):
    score = guess("mme", 3)
    path = tmp_path / "mme.json"
    write_score(score, path, {"experiment": "none", "seed": 0}, resamples=100)
    content, records = read_score(path)
    assert content["value"] == score.value
    assert content["ci_low"] <= score.value <= content["ci_high"]
    assert content["experiment"] == "none"
    assert content["bootstrap"]["groups"] == len({r["group"] for r in records})
    assert SCORERS["mme"].statistic(records) == pytest.approx(score.value)
    assert content == score_json(score, resamples=100) | {"experiment": "none", "seed": 0}
    with pytest.raises(ValueError, match="extra keys value"):
        write_score(score, path, {"value": 1})


def test_score_benchmark_from_files(tmp_path):
    folder = tmp_path / "gqa"
    folder.mkdir()
    record = {"imageId": "1", "question": "q?", "answer": "yes", "types": {"structural": "verify", "semantic": "obj"}}
    (folder / "testdev_balanced_questions.json").write_text(json.dumps({"7": record, "8": record | {"imageId": "2"}}))
    predictions = tmp_path / "answers.jsonl"
    predictions.write_text('{"question_id": "7", "text": "Yes"}\n{"question_id": "8", "text": "no"}\n')
    assert score_benchmark("gqa", predictions, tmp_path).value == 50
    predictions.write_text('{"question_id": "7", "text": "Yes"}\n')
    assert score_benchmark("gqa", predictions, tmp_path, limit=1).value == 100
    with pytest.raises(ValueError, match="unknown benchmark 'gq'"):
        score_benchmark("gq", predictions, tmp_path)


def test_a_missing_answer_is_named():
    with pytest.raises(ValueError, match="no prediction for question id '1'"):
        score_textvqa([vqa_example(1, ["a"] * 10)], {})

from __future__ import annotations

import base64
import csv
import json
import sys
from collections import Counter, defaultdict

import pytest
from smoke_world import SMOKE, smoke_world

from visiontokens.data.benchmarks import MAIN_BENCHMARKS
from visiontokens.data.benchmarks.mme import COGNITION, PERCEPTION, RELEASE
from visiontokens.data.miniworld.benchmarks import gqa, vqav2
from visiontokens.data.miniworld.benchmarks.mmbench import rotations
from visiontokens.data.miniworld.benchmarks.mme import NESTED
from visiontokens.data.miniworld.tokenizer import build_tokenizer

csv.field_size_limit(sys.maxsize)


def read(path):
    return json.loads((smoke_world() / "benchmarks" / path).read_text())


def lines(path):
    return [json.loads(line) for line in (smoke_world() / "benchmarks" / path).read_text().splitlines()]


@pytest.mark.parametrize("name", MAIN_BENCHMARKS)
def test_loaders_read_what_writers_write(name):
    folder = smoke_world() / "benchmarks"
    examples = MAIN_BENCHMARKS[name].read(folder)
    counts = json.loads((smoke_world() / "world.json").read_text())["counts"]["benchmarks"][name]
    assert len(examples) == counts.get("rows", counts["questions"])
    for example in examples:
        image = MAIN_BENCHMARKS[name].image_path(folder, example)
        assert image is None or image.is_file()


@pytest.mark.parametrize("name", MAIN_BENCHMARKS)
def test_prompts_use_known_words_only(name):
    tokenizer = build_tokenizer()
    for example in MAIN_BENCHMARKS[name].read(smoke_world() / "benchmarks"):
        assert tokenizer.unk_token_id not in tokenizer(example.prompt)["input_ids"], example.prompt


def test_vqav2_has_ten_answers_and_official_keys():
    asked = read("vqav2/v2_OpenEnded_mscoco_val2014_questions.json")
    annotated = read("vqav2/v2_mscoco_val2014_annotations.json")
    assert {"info", "task_type", "data_type", "data_subtype", "license", "questions"} == set(asked)
    assert [q["question_id"] for q in asked["questions"]] == [a["question_id"] for a in annotated["annotations"]]
    assert len(asked["questions"]) == SMOKE.vqav2_questions
    kinds = Counter(a["answer_type"] for a in annotated["annotations"])
    assert set(kinds) == {"yes/no", "number", "other"}
    noisy = 0
    for item in annotated["annotations"]:
        answers = [a["answer"] for a in item["answers"]]
        assert [a["answer_id"] for a in item["answers"]] == list(range(1, 11))
        assert {a["answer_confidence"] for a in item["answers"]} <= {"yes", "maybe", "no"}
        assert Counter(answers).most_common(1)[0] == (item["multiple_choice_answer"], answers.count(answers[0])) or (
            answers.count(item["multiple_choice_answer"]) >= 6
        )
        noisy += len(set(answers)) > 1
    assert 0 < noisy < len(annotated["annotations"])


def test_vqav2_question_types():
    assert vqav2.question_type("What color is the ring?") == "what color is the"
    assert vqav2.question_type("Is there an orange ring in the image?") == "is there"
    assert vqav2.question_type("Name it.") == "none of the above"
    assert vqav2.shares(10, 4) == [3, 3, 2, 2]


def test_gqa_records():
    records = read("gqa/testdev_balanced_questions.json")
    assert len(records) == SMOKE.gqa_questions
    for key, item in records.items():
        assert set(item["types"]) == {"structural", "semantic", "detailed"} and set(item["groups"]) == {
            "global",
            "local",
        }
        assert item["isBalanced"] is True and item["equivalent"] == [key]
        assert all(set(step) == {"operation", "dependencies", "argument"} for step in item["semantic"])
        assert item["answer"] in item["fullAnswer"].lower()
    assert {item["types"]["structural"] for item in records.values()} == {
        "verify", "query", "choose", "logical", "compare",
    }  # fmt: skip
    assert gqa.types("column/open") == {"structural": "query", "semantic": "attr", "detailed": "positionQuery"}
    assert gqa.types("relation/left")["structural"] == "verify"
    assert gqa.types("size/verify")["detailed"] == "verifyAttr"


def test_vizwiz_has_unanswerable_questions():
    records = read("vizwiz/val.json")
    for item in records:
        assert set(item) == {"image", "question", "answers", "answer_type", "answerable"}
        common = Counter(a["answer"] for a in item["answers"]).most_common(1)[0][0]
        assert (common == "unanswerable") == (item["answerable"] == 0) == (item["answer_type"] == "unanswerable")
    assert 0.15 < sum(not item["answerable"] for item in records) / len(records) < 0.7


def test_scienceqa_files_agree():
    problems, splits = read("scienceqa/problems.json"), read("scienceqa/pid_splits.json")
    assert splits["test"] == list(problems) and not splits["train"]
    assert sum(item["image"] is not None for item in problems.values()) == SMOKE.scienceqa_image
    assert any(item["hint"] for item in problems.values() if item["image"] is None)
    for record in read("scienceqa/llava_test_CQM-A.json"):
        item = problems[record["id"]]
        human, gpt = (message["value"] for message in record["conversations"])
        assert human.startswith("<image>\n") == (item["image"] is not None) == ("image" in record)
        assert f"\n{gpt}. {item['choices'][item['answer']]}" in human
        assert len(set(item["choices"])) == len(item["choices"])


def test_textvqa_files_agree():
    data = read("textvqa/TextVQA_0.5.1_val.json")["data"]
    tokens = {
        item["image_id"]: item["ocr_tokens"] for item in read("textvqa/TextVQA_Rosetta_OCR_v0.2_val.json")["data"]
    }
    questions = lines("textvqa/llava_textvqa_val_v051_ocr.jsonl")
    assert len({item["question_id"] for item in data}) == len(data) == len(questions) == SMOKE.textvqa_questions
    assert len(tokens) == round(SMOKE.textvqa_questions / 1.6)
    for item, asked in zip(data, questions, strict=True):
        assert len(item["answers"]) == 10 and asked["question_id"] == item["image_id"]
        first, ocr, _ = asked["text"].split("\n")
        assert first == item["question"] and ocr == f"Reference OCR token: {', '.join(tokens[item['image_id']])}"


def test_pope_is_balanced_and_six_per_image():
    present = {}
    for category in ("random", "popular", "adversarial"):
        rows = lines(f"pope/coco_pope_{category}.json")
        assert len(rows) == SMOKE.pope_questions and [row["question_id"] for row in rows] == list(
            range(1, len(rows) + 1)
        )
        per_image = Counter(row["image"] for row in rows)
        assert set(per_image.values()) == {6}
        assert Counter(row["label"] for row in rows) == {"yes": len(rows) // 2, "no": len(rows) // 2}
        assert len({(row["image"], row["text"]) for row in rows}) == len(rows)
        present[category] = [(row["image"], row["text"]) for row in rows if row["label"] == "yes"]
    assert present["random"] == present["popular"] == present["adversarial"]


def test_mme_has_one_yes_and_one_no_per_image():
    base = smoke_world() / "benchmarks/mme" / RELEASE
    assert {path.name for path in base.iterdir()} == set(PERCEPTION + COGNITION)
    for category in PERCEPTION + COGNITION:
        texts = base / category / ("questions_answers_YN" if category in NESTED else "")
        found = sorted(texts.glob("*.txt"))
        assert len(found) == SMOKE.mme_lines // 2
        for path in found:
            rows = [line.split("\t") for line in path.read_text().splitlines()]
            assert sorted(label for _, label in rows) == ["No", "Yes"]
            assert all(text.endswith(" Please answer yes or no.") for text, _ in rows)


@pytest.mark.parametrize("name", ["mmbench", "mmbench_cn"])
def test_mmbench_rotations_ask_the_same(name):
    (path,) = (smoke_world() / "benchmarks" / name).glob("*.tsv")
    with path.open(newline="") as handle:
        rows = {int(row["index"]): row for row in csv.DictReader(handle, delimiter="\t")}
    bases = defaultdict(list)
    for index in rows:
        bases[index % 1_000_000].append(index)
    assert len(bases) == SMOKE.mmbench_questions
    for base, indices in bases.items():
        options = [letter for letter in "ABCD" if rows[base][letter]]
        assert sorted(indices) == [base + turn * 1_000_000 for turn in range(len(options))]
        content = {rows[index][rows[index]["answer"]] for index in indices}
        assert len(content) == 1 and {rows[index]["answer"] for index in indices} == set(options)
        assert {rows[index]["question"] for index in indices} == {rows[base]["question"]}
        image = (smoke_world() / f"benchmarks/mmbench/images/{base}.jpg").read_bytes()
        assert base64.b64decode(rows[base]["image"]) == image
        assert rows[base]["category"] and rows[base]["l2-category"]


def test_mmbench_cn_is_the_same_in_chinese():
    tables = []
    for name in ("mmbench", "mmbench_cn"):
        (path,) = (smoke_world() / "benchmarks" / name).glob("*.tsv")
        with path.open(newline="") as handle:
            tables.append(list(csv.DictReader(handle, delimiter="\t")))
    for english, chinese in zip(*tables, strict=True):
        assert [english[k] for k in ("index", "answer", "category", "image")] == [
            chinese[k] for k in ("index", "answer", "category", "image")
        ]
        assert any("\u4e00" <= c <= "\u9fff" for c in chinese["question"])
        assert english["question"].isascii()


def test_rotations_keep_the_right_option():
    assert rotations(("red", "blue", "green"), "B") == [
        (("red", "blue", "green"), "B"),
        (("blue", "green", "red"), "A"),
        (("green", "red", "blue"), "C"),
    ]

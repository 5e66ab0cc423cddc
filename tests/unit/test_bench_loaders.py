"""Loaders read the official formats, build LLaVA-1.5's prompts, and complain about damage by file and line."""

from __future__ import annotations

import base64
import json

import pytest

from visiontokens.data.benchmarks import BENCHMARKS, BenchmarkError, Example, mmbench, scienceqa, subset
from visiontokens.data.benchmarks.base import check_examples, find_one
from visiontokens.data.benchmarks.mme import strip_suffix

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n first").decode()
PNG_2 = base64.b64encode(b"\x89PNG\r\n\x1a\n second").decode()


def dump(path, obj):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(obj))


def dump_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def answers(text="red"):
    return [{"answer": text, "answer_confidence": "yes", "answer_id": i + 1} for i in range(10)]


def write_vqav2(root, n_answers=10):
    folder = root / "vqav2"
    question = {"image_id": 42, "question": "What color is it?", "question_id": 42000}
    dump(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"data_subtype": "val2014", "questions": [question]})
    annotation = {"question_id": 42000, "image_id": 42, "question_type": "what color", "answer_type": "other"}
    annotation["answers"] = answers()[:n_answers]
    dump(folder / "v2_mscoco_val2014_annotations.json", {"annotations": [annotation]})


def test_vqav2(tmp_path):
    write_vqav2(tmp_path)
    (example,) = BENCHMARKS["vqav2"].read(tmp_path)
    assert example.question_id == "42000"
    assert example.group == "42"
    assert example.image == "val2014/COCO_val2014_000000000042.jpg"
    assert example.prompt == f"What color is it?\n{SHORT}"
    assert example.meta["answers"] == ("red",) * 10
    assert BENCHMARKS["vqav2"].image_path(tmp_path, example) == tmp_path / "vqav2" / example.image


def test_vqav2_takes_png_where_only_that_is_there(tmp_path):
    write_vqav2(tmp_path)
    png = tmp_path / "vqav2" / "val2014" / "COCO_val2014_000000000042.png"
    png.parent.mkdir()
    png.touch()
    assert BENCHMARKS["vqav2"].read(tmp_path)[0].image.endswith("42.png")


def test_vqav2_needs_ten_answers(tmp_path):
    write_vqav2(tmp_path, n_answers=9)
    with pytest.raises(BenchmarkError, match="'42000': found 9 answers, expected 10"):
        BENCHMARKS["vqav2"].read(tmp_path)


def test_gqa_keeps_balanced_questions_only(tmp_path):
    record = {
        "imageId": "n7",
        "question": "Is it red?",
        "answer": "yes",
        "isBalanced": True,
        "types": {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"},
    }
    other = record | {"isBalanced": False}
    dump(tmp_path / "gqa" / "testdev_balanced_questions.json", {"201": record, "202": other})
    (example,) = BENCHMARKS["gqa"].read(tmp_path)
    assert (example.question_id, example.image, example.group) == ("201", "n7.jpg", "n7")
    assert example.meta == {"answer": "yes", "structural": "verify", "semantic": "attr"}


def test_vizwiz_prompt_allows_unanswerable(tmp_path):
    record = {"image": "VizWiz_val_00000000.jpg", "question": "What is this?", "answers": answers("can")}
    dump(tmp_path / "vizwiz" / "Annotations" / "val.json", [record | {"answer_type": "other", "answerable": 1}])
    (example,) = BENCHMARKS["vizwiz"].read(tmp_path)
    wish = "When the provided information is insufficient, respond with 'Unanswerable'."
    assert example.prompt == f"What is this?\n{wish}\n{SHORT}"
    assert example.image == "val/VizWiz_val_00000000.jpg"


def test_vizwiz_test_split_has_no_answers(tmp_path):
    dump(tmp_path / "vizwiz" / "test.json", [{"image": "a.jpg", "question": "?"}])
    with pytest.raises(BenchmarkError, match="record 0: no answers"):
        BENCHMARKS["vizwiz"].read(tmp_path, split="test")


def write_textvqa(root):
    record = {"image_id": "ab", "question_id": 7, "question": "What number?", "answers": ["12"] * 10}
    dump(root / "textvqa" / "TextVQA_0.5.1_val.json", {"data": [record]})


@pytest.mark.parametrize(("tokens", "line"), [(["12", "AB"], "12, AB"), ([], "")])
def test_textvqa_with_rosetta_tokens(tmp_path, tokens, line):
    write_textvqa(tmp_path)
    dump(
        tmp_path / "textvqa" / "TextVQA_Rosetta_OCR_v0.2_val.json",
        {"data": [{"image_id": "ab", "ocr_tokens": tokens}]},
    )
    (example,) = BENCHMARKS["textvqa"].read(tmp_path)
    assert example.prompt == f"What number?\nReference OCR token: {line}\n{SHORT}"


def test_textvqa_with_llavas_question_file_and_without_ocr(tmp_path):
    write_textvqa(tmp_path)
    text = f"What number?\nReference OCR token: 1Z\n{SHORT}"
    listed = {"question_id": "ab", "image": "ab.jpg", "text": text, "category": "default"}
    dump_lines(tmp_path / "textvqa" / "llava_textvqa_val_v051_ocr.jsonl", [listed])
    assert BENCHMARKS["textvqa"].read(tmp_path)[0].prompt == text
    assert BENCHMARKS["textvqa"].read(tmp_path, ocr=False)[0].prompt == f"What number?\n{SHORT}"


def test_textvqa_without_ocr_source_is_an_error(tmp_path):
    write_textvqa(tmp_path)
    with pytest.raises(FileNotFoundError, match="Rosetta"):
        BENCHMARKS["textvqa"].read(tmp_path)


def problem(**changes):
    base = {"question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": "", "image": None}
    return base | {"subject": "natural science", "grade": "grade4", "topic": "t"} | changes


def test_scienceqa_from_problems(tmp_path):
    problems = {"1": problem(), "2": problem(hint="Look.", image="image.png"), "3": problem(image="image.png")}
    dump(tmp_path / "scienceqa" / "problems.json", problems)
    dump(tmp_path / "scienceqa" / "pid_splits.json", {"test": ["2", "1", "3"], "val": []})
    examples = BENCHMARKS["scienceqa"].read(tmp_path)
    assert [example.question_id for example in examples] == ["2", "1", "3"]
    assert examples[0].prompt == f"Context: Look.\nWhich?\nA. x\nB. y\n{LETTER}"
    assert examples[0].image == "test/2/image.png"
    assert examples[1].image is None
    assert examples[2].prompt == f"Which?\nA. x\nB. y\n{LETTER}"
    assert examples[0].meta["answer"] == "B"
    only = BENCHMARKS["scienceqa"].read(tmp_path, images_only=True)
    assert [example.question_id for example in only] == ["2", "3"]


def test_scienceqa_question_file_gives_the_same_examples(tmp_path):
    problems = {"1": problem(), "2": problem(hint="Look.", image="image.png")}
    folder = tmp_path / "scienceqa"
    dump(folder / "problems.json", problems)
    dump(folder / "pid_splits.json", {"test": ["1", "2"]})
    generated = BENCHMARKS["scienceqa"].read(tmp_path)
    dump(folder / "llava_test_CQM-A.json", [scienceqa.conversation(*item) for item in problems.items()])
    assert BENCHMARKS["scienceqa"].read(tmp_path) == generated
    (folder / "problems.json").unlink()
    alone = BENCHMARKS["scienceqa"].read(tmp_path)
    assert [(e.prompt, e.meta["n_choices"]) for e in alone] == [(e.prompt, 2) for e in generated]


def test_scienceqa_counts_options_behind_lookalikes():
    assert scienceqa.count_options("A. is a heading\nWhich?\nA. x\nB. y\nC. z") == 3


def write_pope(root, random_lines=2):
    folder = root / "pope"
    for category in ("adversarial", "popular", "random"):
        n = random_lines if category == "random" else 2
        records = [
            {
                "question_id": i + 1,
                "image": "a.jpg",
                "text": f"Is there a {category} {i}?",
                "label": ("yes", "no")[i % 2],
            }
            for i in range(n)
        ]
        dump_lines(folder / "coco" / f"coco_pope_{category}.json", records)


def test_pope_ids_follow_llavas_question_file(tmp_path):
    write_pope(tmp_path)
    examples = BENCHMARKS["pope"].read(tmp_path)
    ids = [example.question_id for example in examples]
    assert ids == ["1", "2", "10000001", "10000002", "20000001", "20000002"]
    assert examples[2].meta == {"label": "yes", "category": "random"}
    assert {example.group for example in examples} == {"a.jpg"}


def test_pope_notices_labels_of_another_revision(tmp_path):
    write_pope(tmp_path)
    listing = [
        {"question_id": int(e.question_id), "image": "a.jpg", "text": e.prompt, "category": e.meta["category"]}
        for e in BENCHMARKS["pope"].read(tmp_path)
    ]
    path = tmp_path / "pope" / "llava_pope_test.jsonl"
    dump_lines(path, listing)
    assert len(BENCHMARKS["pope"].read(tmp_path)) == 6
    write_pope(tmp_path, random_lines=3)
    with pytest.raises(BenchmarkError, match="6 questions, expected 7"):
        BENCHMARKS["pope"].read(tmp_path)
    listing[1]["text"] = "Is there an imange?"
    dump_lines(path, listing)
    with pytest.raises(BenchmarkError, match=r"llava_pope_test.jsonl:2: .*different revisions"):
        BENCHMARKS["pope"].read(tmp_path)


def write_mme(root, text="Is it? Please answer yes or no.\tYes\nIs it not?  Please answer yes or no.\tNo\n"):
    base = root / "mme" / "MME_Benchmark_release_version"
    for folder, image in (("artwork/questions_answers_YN", "artwork/images"), ("count", "count")):
        (base / folder).mkdir(parents=True, exist_ok=True)
        (base / image).mkdir(exist_ok=True)
        (base / folder / "0001.txt").write_text(text)
        (base / image / "0001.png").touch()


def test_mme_layouts_order_and_ids(tmp_path):
    write_mme(tmp_path)
    examples = BENCHMARKS["mme"].read(tmp_path)
    assert [example.question_id for example in examples] == [
        "count/0001.png#1",
        "count/0001.png#2",
        "artwork/images/0001.png#1",
        "artwork/images/0001.png#2",
    ]
    assert examples[1].prompt == f"Is it not?\n{SHORT}"
    assert examples[1].meta["label"] == "no"
    assert BENCHMARKS["mme"].image_path(tmp_path, examples[2]).exists()


def test_mme_text_must_hold_two_labelled_lines(tmp_path):
    write_mme(tmp_path, "Is it?\tmaybe\nIs it?\tNo\n")
    with pytest.raises(BenchmarkError, match=r"0001.txt:1: found"):
        BENCHMARKS["mme"].read(tmp_path)
    write_mme(tmp_path, "Is it?\tYes\n")
    with pytest.raises(BenchmarkError, match="found 1 questions, expected 2"):
        BENCHMARKS["mme"].read(tmp_path)


def test_mme_suffix_is_stripped_at_the_end_only():
    assert strip_suffix("Please answer yes or no. Is it? Please answer yes or no.") == "Please answer yes or no. Is it?"


HEADER = ["index", "question", "hint", *"ABCD", "answer", "category", "l2-category", "source", "comment", "split"]
HEADER.append("image")


def write_mmbench(root, rows, name="mmbench/mmbench_dev_20230712.tsv"):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(HEADER)] + ["\t".join(str(row.get(key, "")) for key in HEADER) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


BASE = {"index": 5, "question": "Which?", "A": "x", "B": "y", "C": "nan", "D": "w", "answer": "B", "image": PNG}
TURNED = BASE | {"index": 1_000_005, "A": "y", "B": "x", "answer": "A"}


def test_mmbench_rows_rotations_and_prompt(tmp_path):
    write_mmbench(tmp_path, [BASE | {"hint": "Mind."}, TURNED])
    first, second = BENCHMARKS["mmbench"].read(tmp_path)
    assert first.prompt == f"Mind.\nWhich?\nA. x\nB. y\n{LETTER}"
    assert second.prompt == f"Which?\nA. y\nB. x\n{LETTER}"
    assert (second.question_id, second.group, second.image) == ("1000005", "5", "5.png")
    assert first.meta["options"] == ("x", "y")
    assert len(BENCHMARKS["mmbench"].read(tmp_path, first_pass=True)) == 1


def test_mmbench_cn_has_its_suffix_and_shares_images(tmp_path):
    write_mmbench(tmp_path, [BASE])
    write_mmbench(tmp_path, [BASE | {"question": "哪个？"}], "mmbench_cn/mmbench_dev_cn_20231003.tsv")
    english, chinese = BENCHMARKS["mmbench"], BENCHMARKS["mmbench_cn"]
    (example,) = chinese.read(tmp_path)
    assert example.prompt == "哪个？\nA. x\nB. y\n请直接回答选项字母。"
    written = mmbench.extract_images(tmp_path / "mmbench")
    assert mmbench.extract_images(tmp_path / "mmbench_cn") == written
    assert written[0].read_bytes() == base64.b64decode(PNG)
    assert (
        chinese.image_path(tmp_path, example) == english.image_path(tmp_path, english.read(tmp_path)[0]) == written[0]
    )


def test_mmbench_images_by_reference_and_conflicts(tmp_path):
    write_mmbench(tmp_path, [BASE, BASE | {"index": 6, "image": "5"}])
    first, second = mmbench.extract_images(tmp_path / "mmbench")
    assert first.read_bytes() == second.read_bytes()
    write_mmbench(tmp_path, [BASE | {"image": PNG_2}])
    with pytest.raises(BenchmarkError, match=r"row 5: .* different image"):
        mmbench.extract_images(tmp_path / "mmbench")
    write_mmbench(tmp_path, [BASE | {"image": "no base64!"}])
    with pytest.raises(BenchmarkError, match="row 5: the image is not base64"):
        mmbench.extract_images(tmp_path / "mmbench")


def test_mmbench_cells_longer_than_the_csv_limit(tmp_path):
    write_mmbench(tmp_path, [BASE | {"image": base64.b64encode(b"\xff\xd8\xff" * 80_000).decode()}])
    assert BENCHMARKS["mmbench"].read(tmp_path)[0].image == "5.jpg"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([TURNED], "row 1000005 is a rotation, but its base row 5 is missing"),
        ([BASE, BASE], ":3: index 5 occurs twice"),
        ([BASE | {"index": "x"}], ":2: found index 'x', expected an integer"),
        ([BASE | {"answer": "D"}], "gold 'D' is not among 2 options"),
    ],
)
def test_mmbench_damage_is_named(tmp_path, rows, message):
    write_mmbench(tmp_path, rows)
    with pytest.raises(BenchmarkError, match=message):
        BENCHMARKS["mmbench"].read(tmp_path)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_missing_files_are_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=BENCHMARKS[name].folder):
        BENCHMARKS[name].read(tmp_path)


def test_find_one_does_not_guess(tmp_path):
    (tmp_path / "a_1.tsv").touch()
    (tmp_path / "a_2.tsv").touch()
    with pytest.raises(BenchmarkError, match="2 files match"):
        find_one(tmp_path, "a_*.tsv")
    assert find_one(tmp_path, "b_*.tsv", "a_2.tsv").name == "a_2.tsv"


def test_repeated_ids_are_refused():
    example = Example("1", None, "q", "g")
    with pytest.raises(BenchmarkError, match="'1' occurs twice"):
        check_examples("x", [example, example])


def test_subset_keeps_whole_groups_spread_over_the_benchmark():
    examples = [Example(f"{g}-{k}", None, "q", str(g)) for g in range(40) for k in range(3)]
    chosen = subset(examples, 30)
    groups = [example.group for example in chosen]
    assert len(chosen) == 30
    assert all(groups.count(group) == 3 for group in groups)
    assert max(map(int, groups)) >= 36
    assert subset(examples, 0) == subset(examples, 500) == examples

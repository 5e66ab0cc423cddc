"""SEED-Bench, MMMU and MVBench: official files in, the official prompts out, damaged records named."""

from __future__ import annotations

import json
import sys
import types
from io import BytesIO

import pytest
import yaml
from PIL import Image

from visiontokens.data.benchmarks import BENCHMARKS, BenchmarkError, mmmu, mvbench, prompts, seed

LETTER = "Answer with the option's letter from the given choices directly."


def seed_record(key, kind=5, **changes):
    choices = {"choice_a": "One", "choice_b": "Two", "choice_c": "Three", "choice_d": "Four"}
    record = {"answer": "A", **choices, "data_id": "1454426_2591111986", "data_type": "image"}
    record |= {"question": "How many towels are in the image?", "question_id": key, "question_type_id": kind}
    return record | changes


def write_seed(folder, *records):
    path = folder / "seed" / "SEED-Bench.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"questions": list(records), "question_type": {}}))


def test_seed_asks_llavas_question_about_a_file_without_suffix(tmp_path):
    write_seed(tmp_path, seed_record("101669"), seed_record("v1738", 10, data_id="94328.webm", data_type="video"))
    (example,) = BENCHMARKS["seed"].read(tmp_path)
    assert example.prompt == f"How many towels are in the image?\nA. One\nB. Two\nC. Three\nD. Four\n{LETTER}"
    assert example.image == "SEED-Bench-image/1454426_2591111986"
    assert (example.question_id, example.group) == ("101669", "1454426_2591111986")
    assert (example.meta["answer"], example.meta["type"]) == ("A", "Instances Counting")
    video = BENCHMARKS["seed"].read(tmp_path, videos=True)[1]
    assert video.image == "SEED-Bench-video-image/10_v1738.png"
    assert (video.meta["part"], video.meta["type"]) == ("video", "Action Recognition")


def test_seeds_repeated_id_is_told_apart(tmp_path):
    write_seed(tmp_path, seed_record("49914"), seed_record("7"), seed_record("49914", question="And cups?"))
    examples = BENCHMARKS["seed"].read(tmp_path)
    assert [example.question_id for example in examples] == ["49914", "7", "49914#2"]
    assert {example.meta["official_id"] for example in examples} == {"49914", "7"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "E"}, "question 0: found answer 'E', expected one of A, B, C, D"),
        ({"kind": 13}, "question 0: found question_type_id 13, expected 1 to 12"),
    ],
)
def test_a_damaged_seed_record_is_named(tmp_path, changes, message):
    write_seed(tmp_path, seed_record("1", **changes))
    with pytest.raises(BenchmarkError, match=message):
        BENCHMARKS["seed"].read(tmp_path)


def mmmu_record(key="validation_Art_1", **changes):
    record = {"id": key, "question": "<image 1> Which?", "options": "['$6', \"the 'left' one\"]", "answer": "B"}
    record |= {"question_type": "multiple-choice", "image_1": f"{key}_1.png", "image_2": None, "subfield": "Drawing"}
    return record | changes


def write_mmmu(folder, subject, *records):
    path = folder / "mmmu" / subject / "validation.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_mmmu_prompts_are_those_of_the_official_configuration(tmp_path):
    """`llava1.5.yaml` holds its formats as quoted texts over several lines, which YAML folds."""
    quoted = yaml.safe_load(f'choice:\n- "{{}}\n\n{{}}\n\n{LETTER}"\nopen:\n- "{{}}\n\n{prompts.SHORT_ANSWER}"\n')
    options = "(A) $6\n(B) the 'left' one\n"
    write_mmmu(
        tmp_path, "Art", mmmu_record(), mmmu_record("validation_Art_2", question_type="open", options="[]", answer="6")
    )
    choice, open_ = BENCHMARKS["mmmu"].read(tmp_path)
    assert choice.prompt == quoted["choice"][0].format("<image 1> Which?", options)
    assert choice.prompt == f"<image 1> Which?\n(A) $6\n(B) the 'left' one\n\n{LETTER}"
    assert open_.prompt == quoted["open"][0].format("<image 1> Which?")
    assert open_.prompt == "<image 1> Which?\nAnswer the question using a single word or phrase."
    assert (choice.meta["answers"], open_.meta["answers"]) == (("B",), ("6",))


def test_mmmu_reads_the_first_image_and_the_official_order_of_subjects(tmp_path):
    write_mmmu(tmp_path, "Sociology", mmmu_record("validation_Sociology_1"))
    write_mmmu(tmp_path, "Art_Theory", mmmu_record("validation_Art_Theory_1", image_2="validation_Art_Theory_1_2.png"))
    write_mmmu(tmp_path, "Art", mmmu_record())
    examples = BENCHMARKS["mmmu"].read(tmp_path)
    assert [example.meta["subject"] for example in examples] == ["Art", "Art_Theory", "Sociology"]
    assert [example.meta["n_images"] for example in examples] == [1, 2, 1]
    assert examples[1].image == "images/validation_Art_Theory_1_1.png"
    assert mmmu.subject_of("validation_Art_Theory_12") == "Art_Theory"
    assert sorted(mmmu.DOMAIN_OF) == sorted(mmmu.SUBJECTS) and len(mmmu.SUBJECTS) == 30 and len(mmmu.DOMAINS) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": "__import__('os').getcwd()"}, r"record 0: options: found .* expected a list such as"),
        ({"options": "['a', {}]"}, "expected a list of texts"),
        ({"options": "['a'"}, "expected a list such as"),
        ({"answer": "C"}, "gold 'C' is not among 2 options"),
        ({"image_1": None}, "has no image, expected one to 7"),
        ({"question_type": "essay"}, "found question_type 'essay'"),
    ],
)
def test_a_damaged_mmmu_record_is_named(tmp_path, changes, message):
    write_mmmu(tmp_path, "Art", mmmu_record(**changes))
    with pytest.raises(BenchmarkError, match=message):
        BENCHMARKS["mmmu"].read(tmp_path)


def test_mmmu_open_answers_may_be_several_and_hidden_ones_none(tmp_path):
    several = mmmu_record(question_type="open", options="[]", answer="['24/7', '3.429']")
    write_mmmu(tmp_path, "Art", several, mmmu_record("validation_Art_2", answer="?"))
    first, hidden = BENCHMARKS["mmmu"].read(tmp_path)
    assert first.meta["answers"] == ("24/7", "3.429")
    assert hidden.meta["answers"] == ()


def test_mmmu_scores_with_the_answer_file_alone(tmp_path):
    path = tmp_path / "mmmu" / mmmu.ANSWERS
    path.parent.mkdir()
    rows = {
        "validation_Music_3": {"question_type": "short-answer", "ground_truth": ["4", "four"]},
        "validation_Art_1": {"question_type": "multiple-choice", "ground_truth": "D"},
    }
    path.write_text(json.dumps(rows))
    first, second = BENCHMARKS["mmmu"].read(tmp_path)
    assert (first.question_id, first.meta["answers"], first.image) == ("validation_Art_1", ("D",), None)
    assert (second.meta["question_type"], second.meta["answers"]) == ("open", ("4", "four"))


def png(colour):
    out = BytesIO()
    Image.new("RGB", (3, 3), colour).save(out, "PNG")
    return out.getvalue()


def parquet_rows():
    first = mmmu_record(image_1={"bytes": png("red"), "path": "a.png"}, image_2={"bytes": png("blue"), "path": "b"})
    return [first, mmmu_record("validation_Art_2", image_1={"bytes": png("green"), "path": None})]


def test_mmmu_parquet_files_are_read_and_their_images_written(tmp_path, monkeypatch):
    """With pyarrow itself where it is installed, else with a stand-in that returns the same rows."""
    path = tmp_path / "mmmu" / "Art" / "validation-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    try:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(parquet_rows()), path)
    except ImportError:
        path.touch()
        table = types.SimpleNamespace(to_pylist=parquet_rows)
        reader = types.SimpleNamespace(read_table=lambda _: table)
        module = types.ModuleType("pyarrow")
        module.parquet, module.ArrowException = reader, OSError
        monkeypatch.setitem(sys.modules, "pyarrow", module)
    examples = BENCHMARKS["mmmu"].read(tmp_path)
    assert [example.meta["n_images"] for example in examples] == [2, 1]
    written = mmmu.extract_images(tmp_path / "mmmu")
    assert len(written) == 3
    assert BENCHMARKS["mmmu"].image_path(tmp_path, examples[0]).read_bytes() == png("red")
    stamps = [file.stat().st_mtime_ns for file in written]
    assert [file.stat().st_mtime_ns for file in mmmu.extract_images(tmp_path / "mmmu")] == stamps


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "mmmu" / "Art" / "validation-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BenchmarkError, match=r"Art/validation-00000-of-00001\.parquet: .*visiontokens\[mmmu\]"):
        BENCHMARKS["mmmu"].read(tmp_path)


def mvbench_record(**changes):
    record = {"video": "v1.mp4", "question": "What next?", "candidates": ["Sit.", "Run.", "Eat."], "answer": "Run."}
    return record | changes


def write_mvbench(folder, task, *records):
    path = folder / "mvbench" / "json" / f"{mvbench.file_stem(task)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(records)))


def test_mvbench_asks_in_the_words_of_both_protocols(tmp_path):
    write_mvbench(tmp_path, "Fine-grained Action", mvbench_record())
    (example,) = BENCHMARKS["mvbench"].read(tmp_path)
    asked = "Question: What next?\nOptions:\n(A) Sit.\n(B) Run.\n(C) Eat."
    assert example.prompt == f"{asked}\nAnswer with one letter."
    assert example.image == "Moments_in_Time_Raw/videos/v1.mp4"
    assert (example.question_id, example.meta["answer"]) == ("fine_grained_action/0", "B")
    (official,) = BENCHMARKS["mvbench"].read(tmp_path, protocol="official")
    assert official.prompt == (
        "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
        "objects, and the action and pose of persons. Based on your observations, select the best option that "
        f"accurately addresses the question.\n{asked}\nOnly give the best option."
    )
    assert official.meta["answer_prefix"] == "Best option:("
    with pytest.raises(BenchmarkError, match="found protocol 'mine'"):
        BENCHMARKS["mvbench"].read(tmp_path, protocol="mine")


def test_mvbench_has_twenty_tasks_of_which_five_are_bounded(tmp_path):
    assert len(mvbench.TASKS) == 20
    assert sum(task.bounded for task in mvbench.TASKS.values()) == 5
    write_mvbench(tmp_path, "Action Sequence", mvbench_record())
    with pytest.raises(BenchmarkError, match="record 0: key 'start' is missing"):
        BENCHMARKS["mvbench"].read(tmp_path)
    write_mvbench(tmp_path, "Action Sequence", mvbench_record(start=1.0, end=2.5, answer="Fly."))
    with pytest.raises(BenchmarkError, match=r"answer 'Fly\.' is not among the candidates"):
        BENCHMARKS["mvbench"].read(tmp_path)


def test_names_of_types_are_those_of_the_official_file():
    assert list(seed.TYPES) == list(range(1, 13)) and seed.TYPES[7] == "Instance Interaction"

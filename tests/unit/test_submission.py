"""Upload files: what a server expects, made of answer files, and read back."""

from __future__ import annotations

import csv
import json

import openpyxl
import pytest
from test_bench_further import mmmu_record, seed_record, write_mmmu, write_seed

from visiontokens.cli import main
from visiontokens.evaluate.submission import FORMATS, SubmissionError, check, columns, write_submission


def answers(path, texts):
    path.write_text("".join(json.dumps({"question_id": key, "text": text}) + "\n" for key, text in texts.items()))
    return path


def write_vqav2(root):
    folder = root / "vqav2"
    folder.mkdir()
    for name, keys in (("test2015", (1, 2, 3, 4)), ("test-dev2015", (2, 4))):
        questions = [{"question_id": key, "image_id": 1, "question": "q?"} for key in keys]
        path = folder / f"v2_OpenEnded_mscoco_{name}_questions.json"
        path.write_text(json.dumps({"questions": questions}))


def test_vqav2_is_normalised_and_filled_to_the_whole_test_set(tmp_path):
    write_vqav2(tmp_path)
    out = tmp_path / "up.json"
    given = answers(tmp_path / "a.jsonl", {4: "Two, please", 2: "The Dog."})
    assert write_submission("vqav2", given, tmp_path, out)["empty_answers"] == 2
    assert json.loads(out.read_text()) == [
        {"question_id": 1, "answer": ""},
        {"question_id": 2, "answer": "dog"},
        {"question_id": 3, "answer": ""},
        {"question_id": 4, "answer": "2 please"},
    ]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({2: "dog"}, "1 questions have no answer, the first is '4'"),
        ({2: "dog", 4: "cat", 5: "cow"}, "question id '5' is foreign, expected one of 4 questions"),
        ({}, "no answers, expected some to 4 questions"),
    ],
)
def test_vqav2_answers_that_do_not_fit_leave_no_file(tmp_path, texts, message):
    write_vqav2(tmp_path)
    out = tmp_path / "up.json"
    out.write_text("before")
    with pytest.raises(SubmissionError, match=message):
        write_submission("vqav2", answers(tmp_path / "a.jsonl", texts), tmp_path, out)
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "up.json", "vqav2"]


def test_answers_given_twice_are_refused(tmp_path):
    write_vqav2(tmp_path)
    path = answers(tmp_path / "a.jsonl", {2: "dog", 4: "cat"})
    path.write_text(path.read_text() * 2)
    with pytest.raises(ValueError, match="'2' is answered again"):
        write_submission("vqav2", path, tmp_path, tmp_path / "up.json")


def test_vizwiz_takes_places_and_file_names(tmp_path):
    (tmp_path / "vizwiz").mkdir()
    names = ["VizWiz_test_00000000.jpg", "VizWiz_test_00000001.jpg"]
    records = [{"image": name, "question": "What?"} for name in names]
    (tmp_path / "vizwiz" / "test.json").write_text(json.dumps(records))
    out = tmp_path / "up.json"
    for keys in ((1, 0), (names[1], names[0])):
        given = dict(zip(keys, ("Unanswerable", "A can."), strict=True))
        write_submission("vizwiz", answers(tmp_path / "a.jsonl", given), tmp_path, out)
        expected = [{"image": names[0], "answer": "can"}, {"image": names[1], "answer": "unanswerable"}]
        assert json.loads(out.read_text()) == expected


TEST_COLUMNS = ("index", "question", "hint", "A", "B", "C", "D", "category", "image", "source", "l2-category",
                "comment", "split")  # fmt: skip


def write_mmbench_test(root):
    (root / "mmbench").mkdir()
    with (root / "mmbench" / "mmbench_test_20230712.tsv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, TEST_COLUMNS, delimiter="\t", restval="")
        writer.writeheader()
        writer.writerow({"index": 7, "question": "Which?", "A": "1", "B": "nan", "hint": "h", "split": "test"})
        writer.writerow({"index": 1000007, "question": "Which?", "A": "x", "B": "1", "C": "y", "split": "test"})


def test_mmbench_sheet_has_the_columns_of_the_server(tmp_path):
    write_mmbench_test(tmp_path)
    out = tmp_path / "up.xlsx"
    given = answers(tmp_path / "a.jsonl", {1000007: "B", 7: ""})
    assert write_submission("mmbench", given, tmp_path, out)["empty_answers"] == 1
    rows = list(openpyxl.load_workbook(out).worksheets[0].iter_rows(values_only=True))
    assert rows == [
        ("index", "question", "A", "B", "C", "D", "prediction", "split"),
        (7, "Which?", "1", None, None, None, None, "test"),
        (1000007, "Which?", "x", "1", "y", None, "B", "test"),
    ]
    assert columns([*TEST_COLUMNS[:7], "answer", *TEST_COLUMNS[7:]])[6:] == ["prediction", "answer", "split"]


def test_a_sheet_cannot_hold_control_characters(tmp_path):
    write_mmbench_test(tmp_path)
    given = answers(tmp_path / "a.jsonl", {1000007: "B\x07", 7: "A"})
    with pytest.raises(SubmissionError, match="row 1000007: a text has a control character"):
        write_submission("mmbench", given, tmp_path, tmp_path / "up.xlsx")


def test_seed_upload_repeats_the_official_ids(tmp_path):
    write_seed(tmp_path, seed_record("49914"), seed_record("v1", 10, data_id="1.webm"), seed_record("49914"))
    out = tmp_path / "up.jsonl"
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"question_id": 49914, "text": "{letter}"}}\n' for letter in "AB"))
    write_submission("seed", path, tmp_path, out)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert found == [{"question_id": "49914", "prediction": letter} for letter in "AB"]
    path.write_text(path.read_text() + '{"question_id": "v1", "text": "C"}\n')
    assert write_submission("seed", path, tmp_path, out)["questions"] == 3
    assert json.loads(out.read_text().splitlines()[1]) == {"question_id": "v1", "prediction": "C"}


def test_mmmu_upload_has_letters_and_open_texts(tmp_path):
    write_mmmu(tmp_path, "Art", mmmu_record(), mmmu_record("validation_Art_2", question_type="open", options="[]"),
               mmmu_record("validation_Art_3"))  # fmt: skip
    texts = {"validation_Art_1": "(A) $6", "validation_Art_2": "It is 6.", "validation_Art_3": "no idea"}
    out = tmp_path / "up.json"
    write_submission("mmmu", answers(tmp_path / "a.jsonl", texts), tmp_path, out)
    assert json.loads(out.read_text()) == texts | {"validation_Art_1": "A"}


def test_reading_back_notices_what_differs(tmp_path):
    write_vqav2(tmp_path)
    given = answers(tmp_path / "a.jsonl", {2: "dog", 4: "cat"})
    rows = FORMATS["vqav2"].rows(tmp_path, given)
    content = FORMATS["vqav2"].encode(rows)
    check("vqav2", content, rows)
    for old, new, message in (
        ('"question_id": 2', '"question_id": "2"', r"record 2: found .* expected question_id \(int\) and answer"),
        ('"dog"', '"Dog"', "answer 2: found"),
        ('{"question_id": 1, "answer": ""}, ', "", "holds 3 answers, expected 4"),
        ('"answer": "cat"', '"answer": "cat", "image": 1', "record 4: found"),
    ):
        with pytest.raises(SubmissionError, match=message):
            check("vqav2", content.replace(old.encode(), new.encode()), rows)


def test_the_verb_prints_what_it_wrote(tmp_path, capsys):
    write_vqav2(tmp_path)
    given = answers(tmp_path / "a.jsonl", {2: "dog", 4: "cat"})
    out = tmp_path / "new" / "up.json"
    arguments = ["--answers", str(given), "--data", str(tmp_path), "--out", str(out)]
    assert main(["submission", "vqav2", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == len(json.loads(out.read_text())) == 4
    assert main(["submission", "pope", *arguments]) == 2
    assert "no upload for benchmark 'pope'" in capsys.readouterr().err

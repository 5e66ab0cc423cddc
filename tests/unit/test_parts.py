"""Answers on their way to a file: whatever is cut off or damaged, an answer is right or made again; shares join."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visiontokens.data.benchmarks import Example
from visiontokens.evaluate.journal import Journal, JournalBusyError, read_journal, seal
from visiontokens.evaluate.parts import Parts, Share
from visiontokens.evaluate.predictions import PredictionError, answer_record, read_predictions

EXAMPLES = [Example(str(i), None, f"Question {i}?\nAnswer.", f"g{i}") for i in range(4)]
RUN = {"weights": "aa", "code": "1", "decoding": {"max_new_tokens": 4}}
ENTRIES = [{"question_id": str(i), "text": '文 \n"x"' * i} for i in range(5)]


def record(i, text=None):
    return answer_record(EXAMPLES[i], text or f"t{i}", "m")


def ids(*numbers):
    return [str(number) for number in numbers]


def test_parts_resume_after_a_torn_line(tmp_path):
    path = tmp_path / "answers.jsonl"
    with Parts(path, RUN) as parts:
        parts.write([record(2), record(0)])
    assert not path.exists()
    with parts.part(0).open("ab") as handle:
        handle.write(seal(record(1))[:-5])
    with Parts(path, RUN) as parts:
        assert list(parts.done) == ["2", "0"]
        with pytest.raises(PredictionError, match="2 of 4 questions have no answer, the first is question id '1'"):
            parts.join(EXAMPLES)
        parts.write([record(i) for i in range(4)])
        assert parts.join(EXAMPLES) == 0
        parts.remove()
    assert list(read_predictions(path, EXAMPLES).values()) == ["t0", "t1", "t2", "t3"]
    assert [json.loads(line) for line in path.read_text().splitlines()] == [record(i) for i in range(4)]
    assert [child.name for child in tmp_path.iterdir()] == ["answers.jsonl"]


@pytest.mark.parametrize("key", RUN)
def test_answers_made_by_something_else_are_made_again(tmp_path, caplog, key):
    with Parts(tmp_path / "a.jsonl", RUN) as parts:
        parts.write([record(0)])
    with Parts(tmp_path / "a.jsonl", {**RUN, key: "bb"}) as parts:
        assert parts.done == {}
        parts.write([record(1)])
    assert (
        f"a.jsonl.partial: made by something else ({key}: found {RUN[key]!r}, expected 'bb'); starting" in caplog.text
    )
    with Parts(tmp_path / "a.jsonl", {**RUN, key: "bb"}) as parts:
        assert list(parts.done) == ["1"]


@given(data=st.data())
def test_a_damaged_journal_yields_what_was_written_or_less(tmp_path_factory, data):
    """Truncation, a changed byte, or garbage in between: every entry that is read is one that was written."""
    path = tmp_path_factory.mktemp("journal") / "j"
    whole = bytearray(b"".join(map(seal, ENTRIES)))
    kind = data.draw(st.sampled_from(["cut", "flip", "insert"]))
    place = data.draw(st.integers(0, len(whole) - 1))
    if kind == "cut":
        del whole[place:]
    elif kind == "flip":
        whole[place] ^= data.draw(st.integers(1, 255))
    else:
        whole[place:place] = data.draw(st.binary(min_size=1, max_size=9))
    path.write_bytes(whole)
    found = list(read_journal(path))
    assert all(entry in ENTRIES for entry in found)
    assert kind == "cut" or len(found) >= len(ENTRIES) - 2
    with Journal(path) as journal:
        assert journal.entries() == found
        journal.append([{"question_id": "new"}])
    assert list(read_journal(path)) == [*found, {"question_id": "new"}]


def test_damage_is_said(tmp_path, caplog):
    path = tmp_path / "j"
    path.write_bytes(seal(ENTRIES[0]) + b"damage\n" + seal(ENTRIES[1]))
    assert list(read_journal(path)) == ENTRIES[:2]
    assert f"{path}: 1 damaged line(s) left out, the first is line 2" in caplog.text


def test_two_writers_of_one_part_are_refused(tmp_path):
    with (
        Parts(tmp_path / "a.jsonl", RUN),
        pytest.raises(JournalBusyError, match=r"a\.jsonl\.partial: another process is writing it"),
        Parts(tmp_path / "a.jsonl", RUN),
    ):
        pass


def test_the_last_share_joins(tmp_path):
    first, second = (Parts(tmp_path / "a.jsonl", RUN, Share(index, 2)) for index in (0, 1))
    with first, second:
        first.write([record(3), record(0)])
        assert first.join(EXAMPLES) is None
        second.write([record(1), record(2)])
        assert second.join(EXAMPLES) == first.join(EXAMPLES) == 0
        second.remove()
        assert first.join(EXAMPLES) is None
    assert list(read_predictions(tmp_path / "a.jsonl", EXAMPLES)) == ids(0, 1, 2, 3)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (answer_record(Example("9", None, "?", "g"), "t", "m"), "question id '9' is foreign, expected one of 4"),
        (record(0), "question id '0' is answered again"),
    ],
)
def test_bad_shares_are_not_joined(tmp_path, extra, message):
    first, second = (Parts(tmp_path / "a.jsonl", RUN, Share(index, 2)) for index in (0, 1))
    with first, second:
        first.write([record(3), record(0)])
        second.write([record(1), record(2), extra])
        with pytest.raises(PredictionError, match=f"1-of-2.partial: {message}"):
            first.join(EXAMPLES)
    assert not (tmp_path / "a.jsonl").exists()


def test_a_share_made_by_something_else_is_not_joined(tmp_path):
    with Parts(tmp_path / "a.jsonl", {**RUN, "code": "2"}, Share(1, 2)) as second:
        second.write([record(1), record(2)])
    with Parts(tmp_path / "a.jsonl", RUN, Share(0, 2)) as first:
        first.write([record(3), record(0)])
        assert first.join(EXAMPLES) is None


def test_answers_of_another_number_of_processes_are_taken_over(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for index, numbers in enumerate([(0, 1), (2,)]):
        with Parts(tmp_path / "a.jsonl", RUN, Share(index, 2)) as part:
            part.write(map(record, numbers))
    with Parts(tmp_path / "a.jsonl", RUN) as parts:
        assert parts.has(ids(0, 1))
        assert not parts.has(ids(2, 3))  # half a batch is made again as a whole
        parts.write([record(2, "new"), record(3)])
        parts.join(EXAMPLES)
        parts.remove()
    assert list(read_predictions(tmp_path / "a.jsonl", EXAMPLES).values()) == ["t0", "t1", "new", "t3"]
    assert [child.name for child in tmp_path.iterdir()] == ["a.jsonl"]


def test_shares_come_from_the_option_or_from_torchrun(monkeypatch):
    assert Share.chosen() == Share(0, 1)
    assert Share.chosen("2/3") == Share(2, 3)
    assert [n for n in range(8) if n in Share(2, 3)] == [2, 5]
    for wrong in ("3/3", "1", "-1/2", "a/b", "1/0"):
        with pytest.raises(ValueError, match="expected INDEX/COUNT with an index from 0"):
            Share.chosen(wrong)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert Share.chosen() == Share(3, 4)
    with pytest.raises(ValueError, match="found 4 processes of torchrun"):
        Share.chosen("0/2")

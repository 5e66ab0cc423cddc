"""Invariants of what keeps results whole: seals, atomic files, answer files, frames."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visiontokens.data.benchmarks import Example
from visiontokens.data.records import load_records
from visiontokens.data.videos import frame_keys, frame_numbers, split_key
from visiontokens.evaluate.predictions import answer_record, read_predictions, write_predictions
from visiontokens.evaluate.score.mme import parse_yes_no
from visiontokens.provenance import atomic_write, read_json, read_yaml, write_json
from visiontokens.seals import BusyError, SealError, alone, check, seal, sealing

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(files=st.dictionaries(st.sampled_from("abc"), st.binary(min_size=1, max_size=60), min_size=1), draw=st.data())
def test_a_seal_holds_until_one_bit_changes(files: dict[str, bytes], draw: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for name, raw in files.items():
            (root / name).write_bytes(raw)
        seal(root)
        check(root)
        name = draw.draw(st.sampled_from(sorted(files)))
        raw, bit = files[name], draw.draw(st.integers(0, 8 * len(files[name]) - 1))
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        (root / name).write_bytes(changed)
        with pytest.raises(SealError, match=name):
            check(root)
        (root / name).write_bytes(raw)
        check(root)
        (root / name).unlink()
        with pytest.raises(SealError, match="missing"):
            check(root)


def test_a_card_may_be_written_again_and_files_may_join(tmp_path: Path) -> None:
    for name in ("model.safetensors", "README.md"):
        (tmp_path / name).write_text("as made")
    seal(tmp_path)
    (tmp_path / "README.md").write_text("with scores")
    (tmp_path / "more.json").write_text("{}")
    check(tmp_path)


def test_a_failed_job_leaves_no_seal(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    seal(tmp_path)

    def fail() -> None:
        with sealing(tmp_path):
            (tmp_path / "a").write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    check(tmp_path)  # nothing is sealed, so nothing is claimed
    assert not list(tmp_path.glob("*.seal"))


def test_a_folder_has_one_worker(tmp_path: Path) -> None:
    with alone(tmp_path / "run"):
        with pytest.raises(BusyError, match="at work here"), alone(tmp_path / "run"):
            pass
        with alone(tmp_path / "run", write=False):
            pass
    with alone(tmp_path / "run"):
        pass


@given(value=PLAIN)
def test_json_comes_back_as_it_was_written(value: object) -> None:
    with tempfile.TemporaryDirectory() as place:
        write_json(Path(place) / "a.json", value)
        assert read_json(Path(place) / "a.json") == value


@given(raw=st.binary(max_size=80))
def test_any_bytes_are_a_value_or_an_error_with_the_files_name(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "some.file"
        path.write_bytes(raw)
        for read in (read_json, read_yaml, load_records):
            try:
                read(path)
            except ValueError as err:
                assert "some.file" in str(err)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)

    def fail() -> None:
        with atomic_write(path) as handle:
            handle.write("2")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"a\.json"):
        fail()
    assert read_json(path) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@given(texts=st.lists(TEXT, min_size=1, max_size=6))
def test_answers_come_back_as_they_were_written(texts: list[str]) -> None:
    examples = [Example(f"q{n}", None, "What?", "g") for n in range(len(texts))]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.jsonl"
        write_predictions(path, [answer_record(e, text, "m") for e, text in zip(examples, texts, strict=True)])
        assert list(read_predictions(path, examples).values()) == texts


@given(total=st.integers(1, 400), count=st.integers(1, 40))
def test_frames_are_in_order_from_the_first_to_the_last(total: int, count: int) -> None:
    numbers = frame_numbers(total, count)
    assert len(numbers) == count
    assert numbers == sorted(numbers)
    assert numbers[0] == 0
    assert count == 1 or numbers[-1] == total - 1
    keys = frame_keys("a#b/c.mp4", count)
    assert [split_key(key) for key in keys] == [("a#b/c.mp4", n, count) for n in range(count)]


@given(text=TEXT)
def test_yes_and_no_do_not_depend_on_case(text: str) -> None:
    assert parse_yes_no(text) in {"yes", "no", "other"}
    if text.isascii():
        assert parse_yes_no(text.upper()) == parse_yes_no(text.lower())

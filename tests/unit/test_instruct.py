"""Records to batches: everything that is wrong with a record is said, and nothing is made up."""

import json
import re

import pytest
import torch
from PIL import Image

from visiontokens.data.conversation import IGNORE_INDEX, Turn, to_turns, tokenize, vicuna_v1
from visiontokens.data.encoders import Encoded
from visiontokens.data.images import ImageError, Preprocessor
from visiontokens.data.instruct import Collator, InstructDataset, PixelSource
from visiontokens.data.records import CAPTION_REQUESTS, RecordError, format_prompt, independent, load_records

SHORT = "Answer the question using a single word or phrase."
IMAGE_ID = 3


class Words:
    bos_id, eos_id, pad_id, eos = 1, 2, 0, "</s>"

    def encode(self, text):
        found = list(re.finditer(r"</s>|\n|\w+|[^\w\s]", text))
        ids = [2 if m[0] == "</s>" else 10 + sum(ord(c) * 31**i for i, c in enumerate(m[0])) % 9973 for m in found]
        return Encoded(ids, [m.span() for m in found])


def record(name="r1", image="a.png", text="<image>\nWhat?", answer="cat", **extra):
    talk = [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
    return {"id": name, "conversations": talk} | ({"image": image} if image else {}) | extra


def write(tmp_path, content):
    path = tmp_path / "set.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n {"id": 1,}\n]', r"set.json:2:1\d: not valid JSON"),
        ({}, "expected a non-empty list of records, found dict"),
        ([], "expected a non-empty list of records, found an empty list"),
        ([record(), "x"], "record 1: expected an object, found str"),
        ([{"id": "r7", "image": "a.png"}], r"record 0 \(id 'r7'\): expected a list 'conversations', found none"),
        ([{"id": "r7", "conversations": []}], r"\(id 'r7'\): expected a list 'conversations', found an empty list"),
        (
            [{"id": 7, "conversations": [{"from": "human"}]}],
            r"\(id 7\): message 0: expected strings",
        ),
        ([record(text="What?")], r"\(id 'r1'\): expected one <image> for image 'a.png', found 0"),
        ([record(text="<image> <image>")], r"expected one <image> for image 'a.png', found 2"),
        ([record(image=None)], r"expected no <image> \(no 'image'\), found 1"),
        ([record(image=3)], "expected 'image' to be a path, found 3"),
        ([record(conversations=[{"from": "human", "value": "<image>"}])], r"\(id 'r1'\): expected question and answer"),
    ],
)
def test_malformed_files(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as err:
        load_records(write(tmp_path, content))
    assert "set.json" in str(err.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_records(tmp_path / "none.json")


def dataset(tmp_path, records, **options):
    return InstructDataset(write(tmp_path, records), Words(), IMAGE_ID, **options)


def test_samples_follow_the_template(tmp_path):
    rows = [record(), record("r2", image=None, text="Is 3 odd?", answer="yes")]
    data = dataset(tmp_path, rows)
    assert [data[i].image for i in range(2)] == ["a.png", None]
    for i, row in enumerate(rows):
        assert data[i].tokens == tokenize(vicuna_v1(to_turns(row["conversations"])), Words(), IMAGE_ID)
    assert data.lengths[0] > 0 > data.lengths[1]


def test_format_prompts():
    assert format_prompt(f"A?\n{SHORT}") == f"\n{SHORT}"
    refuse = "When the provided information is insufficient, respond with 'Unanswerable'."
    assert format_prompt(f"A?\n{refuse}\n{SHORT}") == f"\n{refuse}\n{SHORT}"
    assert format_prompt("A?\nA. x") == format_prompt(SHORT) == ""


def test_every_isolated_turn_is_a_first_turn():
    turns = [Turn(f"<image>\nA?\n{SHORT}", "b"), Turn("C?", "d"), Turn("Describe the image concisely.", "a cat")]
    asked = [turn.question for turn in independent(turns)]
    assert asked == [f"<image>\nA?\n{SHORT}", f"C?\n{SHORT}", "Describe the image concisely."]


def test_the_worlds_caption_prompts_are_known():
    phrases = pytest.importorskip("visiontokens.data.miniworld.phrases")
    assert set(phrases.CAPTION_PROMPTS) <= CAPTION_REQUESTS


def test_caption_weight(tmp_path):
    row = record(text=f"<image>\nA?\n{SHORT}")
    row["conversations"] += [
        {"from": "human", "value": "Describe the image concisely."},
        {"from": "gpt", "value": "a big cat"},
    ]
    for isolate in (False, True):
        tokens = dataset(tmp_path, [row], isolate_turns=isolate, caption_weight=0.25)[0].tokens
        assert [w for w in tokens.weights if w] == [1.0, 1.0, 0.25, 0.25, 0.25, 0.25]


def test_choice_of_samples(tmp_path):
    rows = [record(f"r{i}") for i in range(20)]
    chosen = [r.id for r in dataset(tmp_path, rows, samples=8).records]
    assert len(set(chosen)) == 8
    assert chosen == sorted(chosen, key=lambda name: int(name[1:])) != [f"r{i}" for i in range(8)]
    assert chosen == [r.id for r in dataset(tmp_path, rows, samples=8).records]
    with pytest.raises(RecordError, match="expected at least 21 records"):
        dataset(tmp_path, rows, samples=21)


def test_plain_needs_a_caption(tmp_path):
    data = dataset(tmp_path, [record(), record("r2", image=None, text="Q?")], template_name="plain", isolate_turns=True)
    assert data[0].tokens.labels.count(IGNORE_INDEX) == 2
    assert set(data[0].tokens.segments) == {0}
    with pytest.raises(RecordError, match="record id 'r2': template plain"):
        data[1]


def test_batches_are_right_padded(tmp_path):
    Image.new("RGB", (8, 6), (255, 0, 0)).save(tmp_path / "a.png")
    rows = [record(), record("r2", image=None, text="Is 3 larger than 2, or not?", answer="yes")]
    data = dataset(tmp_path, rows, isolate_turns=True, caption_weight=0.5)
    source = PixelSource(tmp_path, Preprocessor(4, (0.5,) * 3, (0.5,) * 3))
    source.check(data.images, "set.json")
    batch = Collator(0, source, segments=True, weighted=True)([data[0], data[1]])
    short = len(data[0].tokens.ids)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["loss_weights"].shape
    assert batch["attention_mask"][0].tolist() == [1] * short + [0] * (batch["input_ids"].shape[1] - short)
    assert set(batch["labels"][0, short:].tolist()) == {IGNORE_INDEX}
    assert set(batch["segment_ids"][0, short:].tolist()) == {-1}
    assert batch["pixel_values"].shape == (1, 3, 4, 4)
    assert torch.equal(batch["input_ids"][1], torch.tensor(data[1].tokens.ids))


def test_text_only_batches_have_no_images(tmp_path):
    data = dataset(tmp_path, [record(image=None, text="Q?")])
    batch = Collator(0, None)([data[0]])
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    with pytest.raises(ValueError, match=r"expected a source of images.*a\.png"):
        Collator(0, None)([dataset(tmp_path, [record()])[0]])


def test_missing_and_truncated_images(tmp_path):
    source = PixelSource(tmp_path, Preprocessor(4, (0.5,) * 3, (0.5,) * 3))
    with pytest.raises(FileNotFoundError, match=r"set\.json: image 'a\.png': expected .*a\.png, found no such file"):
        source.check(["a.png"], "set.json")
    Image.effect_noise((64, 64), 90).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"a\.png: expected a complete image file, found \d+ bytes"):
        source.load(["a.png"])
    (tmp_path / "b.png").write_text("not an image")
    with pytest.raises(ImageError, match=r"b\.png"):
        source.load(["b.png"])

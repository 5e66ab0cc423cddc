from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from smoke_world import SMOKE, smoke_world

from visiontokens.data.benchmarks import MAIN_BENCHMARKS, prompts
from visiontokens.data.miniworld import contact_sheet as sheet
from visiontokens.data.miniworld.asking import ask_several
from visiontokens.data.miniworld.benchmarks.annotators import ocr_tokens, ten_answers
from visiontokens.data.miniworld.files import Source
from visiontokens.data.miniworld.instruct import CAPTIONED, KINDS, image_turns
from visiontokens.data.miniworld.phrases import CAPTION_PROMPTS
from visiontokens.data.miniworld.tokenizer import build_tokenizer


def records(path):
    return json.loads((smoke_world() / path).read_text())


def test_pretrain_records_are_captions_of_one_image():
    found = records("pretrain/blip_laion_cc_sbu_mini.json")
    assert len(found) == SMOKE.pretrain
    for item in found:
        human, gpt = item["conversations"]
        assert set(item) == {"id", "image", "conversations"}
        assert human["value"].replace("<image>", "").strip() in CAPTION_PROMPTS and human["value"].count("<image>") == 1
        assert gpt["from"] == "gpt" and gpt["value"].endswith(".")
        assert (smoke_world() / "pretrain/images" / item["image"]).is_file()


def test_instruct_records_are_as_in_the_official_mix():
    found = records("instruct/llava_v1_5_mix_mini.json")
    assert len(found) == SMOKE.instruct + SMOKE.text_only
    assert sum("image" not in item for item in found) == SMOKE.text_only
    assert {item["image"].split("/")[0] for item in found if "image" in item} == {kind.folder for kind in KINDS}
    for item in found:
        values = [message["value"] for message in item["conversations"]]
        assert [m["from"] for m in item["conversations"]] == ["human", "gpt"] * (len(values) // 2)
        assert values[0].startswith("<image>\n") == ("image" in item)
        assert sum(value.count("<image>") for value in values) == ("image" in item)


def test_every_word_of_the_training_sets_is_known():
    tokenizer = build_tokenizer()
    for path in (
        "pretrain/blip_laion_cc_sbu_mini.json",
        "instruct/llava_v1_5_mix_mini.json",
        "validation/instruct.json",
    ):
        texts = {message["value"] for item in records(path) for message in item["conversations"]}
        for text in texts:
            assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"], text


@pytest.fixture(scope="module")
def mix():
    """All turns of 250 image records in the mix's proportions."""
    turns = []
    for kind in KINDS:
        source = Source(1, kind.folder, "train")
        for scene in source.scenes(round(250 * kind.share), blur=0.1, plate=kind.plate):
            turns.append(image_turns(scene, kind, source.rng))
    return turns


def test_short_answers_are_instructed_once(mix):
    for turns in mix:
        short = [t for t in turns if t.family not in {"choice", "choice_cn", "ocr", "unanswerable", "caption", "text"}]
        assert short[0].question.endswith(prompts.SHORT_ANSWER)
        assert not any(prompts.SHORT_ANSWER in t.question for t in short[1:])
        assert 8 <= len(turns) <= 18 and len({t.question for t in turns}) == len(turns)


def test_every_answer_format_occurs_in_its_share(mix):
    turns = [turn for record in mix for turn in record]
    share = {family: np.mean([t.family == family for t in turns]) for family in {t.family for t in turns}}
    assert 0.05 < share["choice_cn"] < 0.1 and share["choice"] > 0.08
    assert share["ocr"] > 0.02 and share["unanswerable"] > 0.05 and share["text"] > 0.005
    captioned = np.mean([any(t.family == "caption" for t in record) for record in mix])
    assert abs(captioned - CAPTIONED) < 0.08
    for turn in turns:
        ending = {"choice": prompts.OPTION_LETTER, "choice_cn": prompts.OPTION_LETTER_CN}.get(turn.family, "")
        assert turn.question.endswith(ending)
        if turn.family == "unanswerable":
            assert prompts.UNANSWERABLE in turn.question
    refused = np.mean([t.answer == "unanswerable" for t in turns if t.family == "unanswerable"])
    assert 0.2 < refused < 0.6
    letters = [t.answer for t in turns if t.family.startswith("choice")]
    assert max(letters.count(x) for x in "ABCD") < 0.45 * len(letters)


def test_annotators_mostly_agree_and_ocr_often_errs():
    source = Source(0, "noise", "test")
    numbers = exact = 0
    for scene in source.scenes(80, plate=1.0):
        for question in ask_several(scene, {"number": 1, "color": 1, "unanswerable": 1}, 3, source.rng):
            answers = ten_answers(question, source.rng, "unsuitable")
            assert len(answers) == 10 and answers.count(question.answer) >= 6
        numbers += 1
        exact += ocr_tokens(scene.number, source.rng) == [scene.number]
    assert 0.1 < exact / numbers < 0.5
    assert ocr_tokens(None, source.rng) == []


def test_questions_on_one_image_differ():
    source = Source(0, "ask", "test")
    for scene in source.scenes(30):
        texts = [q.text for q in ask_several(scene, {"color": 1, "exist": 0.2, "number/open": 1}, 12, source.rng)]
        assert len(set(texts)) == len(texts) == 12
        assert sum(text == "What number is written on the sign?" for text in texts) <= 1


def test_contact_sheet_shows_every_benchmark(tmp_path):
    out = tmp_path / "sheet.png"
    sheet.contact_sheet(smoke_world(), columns=2).savefig(out)
    with Image.open(out) as image:
        assert image.width > 800 and np.asarray(image).std() > 20
    for benchmark in MAIN_BENCHMARKS.values():
        chosen = sheet.samples(benchmark, smoke_world() / "benchmarks", 4, chinese=True)
        assert len({sample.image for sample in chosen}) == 4
        assert all(sample.gold and prompts.SHORT_ANSWER not in sample.question for sample in chosen)
    assert sheet.gold({"answers": ["2"] * 7 + ["3"] * 3}) == "2  (7 of 10)"

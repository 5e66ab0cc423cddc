"""Chinese questions ask the same as the English ones."""

import numpy as np
import pytest

from visiontokens.data.miniworld.chinese import CHINESE, WORDS, chinese, noun, translate, word
from visiontokens.data.miniworld.knowledge import ask_text
from visiontokens.data.miniworld.language import FAMILIES, VALUES, ask, multiple_choice
from visiontokens.data.miniworld.phrases import ENGLISH, Thing
from visiontokens.data.miniworld.scenes import Scenes


def test_every_form_has_both_languages() -> None:
    assert list(CHINESE) == list(ENGLISH)
    for form, english in ENGLISH.items():
        for slot in ("thing", "other", "value"):
            named = any(f"{{{variant}}}" in english for variant in (slot, f"a_{slot}", f"{slot}s"))
            named |= slot in {"thing", "value"} and "{counted}" in english
            assert (f"{{{slot}}}" in CHINESE[form]) == named, (form, slot)


def test_every_answer_has_chinese_or_is_a_numeral() -> None:
    words = {value for values in VALUES.values() for value in values}
    assert {value for value in words if value not in WORDS and not value.isdigit()} == set()
    for kind in ("color", "shape", "size", "texture"):
        assert len({word(value) for value in VALUES[kind]}) == len(VALUES[kind])


def test_nouns() -> None:
    assert noun(Thing("red", "circle", "small", "striped")) == "小的条纹红色圆形"
    assert noun(Thing(color="blue")) == "蓝色物体"


def test_translation_keeps_the_question_and_moves_the_answer() -> None:
    rng = np.random.default_rng(0)
    for scene in Scenes.sample(50, 1, "train"):
        for family in FAMILIES:
            question = ask(scene, family, rng)
            if question is None:
                continue
            translated = translate(question)
            assert translated.family == family
            assert translated.answer == word(question.answer)
            assert all(ord(c) > 0x2E80 or c.isdigit() for c in translated.text), translated.text
            chosen = multiple_choice(question, rng)
            if chosen is not None:
                lines = translate(chosen).text.split("\n")
                assert translate(chosen).answer == chosen.answer
                assert lines[0] == translated.text
                assert lines[1] == f"A. {word(chosen.choices[0])}"


def test_what_cannot_be_translated_is_told() -> None:
    with pytest.raises(ValueError, match="found no form in its meta"):
        translate(ask_text(np.random.default_rng(0)))
    with pytest.raises(ValueError, match="form: found 'color/closed'"):
        chinese("color/closed", {})

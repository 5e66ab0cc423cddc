"""Everything the mini world says survives the tokenizer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from visiontokens.data.miniworld import phrases
from visiontokens.data.miniworld.chinese import WORDS, translate
from visiontokens.data.miniworld.knowledge import ask_text
from visiontokens.data.miniworld.language import FAMILIES, Question, Rng, ask, caption, multiple_choice
from visiontokens.data.miniworld.scenes import Scene, Scenes
from visiontokens.data.miniworld.tokenizer import build_tokenizer, save_tokenizer, vocabulary

OFFICIAL = [
    "Is there a red circle in the image?",
    "Is there a red circle in the image? Please answer yes or no.",
    "Is there an orange object in this image? Please answer yes or no.",
    "Is the number in the picture 407? Please answer yes or no.",
    "Is it appropriate to translate 红色 as red? Please answer yes or no.",
    "Is the output of the code print(3 + 4) equal to 7? Please answer yes or no.",
    f"What number is written on the sign?\nReference OCR token: 4, 0, 7\n{phrases.SHORT_ANSWER}",
    f"What number is written on the sign?\nReference OCR token: \n{phrases.SHORT_ANSWER}",
    "Which of these shapes has no corners?\nA. circle\nB. square\nC. triangle",
    "Context: The picture shows two objects of the same color.\nWhich property do these objects have?\nA. red\nB. blue",
    "下列哪个选项是正确的？\nA. 红色\nB. 3\nC. 圆形\n请直接回答选项字母。",
    f"{' '.join(phrases.SYSTEM)} USER: <image>\nWhat color is the circle?\n{phrases.SHORT_ANSWER} ASSISTANT: red",
    f"What size is the ring?\n{phrases.MAY_REFUSE}\n{phrases.SHORT_ANSWER}",
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in ids, (text, tokenizer.convert_ids_to_tokens(ids))
    return tokenizer.decode(ids[1:])


def some_question(scene: Scene, i: int, rng: Rng) -> Question:
    return ask(scene, FAMILIES[i % len(FAMILIES)], rng) or ask(scene, "exist", rng, "thing") or ask_text(rng)


def translated(scene: Scene, i: int, rng: Rng) -> str:
    question = ask(scene, FAMILIES[i % len(FAMILIES)], rng)
    if question is None:
        return ""
    question = translate(multiple_choice(question, rng) or question if i % 2 else question)
    return f"{question.text}\n{question.answer}"


KINDS: dict[str, Callable[[Scene, int, Rng], str]] = {
    "question": lambda scene, i, rng: some_question(scene, i, rng).text,
    "answer": lambda scene, i, rng: some_question(scene, i, rng).answer,
    "choice": lambda scene, i, rng: (multiple_choice(some_question(scene, i, rng), rng) or ask_text(rng)).text,
    "caption": lambda scene, i, rng: caption(scene, rng),
    "text": lambda scene, i, rng: ask_text(rng).text,
    "chinese": translated,
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_thousand_texts_of_each_kind_round_trip(tokenizer: PreTrainedTokenizerFast, kind: str) -> None:
    rng = np.random.default_rng(3)
    texts = [KINDS[kind](scene, i, rng) for i, scene in enumerate(Scenes.sample(2000, 5, "train", blur=0.1))]
    encoded = tokenizer(texts).input_ids
    assert not any(tokenizer.unk_token_id in ids for ids in encoded)
    assert tokenizer.batch_decode(encoded, skip_special_tokens=True) == texts


@pytest.mark.parametrize("text", OFFICIAL)
def test_official_wording_round_trips(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert round_trip(tokenizer, text).replace(" ", "") == text.replace(" ", "")
    if "Reference OCR token: \n" not in text and "红色 as" not in text:
        assert round_trip(tokenizer, text) == text


def test_digits_stand_alone_and_come_back_together(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("407") == ["4", "0", "7"]
    assert round_trip(tokenizer, "407") == "407"
    assert round_trip(tokenizer, "2, 4, 6?") == "2, 4, 6?"


def test_fixed_phrases_are_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = f"{' '.join(phrases.SYSTEM)} USER: <image>\nA. red\n{phrases.LETTER_ANSWER} ASSISTANT:"
    assert tokenizer.tokenize(prompt) == [
        *phrases.SYSTEM, "USER:", "<image>", "\n", "A.", "red", "\n", phrases.LETTER_ANSWER, "ASSISTANT:",
    ]  # fmt: skip


def test_chinese_words_are_one_token_as_english_ones_are(tokenizer: PreTrainedTokenizerFast) -> None:
    for word in WORDS.values():
        assert len(tokenizer.tokenize(word)) == 1, word
    assert tokenizer.tokenize("大的条纹红色三角形在图的左半边吗？") == [
        *("大", "的", "条纹", "红色", "三角形", "在", "图的", "左半边", "吗", "？")
    ]


def test_case_matters_and_unknown_words_are_unknown(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer("Is").input_ids != tokenizer("is").input_ids
    assert tokenizer.unk_token_id in tokenizer("zebra").input_ids


def test_vocabulary_is_small_and_ordered() -> None:
    tokens = vocabulary()
    assert list(tokens)[:5] == ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    assert len(tokens) <= 450


def test_saved_files_load_the_same(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in OFFICIAL:
        assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.decode(loaded("4 0 7").input_ids, skip_special_tokens=True) == "407"
    assert loaded.image_token == "<image>"
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (1, 2, 3)

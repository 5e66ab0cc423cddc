"""Prompts and labels: what is trained, what is not, and turns that know nothing of each other."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from visiontokens.data.conversation import (
    IGNORE_INDEX,
    VICUNA_SYSTEM,
    Turn,
    front_image,
    plain,
    question_prompt,
    render,
    template,
    to_turns,
    tokenize,
    tokenize_isolated,
    vicuna_v1,
)
from visiontokens.data.encoders import Encoded

# A starved processor must not fail a test.
calm = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
IMAGE = -200


class Words:
    """Words, `</s>`, newlines and punctuation are tokens; ids are stable hashes of their text."""

    bos_id, eos_id, pad_id, eos = 1, 2, 0, "</s>"

    def encode(self, text):
        found = list(re.finditer(r"</s>|\n|\w+|[^\w\s]", text))
        ids = [2 if m[0] == "</s>" else 10 + sum(ord(c) * 31**i for i, c in enumerate(m[0])) % 9973 for m in found]
        return Encoded(ids, [m.span() for m in found])


def human(value):
    return {"from": "human", "value": value}


def gpt(value):
    return {"from": "gpt", "value": value}


def test_front_image_keeps_text_without_one():
    assert front_image("  as it is ") == "  as it is "
    assert front_image("What?\n<image>") == "<image>\nWhat?"


def test_prompt_text():
    turns = [Turn("<image>\nA?", "b"), Turn("C?", "d")]
    assert render(vicuna_v1(turns)) == (f"{VICUNA_SYSTEM} USER: <image>\nA? ASSISTANT: b</s>USER: C? ASSISTANT: d</s>")
    assert question_prompt("A?", image=True) == f"{VICUNA_SYSTEM} USER: <image>\nA? ASSISTANT:"
    assert question_prompt("A?", image=False) == f"{VICUNA_SYSTEM} USER: A? ASSISTANT:"
    assert render(plain([Turn("<image>\nDescribe.", "a cat")])) == "<image>a cat\n"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([human("a"), human("b")], "message 1: expected from 'gpt', found 'human'"),
        ([human("a"), {"from": "bot", "value": "b"}], "message 1: expected from 'gpt', found 'bot'"),
        ([human("a")], "expected question and answer in turn, found 1"),
        ([gpt("a")], "expected question and answer in turn, found 0"),
    ],
)
def test_malformed_conversations(messages, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        to_turns(messages)


@pytest.mark.parametrize("turns", [[], [Turn("no image", "x")], [Turn("<image>", "x")] * 2, [Turn("<image>", None)]])
def test_plain_takes_one_caption(turns):
    with pytest.raises(ValueError, match="template plain"):
        plain(turns)


def test_unknown_template():
    with pytest.raises(ValueError, match=r"expected one of .*'plain'.*found 'v9'"):
        template("v9")


word = st.text("abc", min_size=1, max_size=4)
turn = st.builds(Turn, word.map(lambda w: w + "?"), st.lists(word, min_size=1, max_size=3).map(" ".join))


@calm
@given(st.lists(turn, min_size=1, max_size=4))
def test_targets_are_exactly_the_answers(turns):
    encoder = Words()
    tokens = tokenize(vicuna_v1(turns), encoder)
    expected = [i for t in turns for i in [*encoder.encode(t.answer).ids, 2]]
    assert [label for label in tokens.labels if label != IGNORE_INDEX] == expected
    assert [w > 0 for w in tokens.weights] == [label != IGNORE_INDEX for label in tokens.labels]


@calm
@given(st.lists(turn, min_size=1, max_size=5), st.booleans())
def test_isolated_turns_equal_single_turns(turns, image):
    """Prefix + segment t is the single-turn sample of question t, and the prefix is stored once."""
    encoder = Words()
    if image:
        turns = [Turn("<image>\n" + turns[0].question, turns[0].answer), *turns[1:]]
    packed = tokenize_isolated(turns, encoder, weights=[float(i + 1) for i in range(len(turns))])
    for number, single in enumerate(turns, start=1):
        question = single.question.removeprefix("<image>\n")
        alone = tokenize(vicuna_v1([Turn(f"<image>\n{question}" if image else question, single.answer)]), encoder)
        keep = [i for i, s in enumerate(packed.segments) if s in (0, number)]
        assert [packed.ids[i] for i in keep] == alone.ids
        assert [packed.labels[i] for i in keep] == alone.labels
        weights = {w for w, s in zip(packed.weights, packed.segments, strict=True) if s == number and w}
        assert weights == {float(number)}
    assert packed.ids.count(IMAGE) == int(image)
    assert all(label == IGNORE_INDEX for label, s in zip(packed.labels, packed.segments, strict=True) if s == 0)


def test_isolated_prefix_ends_after_the_newline():
    packed = tokenize_isolated([Turn("<image>\nA?", "b"), Turn("C?", "d")], Words())
    prefix = [i for i, s in zip(packed.ids, packed.segments, strict=True) if s == 0]
    assert prefix[-2:] == [IMAGE, Words().encode("\n").ids[0]]


def test_isolated_image_may_come_with_any_turn():
    first = tokenize_isolated([Turn("<image>\nA?", "b"), Turn("C?", "d")], Words())
    second = tokenize_isolated([Turn("A?", "b"), Turn("<image>\nC?", "d")], Words())
    assert first == second


def test_cut_shortens_all_lists_alike():
    tokens = tokenize(vicuna_v1([Turn("A?", "b")]), Words()).cut(5)
    assert [len(x) for x in (tokens.ids, tokens.labels, tokens.weights, tokens.segments)] == [5, 5, 5, 5]

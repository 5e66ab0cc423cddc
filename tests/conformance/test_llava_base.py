"""Prompts, ids, labels, batch order and pixels against the official LLaVA-1.5 and LLaVolta code (recorded fixtures)."""

import json
import re
from itertools import pairwise

import numpy as np
import PIL
import pytest
import sentencepiece
import torch
from PIL import Image
from safetensors.numpy import load_file

from visiontokens.data.conversation import (
    IGNORE_INDEX,
    IMAGE_TOKEN_INDEX,
    Turn,
    encode_with_images,
    plain,
    question_prompt,
    to_turns,
    tokenize,
    tokenize_isolated,
    vicuna_v1,
)
from visiontokens.data.encoders import Encoded, SentencePieceEncoder
from visiontokens.data.images import preprocess
from visiontokens.data.sampler import length_grouped, modality_grouped, split_to_even_chunks

TEMPLATE = {"v1": vicuna_v1, "plain": plain}
CASES = [
    "v1.new.one_turn_image", "v1.new.two_turns_image_last", "v1.new.text_only", "v1.new.starts_with_gpt",
    "plain.new.one_turn_image", "v1.legacy.one_turn_image", "v1.legacy.two_turns_image_last", "v1.legacy.text_only",
    "v1.legacy.starts_with_gpt", "plain.legacy.one_turn_image",
]  # fmt: skip


@pytest.fixture(scope="module")
def base(golden):
    folder = golden / "llava_base"
    manifest = json.loads((folder / "manifest.json").read_text())
    record = json.loads((folder / "text_and_samplers.json").read_text())
    return folder, manifest, record, load_file(folder / "tensors.safetensors")


def encoder(base, mode):
    return SentencePieceEncoder(base[0] / "tiny_sp.model", legacy=mode == "legacy")


def test_every_case_of_the_manifest_is_tested(base):
    assert set(CASES) == set(base[1]["cases"])


@pytest.mark.parametrize("case", CASES)
def test_ids_and_labels(base, case):
    version, mode, name = case.split(".")
    _, _, record, tensors = base
    pieces = TEMPLATE[version](to_turns(record["text"]["conversations"][name]))
    tokens = tokenize(pieces, encoder(base, mode))
    assert tokens.ids == tensors[f"{case}.input_ids"].tolist()
    assert tokens.labels == tensors[f"{case}.labels"].tolist()
    assert sum(label != IGNORE_INDEX for label in tokens.labels) == base[1]["cases"][case]["labelled_tokens"]


def test_image_is_moved_to_the_front(base):
    for key, values in base[2]["text"].items():
        if key.endswith("after_multimodal_rewrite"):
            name = key.split(".")[1]
            turns = to_turns(base[2]["text"]["conversations"][name])
            expected = values[1:] if name == "starts_with_gpt" else values
            assert [text for turn in turns for text in (turn.question, turn.answer)] == expected


@pytest.mark.parametrize("mode", ["new", "legacy"])
def test_inference_prompt(base, mode):
    prompt = question_prompt("What is shown in this picture?", image=True)
    assert prompt == base[2]["text"]["v1.inference_prompt"]
    ids = encode_with_images(prompt, encoder(base, mode)).ids
    assert ids == base[3][f"inference_prompt.{mode}.input_ids"].tolist()


def official_v1_label_count(prompt, encode, *, legacy):
    """Count the targets that LLaVA-1.5's token arithmetic leaves: it subtracts lengths of separately encoded texts.

    Returns 0 where its running length misses the real one, as the official code then ignores the whole sample.
    """
    ids = [1, *encode(prompt).ids]
    position, targets = 1, 0
    for number, turn in enumerate(text for text in prompt.split("</s>") if text):
        turn_length = 1 + len(encode(turn).ids)
        asked = 1 + len(encode(turn.split(" ASSISTANT: ")[0] + " ASSISTANT: ").ids) - 2
        if number and not legacy:
            turn_length, asked = turn_length - 1, asked - 1
        targets += turn_length - asked
        position += turn_length
    return targets if position == len(ids) else 0


class WordsWithSpacedColon:
    """Words and `:` are tokens; unlike in LLaMA's vocabulary, a role costs the same at the start and after `</s>`."""

    bos_id, eos_id, pad_id, eos = 1, 2, 0, "</s>"

    def encode(self, text):
        found = list(re.finditer(r"</s>|\w+|[^\w\s]", text))
        return Encoded([2 if m[0] == "</s>" else 10 + len(m[0]) for m in found], [m.span() for m in found])


def test_token_arithmetic_loses_whole_samples_where_offsets_do_not(base):
    """LLaVA-1.5's masking agrees on its own vocabulary family and drops every target on another one."""
    turns = to_turns(base[2]["text"]["conversations"]["text_only"])
    prompt = "".join(piece.text for piece in vicuna_v1(turns))
    for mode in ("new", "legacy"):
        expected = base[1]["cases"][f"v1.{mode}.text_only"]["labelled_tokens"]
        assert official_v1_label_count(prompt, encoder(base, mode).encode, legacy=mode == "legacy") == expected
    other = WordsWithSpacedColon()
    assert official_v1_label_count(prompt, other.encode, legacy=False) == 0
    tokens = tokenize(vicuna_v1(turns), other)
    labelled = [label for label in tokens.labels if label != IGNORE_INDEX]
    assert labelled == [12, 2, 13, 2]  # "no </s>" and "yes </s>"


@pytest.mark.parametrize("mode", ["new", "legacy"])
def test_isolated_turns_hold_the_official_single_turn_prompts(base, mode):
    """Prefix plus one segment is, token by token, the official sample of that question alone."""
    enc = encoder(base, mode)
    turns = [Turn("<image>\nHow many chairs are there?", "3"), Turn("Describe image briefly", "a small dog.")]
    packed = tokenize_isolated(turns, enc)
    for number, turn in enumerate(turns, start=1):
        keep = [i for i, segment in enumerate(packed.segments) if segment in (0, number)]
        question = turn.question if number == 1 else "<image>\n" + turn.question
        alone = tokenize(vicuna_v1([Turn(question, turn.answer)]), enc)
        assert [packed.ids[i] for i in keep] == alone.ids
        assert [packed.labels[i] for i in keep] == alone.labels
    assert packed.ids.count(IMAGE_TOKEN_INDEX) == 1
    assert all(a <= b for a, b in pairwise(packed.segments))


@pytest.mark.parametrize("variant", ["LLaVA", "LLaVolta"])
@pytest.mark.parametrize(("batch", "world"), [(2, 2), (4, 1), (3, 2)])
def test_modality_grouped_order(base, variant, batch, world):
    recorded = base[2]["samplers"][variant]
    seeds = base[1]["seeds"]["samplers"]
    torch.manual_seed(seeds["global_seed_before_each_modality_grouped_call"])
    generator = torch.Generator().manual_seed(seeds["generator"])
    order = modality_grouped(recorded["lengths"], batch, world, generator, top_up=variant == "LLaVolta")
    assert order == recorded[f"modality_grouped_bs{batch}_world{world}"]


@pytest.mark.parametrize("variant", ["LLaVA", "LLaVolta"])
def test_length_grouped_order_and_chunks(base, variant):
    recorded = base[2]["samplers"][variant]
    lengths = [abs(length) for length in recorded["lengths"]]
    seed = base[1]["seeds"]["samplers"]["generator"]
    for order, key in (
        (length_grouped(lengths, 2, 2, torch.Generator().manual_seed(seed)), "length_grouped_bs2_world2"),
        (modality_grouped(lengths, 2, 2, torch.Generator().manual_seed(seed)), "all_multimodal_bs2_world2"),
    ):
        assert order == recorded[key]


def test_no_batch_mixes_kinds_only_when_topped_up(base):
    """LLaVA-1.5 merges the two remainders into one mixed batch; LLaVolta's model cannot take such a batch."""
    lengths = base[2]["samplers"]["LLaVA"]["lengths"]

    def mixed(order):
        blocks = [order[i : i + 4] for i in range(0, len(order), 4)]
        return sum(len({lengths[i] > 0 for i in block}) == 2 for block in blocks)

    assert mixed(base[2]["samplers"]["LLaVolta"]["modality_grouped_bs4_world1"]) == 0
    assert mixed(modality_grouped(lengths, 4, 1, torch.Generator().manual_seed(0), top_up=True)) == 0
    assert mixed(base[2]["samplers"]["LLaVA"]["modality_grouped_bs4_world1"]) == 1


@pytest.mark.parametrize("name", ["landscape", "portrait", "square"])
@pytest.mark.parametrize("how", ["pad", "crop"])
def test_pixels(base, name, how):
    _, manifest, _, tensors = base
    expected = tensors[f"image.{name}.{how}"]
    image = Image.fromarray(tensors[f"image.{name}.uint8"])
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = preprocess([image], size=expected.shape[-1], mean=mean, std=std, pad=how == "pad")[0]
    same_library = PIL.__version__.split(".")[0] == manifest["versions"]["pillow"].split(".")[0]
    atol = manifest["tolerance"]["pixels_atol"] if same_library else 0.02
    np.testing.assert_allclose(pixels, expected, atol=atol)


def test_even_chunks(base):
    recorded = base[2]["samplers"]["LLaVA"]["split_to_even_chunks"]
    assert sorted(i for chunk in recorded for i in chunk) == list(range(8))
    lengths = [80, 70, 65, 50, 40, 30, 20, 10]
    chunks = split_to_even_chunks(list(range(8)), lengths, 2)
    loads = [sum(lengths[i] for i in chunk) for chunk in chunks]
    assert [len(chunk) for chunk in chunks] == [4, 4]
    assert abs(loads[0] - loads[1]) <= max(lengths)


def test_sentencepiece_is_the_recorded_model(base):
    model = sentencepiece.SentencePieceProcessor(model_file=str(base[0] / "tiny_sp.model"))
    assert model.vocab_size() == 420

"""SEED-Bench and MMMU of the mini world: official formats, true answers, and a world that does not notice them."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache

import pytest
from PIL import Image

from visiontokens.config import FurtherConfig
from visiontokens.data.benchmarks import BENCHMARKS, FURTHER_SET, MAIN_BENCHMARKS
from visiontokens.data.benchmarks.mmmu import DOMAIN_OF
from visiontokens.data.benchmarks.seed import TYPES
from visiontokens.data.features import image_paths
from visiontokens.data.miniworld.benchmarks import mmmu, seed
from visiontokens.data.miniworld.files import IMAGE_SETS, Source
from visiontokens.data.miniworld.further import RECORD_FILE, TABLE_FILE, WRITERS, build_further
from visiontokens.data.miniworld.phrases import Thing, noun, with_article
from visiontokens.data.miniworld.tokenizer import build_tokenizer
from visiontokens.evaluate.score import SCORERS
from visiontokens.provenance import sha256_file

SIZES = FurtherConfig(seed_questions=90, seed_images=30, mmmu_questions=65, mmvet_questions=40)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("further") / "world"
    (root / "benchmarks" / "gqa").mkdir(parents=True)
    (root / "images.tsv").write_text("set\tpath\ntest\tbenchmarks/gqa/images/1.jpg\n")
    build_further(root, SIZES, tuple(WRITERS))
    return root


@cache
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize("name", WRITERS)
def test_loaders_read_what_writers_write(world, name):
    examples = BENCHMARKS[name].read(world / "benchmarks")
    counts = json.loads((world / RECORD_FILE).read_text())["counts"]["benchmarks"][name]
    assert len(examples) == counts["questions"] == {"seed": 90, "mmmu": 65, "mmvet": 40}[name]
    listed = {world / path for path in image_paths(world, FURTHER_SET)}
    for example in examples:
        path = BENCHMARKS[name].image_path(world / "benchmarks", example)
        assert path in listed
        with Image.open(path) as image:
            assert image.size == (96, 96)


@pytest.mark.parametrize("name", WRITERS)
def test_prompts_use_known_words_but_for_mmmus_markers(world, name):
    words = tokenizer()
    for example in BENCHMARKS[name].read(world / "benchmarks"):
        plain = example.prompt.replace("<image 1>", "").replace("<image 2>", "")
        assert words.unk_token_id not in words(plain)["input_ids"], example.prompt


def test_right_answers_score_full_marks_and_a_fixed_letter_a_fraction(world):
    for name in ("seed", "mmmu"):  # MM-Vet's answers are judged
        examples = BENCHMARKS[name].read(world / "benchmarks")
        gold = {e.question_id: e.meta["answer"] if name == "seed" else e.meta["answers"][-1] for e in examples}
        assert SCORERS[name].score(examples, gold).value == 100
        assert 5 < SCORERS[name].score(examples, dict.fromkeys(gold, "B")).value < 55


def test_seed_has_nine_types_of_about_the_same_size(world):
    examples = BENCHMARKS["seed"].read(world / "benchmarks")
    sizes = Counter(example.meta["type"] for example in examples)
    assert set(sizes) == {TYPES[kind] for kind in range(1, 10)}
    assert min(sizes.values()) >= 5 and max(sizes.values()) <= 12
    content = json.loads((world / "benchmarks/seed/SEED-Bench.json").read_text())
    assert content["question_type"]["Text Understanding"] == 9
    assert all("." not in record["data_id"] for record in content["questions"])


def test_own_questions_of_seed_have_one_right_option():
    """Recomputed from the scene: of the options exactly the gold one fits."""
    source = Source(5, "seed-truth", "test")
    asked = Counter()
    for scene in source.scenes(200, objects=(3, 5)):
        things = {with_article(noun(Thing(color=o.color, shape=o.shape))): o for o in scene.objects}
        for kind in seed.OWN:
            question = seed.ask_type(scene, kind, source.rng)
            if question is None:
                continue
            asked[kind] += 1
            gold, text = question.meta["answer_text"], question.meta["question"]
            if kind == 1:
                fits = [option for option in question.choices if option in things]
            elif kind == 6:
                side = next(side for side in seed.SIDES if f"What is {side} the" in text)
                axis, sign = seed.SIDES[side]
                named = text.removeprefix(f"What is {side} the ").rstrip("?")
                middle = next(o for o in scene.objects if _fits(named, o))
                fits = [
                    option
                    for option in question.choices
                    if option in things
                    and any(
                        sign * (getattr(o, axis) - getattr(middle, axis)) > 0
                        for o in scene.objects
                        if option == with_article(noun(Thing(color=o.color, shape=o.shape)))
                    )
                ]
            else:
                shape = text.removeprefix("What is the same color as the ").rstrip("?")
                color = next(o.color for o in scene.objects if o.shape == shape)
                fits = [
                    option for option in question.choices
                    if any(with_article(o.shape) == option and o.color == color for o in scene.objects)
                ]  # fmt: skip
            assert fits == [gold], (text, question.choices)
    assert all(asked[kind] > 10 for kind in seed.OWN)


def _fits(named, obj):
    return set(named.split()) - {"object"} <= {obj.color, obj.shape, obj.size, obj.texture}


def test_mmmu_has_all_domains_both_kinds_and_two_images(world):
    examples = BENCHMARKS["mmmu"].read(world / "benchmarks")
    assert {DOMAIN_OF[e.meta["subject"]] for e in examples} == set(DOMAIN_OF.values())
    assert {e.meta["subject"] for e in examples} == set(mmmu.MINI_SUBJECTS)
    kinds = Counter(e.meta["question_type"] for e in examples)
    assert 0 < kinds["open"] < kinds["multiple-choice"]
    assert {e.meta["subject"] for e in examples if e.meta["n_images"] == 2} == {mmmu.TWO_IMAGES}
    record = json.loads((world / "benchmarks/mmmu/Art/validation.jsonl").read_text().splitlines()[0])
    assert {"id", "question", "options", "explanation", "img_type", "answer", "topic_difficulty", "question_type",
            "subfield", *(f"image_{n}" for n in range(1, 8))} == set(record)  # fmt: skip


def test_the_world_beside_does_not_change(world, tmp_path):
    assert (world / "images.tsv").read_text().count("\n") == 2 and (world / "benchmarks" / "gqa").is_dir()
    assert FURTHER_SET not in IMAGE_SETS and not set(WRITERS) & set(MAIN_BENCHMARKS)
    build_further(tmp_path / "again", SIZES, tuple(WRITERS))
    for name in (RECORD_FILE, TABLE_FILE):
        assert sha256_file(tmp_path / "again" / name) == sha256_file(world / name)
    build_further(tmp_path / "again", SIZES, ("seed",))
    one, both = (json.loads((root / RECORD_FILE).read_text()) for root in (tmp_path / "again", world))
    assert one["sha256"].items() <= both["sha256"].items()
    assert not any("mmmu" in path for path in image_paths(tmp_path / "again", FURTHER_SET))


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"found \['gqa'\], expected some of seed, mmmu"):
        build_further(tmp_path / "w", SIZES, ("gqa",))

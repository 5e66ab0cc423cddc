"""Answers on disk against an oracle that reads the question's text and looks at the scene."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter

import pytest
from smoke_world import SMOKE, smoke_world

from visiontokens.data.benchmarks import BENCHMARKS
from visiontokens.data.miniworld.benchmarks import pope
from visiontokens.data.miniworld.benchmarks.mme import COGNITION, PERCEPTION
from visiontokens.data.miniworld.chinese import WORDS
from visiontokens.data.miniworld.files import Source
from visiontokens.data.miniworld.instruct import BLURRED
from visiontokens.data.miniworld.scenes import COLORS, SHAPES, SIZES, TEXTURES

WORD_OF = {w: k for k, words in zip("cszt", (COLORS, SHAPES, SIZES, TEXTURES), strict=True) for w in words}


def fitting(scene, phrase):
    """Return the scene's objects that fit a noun phrase such as "large red circles"."""
    words = [w for w in phrase.split() if w not in {"a", "an", "the", "object", "objects"}]
    found = scene.objects
    for word in words:
        single = word if word in WORD_OF else re.sub("(es|s)$", "", word)
        single = single if single in WORD_OF else word.removesuffix("s")
        found = [o for o in found if single in (o.color, o.shape, o.size, o.texture)]
    return found


def one(scene, phrase):
    """Return the only object that fits the phrase."""
    (found,) = fitting(scene, phrase)
    return found


def verdict(truth):
    return "yes" if truth else "no"


def attribute(scene, name, phrase):
    found = fitting(scene, phrase)
    return getattr(found[0], name) if len(found) == 1 else "unanswerable"


def place(scene, axis, phrase):
    found = one(scene, phrase)
    return str((found.row if axis == "row" else found.col) + 1)


def side(scene, first, words, second):
    """Return "left" or "right", "above" or "below", for the first thing as seen from the second."""
    a, b = one(scene, first), one(scene, second)
    if "left" in words or "right" in words:
        return "left" if a.x < b.x else "right"
    return "above" if a.y < b.y else "below"


THING = r"([\w ]+)"
RULES = {
    rf"Is there a total of (\d+) {THING} in the image\?": lambda s, n, t: verdict(len(fitting(s, t)) == int(n)),
    rf"Is there the same number of {THING} and {THING} in the image\?": lambda s, a, b: verdict(
        len(fitting(s, a)) == len(fitting(s, b))
    ),
    r"Is there a sign in the image\?": lambda s: verdict(s.number is not None),
    rf"Is there {THING} or {THING} in the image\?": lambda s, a, b: verdict(fitting(s, a) or fitting(s, b)),
    r"Is there (an? [\w ]+) in the image\?": lambda s, t: verdict(fitting(s, t)),
    rf"Are there both {THING} and {THING} in the image\?": lambda s, a, b: verdict(fitting(s, a) and fitting(s, b)),
    rf"What (color|shape|size) is the {THING}\?": attribute,
    rf"How many {THING} are there in the image\?": lambda s, t: str(len(fitting(s, t))),
    rf"Which (row|column) is the {THING} in\?": place,
    rf"Is the {THING} (to the left or to the right of|above or below) the {THING}\?": side,
    rf"Is the {THING} (to the left of|to the right of|above|below) the {THING}\?": lambda s, a, w, b: verdict(
        side(s, a, w, b) in w
    ),
    r"What (?:number is written|is the number) on the sign\?": lambda s: s.number if s.legible else "unanswerable",
    r"Is the sum of the digits of the number on the sign (\d+)\?": lambda s, n: verdict(
        sum(map(int, s.number)) == int(n)
    ),
    r"Is the number on the sign (\d+)\?": lambda s, n: verdict(s.number == n),
}
"""Question pattern -> its answer from the scene and the pattern's groups; the first pattern that fits counts."""


def oracle(scene, text):
    """Return the true answer, or None for questions it does not understand."""
    for pattern, answer in RULES.items():
        if match := re.fullmatch(pattern, text):
            return answer(scene, *match.groups())
    return None


def check(pairs, share):
    """Compare (scene, question, answer) with the oracle, which must understand at least `share` of the questions."""
    pairs = list(pairs)
    known = [(oracle(scene, text), answer, text) for scene, text, answer in pairs]
    understood = [item for item in known if item[0] is not None]
    assert len(understood) >= share * len(pairs)
    for expected, answer, text in understood:
        assert answer == expected, text


def gold(example):
    if "answers" in example.meta:
        return Counter(example.meta["answers"]).most_common(1)[0][0]
    answer = example.meta.get("label") or example.meta["answer"]
    options = dict(re.findall(r"^([A-D])\. (.+)$", example.prompt, re.MULTILINE))
    return options.get(answer, answer)


def question(example):
    return next(line for line in example.prompt.split("\n") if line.endswith("?"))


def scenes_of(name):
    """Return image name -> scene, drawn again from the benchmark's own stream."""
    if name == "vqav2":
        scenes = Source(SMOKE.seed, name, "test").scenes(SMOKE.vqav2_images)
        return {f"val2014/COCO_val2014_{i:012d}.jpg": s for i, s in enumerate(scenes, 1)}
    if name == "gqa":
        scenes = Source(SMOKE.seed, name, "test").scenes(SMOKE.gqa_images, objects=(2, 5))
        return {f"n{i:06d}.jpg": s for i, s in enumerate(scenes, 1)}
    if name == "vizwiz":
        scenes = Source(SMOKE.seed, name, "test").scenes(SMOKE.vizwiz_questions, blur=0.4, plate=0.7)
        return {f"val/VizWiz_val_{i:08d}.jpg": s for i, s in enumerate(scenes)}
    if name == "pope":
        scenes = pope.scenes_with(Source(SMOKE.seed, name, "test"), SMOKE.pope_questions // 6)
        return {f"val2014/COCO_val2014_{i:012d}.jpg": s for i, s in enumerate(scenes, 1)}
    scenes = Source(SMOKE.seed, "mmbench", "test").scenes(SMOKE.mmbench_questions)
    return {f"{i}.jpg": s for i, s in enumerate(scenes)}


@pytest.mark.parametrize(
    ("name", "share"), [("vqav2", 0.55), ("gqa", 0.5), ("vizwiz", 0.5), ("pope", 1.0), ("mmbench", 0.6)]
)
def test_answers_are_true(name, share):
    scenes = scenes_of(name)
    examples = BENCHMARKS[name].read(smoke_world() / "benchmarks")
    check([(scenes[e.image], question(e), gold(e)) for e in examples], share)


def test_textvqa_answers_are_on_the_sign():
    source = Source(SMOKE.seed, "textvqa", "test")
    scenes = list(source.scenes(round(SMOKE.textvqa_questions / 1.6), plate=1.0))
    examples = BENCHMARKS["textvqa"].read(smoke_world() / "benchmarks")
    images = list(dict.fromkeys(e.image for e in examples))
    check([(scenes[images.index(e.image)], question(e), gold(e)) for e in examples], 0.5)


def test_validation_answers_are_true_and_tagged():
    root = smoke_world() / "validation"
    records = json.loads((root / "instruct.json").read_text())
    families = json.loads((root / "families.json").read_text())
    scenes = Source(SMOKE.seed, "validation", "validation").scenes(SMOKE.validation_images, blur=BLURRED)
    rows = []
    for record, scene in zip(records, scenes, strict=True):
        messages = [m["value"] for m in record["conversations"]]
        assert len(families[record["id"]]) == len(messages) // 2 == SMOKE.validation_questions
        for family, asked, answer in zip(families[record["id"]], messages[::2], messages[1::2], strict=True):
            if family in {"choice", "choice_cn"}:
                assert answer in {"A", "B", "C", "D"}
            else:
                rows.append((scene, asked.removeprefix("<image>\n").split("\n")[0], answer))
    check(rows, 0.3)


def test_pope_negatives_are_of_their_kind():
    source = Source(0, "pope", "test")
    scenes = pope.scenes_with(source, 40)
    rng = source.rng
    counts = Counter(kind for scene in scenes for kind in pope.kinds_in(scene))
    means = {}
    for category in ("random", "popular", "adversarial"):
        hard = popular = 0.0
        for scene in scenes:
            present = pope.kinds_in(scene)
            for color, shape in pope.absent_kinds(scene, category, counts, rng):
                assert (color, shape) not in present
                hard += (color in {c for c, _ in present}) + (shape in {s for _, s in present})
                popular += counts[color, shape]
        means[category] = hard, popular
    assert means["adversarial"][0] > 1.5 * means["random"][0]
    assert means["popular"][1] > 1.2 * means["random"][1]
    with pytest.raises(ValueError, match="'rare'"):
        pope.absent_kinds(scenes[0], "rare", counts, rng)


def test_mme_pairs_differ_and_text_subtasks_hold_their_answer():
    examples = BENCHMARKS["mme"].read(smoke_world() / "benchmarks")
    assert {e.meta["category"] for e in examples} == set(PERCEPTION + COGNITION)
    for example in examples:
        text = question(example)
        if m := re.fullmatch(r"Is the output of print\((\d+) \+ (\d+)\) equal to (\d+)\?", text):
            assert example.meta["label"] == ("yes" if int(m[1]) + int(m[2]) == int(m[3]) else "no")
        if m := re.fullmatch(r"Is it right to translate (\w+) as (\w+)\?", text):
            assert example.meta["label"] == ("yes" if m[1] == WORDS[m[2]] else "no")


def test_chinese_options_translate_the_english_ones():
    tables = []
    for name in ("mmbench", "mmbench_cn"):
        (path,) = (smoke_world() / "benchmarks" / name).glob("*.tsv")
        with path.open(newline="") as handle:
            tables.append(list(csv.DictReader(handle, delimiter="\t")))
    for english, chinese in zip(*tables, strict=True):
        for letter in "ABCD":
            assert chinese[letter] == WORDS.get(english[letter], english[letter])

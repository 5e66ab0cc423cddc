"""What the model reads for the first questions of every benchmark, against a committed file: no edit changes it unseen.

Rewrite the file on purpose, then look at the difference before you commit it:

    python tests/unit/test_prompt_snapshots.py
"""

import difflib
import json
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from prediction_home import configuration, make_prediction_home
from tiny_home import weights

from visiontokens.config import load_config
from visiontokens.data.benchmarks import BENCHMARKS, find_benchmark
from visiontokens.evaluate.greedy import Greedy
from visiontokens.evaluate.predictor import Predictor
from visiontokens.models.build import load_model
from visiontokens.provenance import write_json

ROOT = Path(__file__).parents[2]
SNAPSHOT = Path(__file__).with_name("snapshots") / "prompts.json"
EACH = 2
"""Questions of a benchmark; of those with and without an image so many each."""
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
SCALES = ("smoke", "mini", "reviewer", "paper")
SUFFIXES = {
    "vqav2": "Answer the question using a single word or phrase.",
    "gqa": "Answer the question using a single word or phrase.",
    "vizwiz": "When the provided information is insufficient, respond with 'Unanswerable'.\n"
    "Answer the question using a single word or phrase.",
    "scienceqa": "Answer with the option's letter from the given choices directly.",
    "textvqa": "Answer the question using a single word or phrase.",
    "pope": "Answer the question using a single word or phrase.",
    "mme": "Answer the question using a single word or phrase.",
    "mmbench": "Answer with the option's letter from the given choices directly.",
    "mmbench_cn": "请直接回答选项字母。",
}
"""LLaVA-1.5's, as its question files have them."""


def chosen(examples):
    """Return the first questions with an image and the first without."""
    with_image = [example for example in examples if example.image is not None]
    without = [example for example in examples if example.image is None]
    return with_image[:EACH] + without[:EACH]


def model_input(predictor, benchmark, example):
    """Return the text that is tokenised for one question, the ids that enter the model, the number of images."""
    texts, ids, images = [], [], []
    model, encoder = predictor.model, predictor.encoder
    prefill, extend, encode = model.prefill, model.extend, encoder.encode

    def noted_prefill(rows, mask=None, *, vision_levels=None):
        ids.extend(rows.tolist())
        images.extend([] if vision_levels is None else [len(next(iter(vision_levels.values())))])
        return prefill(rows, mask, vision_levels=vision_levels)

    def noted_extend(state, rows, *args, **options):
        ids.extend(rows.tolist())
        return extend(state, rows, *args, **options)

    with mock.patch.object(encoder, "encode", lambda text: texts.append(text) or encode(text)):
        (batch,) = predictor.batches([example])
    with (
        mock.patch.object(model, "prefill", noted_prefill),
        mock.patch.object(model, "extend", noted_extend),
        mock.patch.object(Greedy, "_decode", lambda self, state, longest: [[]]),
    ):
        predictor.respond(batch, lambda e: predictor.feature_path(benchmark, e))
    return "<image>".join(texts), [i for row in ids for i in row], sum(images)


def question(predictor, benchmark, example):
    """Return what the snapshot says about one question."""
    text, ids, images = model_input(predictor, benchmark, example)
    placeholder = predictor.model.config.image_token_id
    return {
        "question_id": example.question_id,
        "image": example.image,
        "images": images,
        "text": text.split("\n"),
        "ids": " ".join("<image>" if i == placeholder else str(i) for i in ids),
    }


def snapshot(root):
    """Return the file's contents as they are today."""
    make_prediction_home(root)
    config = configuration(root, batch_size=1)
    predictor = Predictor.of(config, load_model(weights(root)))
    found = {}
    for name in BENCHMARKS:
        benchmark = find_benchmark(name)
        if not (predictor.benchmarks_dir / benchmark.folder).is_dir():
            continue  # videos: a world of their own
        examples = benchmark.read(predictor.benchmarks_dir)
        asked = [question(predictor, benchmark, example) for example in chosen(examples)]
        found[name] = {"official_max_new_tokens": benchmark.max_new_tokens, "questions": asked}
    decoding = {
        scale: load_config([ROOT / f"config/scales/{scale}.yaml"]).evaluate.model_dump(
            mode="json", include={"batch_size", "max_new_tokens", "precision"}
        )
        for scale in SCALES
    }
    stop = {"id": predictor.encoder.eos_id, "token": predictor.encoder.eos}
    placeholder = predictor.tokenizer.convert_ids_to_tokens(predictor.model.config.image_token_id)
    return {"benchmarks": found, "decoding": decoding, "stop": stop, "image_placeholder": placeholder}


@pytest.fixture(scope="module")
def today(tmp_path_factory):
    return snapshot(tmp_path_factory.mktemp("home"))


def lines(content):
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).splitlines()


def test_inputs_are_those_of_the_snapshot(today):
    kept = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    diff = "\n".join(difflib.unified_diff(lines(kept), lines(today), "snapshot", "today", n=4, lineterm=""))
    assert not diff, (
        f"the model's input has changed:\n{diff}\n"
        f"If that is meant: python {Path(__file__).relative_to(ROOT)}, and say why in the commit."
    )


def test_every_input_is_the_official_prompt(today):
    """`vicuna_v1`, one image in front of its question, LLaVA's suffix, no space behind the last colon."""
    assert set(SUFFIXES) <= set(today["benchmarks"])
    for name, suffix in SUFFIXES.items():
        for asked in today["benchmarks"][name]["questions"]:
            text = "\n".join(asked["text"])
            image = "<image>\n" if asked["image"] else ""
            assert text.startswith(f"{SYSTEM} USER: {image}"), name
            assert text.endswith(f"\n{suffix} ASSISTANT:"), name
            assert asked["images"] == text.count("<image>") == asked["ids"].split().count("<image>") == bool(image)


def test_the_difference_is_readable(today):
    """One word more in one prompt is one line of text and one of ids in the difference."""
    changed = json.loads(json.dumps(today))
    changed["benchmarks"]["gqa"]["questions"][0]["text"][1] += " please"
    found = [line for line in difflib.unified_diff(lines(today), lines(changed), n=0) if line[:2] in {"+ ", "- "}]
    assert len(found) == 2
    assert found[1].rstrip('",').endswith("please")


def main():
    """Rewrite the snapshot."""
    with tempfile.TemporaryDirectory() as folder:
        write_json(SNAPSHOT, snapshot(Path(folder)))
    print(f"{SNAPSHOT.relative_to(ROOT)} written: look at `git diff` before you commit it", file=sys.stderr)


if __name__ == "__main__":
    main()

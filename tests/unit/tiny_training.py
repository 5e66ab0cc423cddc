"""A whole training setup of a few kilobytes: backbones, tokenizer, images, records, features and configuration.

Run as a script it trains one stage: `python tiny_training.py ROOT RUN OUT SEED`, for tests that kill it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPVisionModel, LlamaForCausalLM, PreTrainedTokenizerFast

from visiontokens.config import parse_config
from visiontokens.data.features import compute_features
from visiontokens.data.images import Preprocessor
from visiontokens.models.tiny import SMOKE_LLM, SMOKE_TOWER, llm_config, tower_config
from visiontokens.provenance import sha256_file

SIZE = 16
HALF = [0.5, 0.5, 0.5]
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
WORDS = [
    "<unk>", "<s>", "</s>", "<pad>", "<image>", "\n", "USER", "ASSISTANT", ":", ".", ",", "'", "?", "color", "the",
    "image", "What", "is", "it", "Is", "yes", "no", "A", "a", "Answer", "word", "Describe", "concisely", *COLORS,
]  # fmt: skip
EXPERIMENTS = """id\tlabel\tpaper\ttables\tmethod\ttrain_method\tschedule\tweights_from\tset\tseeds\texpected\ttolerance
none\tAll\tllava\t\tnone\tnone\t\t\tmain\t3\t\t
staged\tStaged\tvolta\t\tnone\tnone\ttwo\t\tmain\t3\t\t
borrowed\tBorrowed\tllava\t\tnone\t\t\tnone\tmain\t3\t\t
"""


def tokenizer():
    """Words and punctuation, `<s>` in front."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Punctuation()]
    )
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip


def records(count):
    """Two questions an image, every sixth record text-only."""
    short = "Answer a word"
    out = []
    for i in range(count):
        color = list(COLORS)[i % 3]
        turns = [(f"What color is the image?\n{short}", color), ("Is it red?", "yes" if color == "red" else "no")]
        head = {"id": f"r{i}"}
        if i % 6 == 5:
            turns = [(f"Is it a word?\n{short}", "yes")]
        else:
            head["image"] = f"{i}.png"
            turns[0] = (f"<image>\n{turns[0][0]}", turns[0][1])
        talk = [{"from": f, "value": v} for pair in turns for f, v in zip(("human", "gpt"), pair, strict=True)]
        out.append({**head, "conversations": talk})
    return out


def captions(rows):
    """The same images with one caption each."""
    ask = {"from": "human", "value": "<image>\nDescribe the image concisely."}
    return [
        {
            "id": row["id"],
            "image": row["image"],
            "conversations": [ask, {"from": "gpt", "value": "the image is a image"}],
        }
        for row in rows
        if "image" in row
    ]


def make_world(root, count=24):
    """Write everything below `root`."""
    torch.manual_seed(0)
    CLIPVisionModel(tower_config(SMOKE_TOWER)).save_pretrained(root / "tower")
    settings = {"crop_size": {"height": SIZE, "width": SIZE}, "image_mean": HALF, "image_std": HALF}
    (root / "tower/preprocessor_config.json").write_text(json.dumps(settings))
    LlamaForCausalLM(llm_config(len(WORDS), SMOKE_LLM, pad=3)).save_pretrained(root / "llm")
    tokenizer().save_pretrained(root / "llm")
    rows = records(count)
    rng = np.random.default_rng(0)
    table = ["set\tpath"]
    (root / "data/images").mkdir(parents=True)
    for i, row in enumerate(rows):
        if "image" in row:
            base = np.array(COLORS[list(COLORS)[i % 3]])
            pixels = np.clip(base + rng.integers(-40, 40, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "data/images" / row["image"])
            table.append(f"train\timages/{row['image']}")
    (root / "data/images.tsv").write_text("\n".join(table) + "\n")
    (root / "data/tune.json").write_text(json.dumps(rows))
    (root / "data/align.json").write_text(json.dumps(captions(rows)))
    (root / "config/methods").mkdir(parents=True)
    (root / "config/schedules").mkdir()
    (root / "config/methods/none.yaml").write_text("name: none\n")
    (root / "config/schedules/two.yaml").write_text(
        "stages:\n  - {layer: 8/32, stride: 4, until: 0.5}\n  - {stride: 1, until: 1.0}\n"
    )
    (root / "config/experiments.tsv").write_text(EXPERIMENTS)


def make_features(root, **options):
    """Compute the world's features."""
    tower = CLIPVisionModel.from_pretrained(root / "tower")
    sha = sha256_file(root / "tower/model.safetensors")
    settings = {"levels": [2], "out": root / "data/features/train", "tower_sha": sha, "precision": "fp32"}
    return compute_features(tower, Preprocessor(SIZE, HALF, HALF), root / "data", "train", **{**settings, **options})


def config_of(root, **tune):
    """Return the configuration of the world; keywords change the tune stage."""
    common = {"images": "images", "image_set": "train", "batch_size": 8, "micro_batch_size": 4, "precision": "fp32"}
    return parse_config(
        {
            "scale": "tiny",
            "data": str(root / "data"),
            "backbones": {"tower": str(root / "tower"), "llm": str(root / "llm")},
            "experiments": {"table": str(root / "config/experiments.tsv")},
            "train": {
                "align": {**common, "annotations": "align.json", "save_every": 0},
                "tune": {**common, "annotations": "tune.json", "epochs": 4, "save_every": 3, **tune},
            },
        },
        "tiny",
    )


if __name__ == "__main__":
    from visiontokens.train.trainer import train_stage

    where, run, out, seed = sys.argv[1:]
    train_stage(config_of(Path(where)), "staged", int(seed), "tune", run_dir=run, out=out)

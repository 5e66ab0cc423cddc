"""Videos through the same contract: frames compressed like images, batches of both, cost, training, answers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_llava import IMAGE, LAYERS, PATCHES, pad, pixels, prompt, spec, tiny_model
from tiny_training import COLORS, HALF, SIZE, config_of, make_features, make_world

from visiontokens.compress.base import Compressor, methods
from visiontokens.config import parse_config
from visiontokens.data.features import FeatureError, FeatureStore, FeatureUnion, compute_features
from visiontokens.data.images import Preprocessor
from visiontokens.data.instruct import FeatureSource, PixelSource, Sample
from visiontokens.data.videos import frame_keys, write_video
from visiontokens.evaluate.greedy import Greedy, Prompt
from visiontokens.measure.record import cost_record
from visiontokens.train.records import read_log
from visiontokens.train.trainer import train_stage

PER_FRAME = [name for name, cls in methods().items() if cls.compress is Compressor.compress]
ADJACENT = ["none", "avgpool", "stf", "mbtf", "stf_mbtf", "vcc", "progressive", "qformer", "random"]
CLOSE = {"atol": 3e-5, "rtol": 2e-4}
T = 3


@pytest.mark.parametrize("name", PER_FRAME)
def test_a_frame_is_compressed_as_an_image_is(name):
    model = tiny_model(spec(name))
    frames = pixels(2 * T)
    with torch.no_grad():
        images, _ = model.encode_images(frames)
        videos, patches = model.encode_images(frames.unflatten(0, (2, T)))
        mixed, _ = model.encode_images(frames, vision_frames=[1, T, 2])
    assert patches == [T * PATCHES] * 2
    for video, part in ((videos[0], images[:T]), (videos[1], images[T:]), (mixed[1], images[1 : 1 + T])):
        torch.testing.assert_close(video, torch.cat(part))
    torch.testing.assert_close(mixed[0], images[0])


@pytest.mark.parametrize("name", ADJACENT)
def test_a_video_is_its_frames_as_adjacent_images(name):
    """Video-LLaVA writes one image token per frame; we write one for the run. Pooling never crosses frames."""
    model = tiny_model(spec(name))
    row, frames = prompt(9, at=3), pixels(T)
    at = int((row == IMAGE).nonzero()[0, 0])
    many = torch.cat([row[:at], torch.full((T,), IMAGE), row[at + 1 :]])
    with torch.no_grad():
        one = model(input_ids=row[None], pixel_values=frames[None]).logits
        adjacent = model(input_ids=many[None], pixel_values=frames).logits
    torch.testing.assert_close(one[:, -5:], adjacent[:, -5:], **CLOSE)


def test_images_and_videos_share_a_batch():
    model = tiny_model(spec("vcc", layer="8/32", stride=4))
    rows, frames = [prompt(9, at=3, seed=1), prompt(6, at=2, seed=2), prompt(7, at=1, seed=3)], pixels(2 + T)
    counts = [1, T, 1]
    ids, mask = pad(rows)
    with torch.no_grad():
        batch = model(input_ids=ids, attention_mask=mask, pixel_values=frames, vision_frames=counts).logits
        for i, row in enumerate(rows):
            own = frames[sum(counts[:i]) : sum(counts[: i + 1])]
            one = model(input_ids=row[None], pixel_values=own[None]).logits[0]
            torch.testing.assert_close(batch[i, : len(one)], one, **CLOSE)
    with pytest.raises(ValueError, match=r"vision_frames: found \[1, 3\], expected a sum of 5"):
        model.encode_images(frames, vision_frames=[1, T])


@pytest.mark.parametrize("name", ADJACENT)
def test_declared_tokens_of_a_video_are_the_cached_ones(name):
    model = tiny_model(spec(name))
    state = model.prefill(prompt(9)[None], pixel_values=pixels(T)[None])
    declared = model.compressor.video_tokens_per_layer(T, PATCHES, LAYERS)
    assert [n - 8 for n in state.cache.lengths()] == declared
    record = cost_record(model, text_tokens=8, frames=T)
    assert record["vision_tokens"] == T * PATCHES and record["tokens_per_layer"] == declared
    assert record["extra_flops"] == T * cost_record(model, text_tokens=8)["extra_flops"]


@pytest.mark.parametrize(("name", "text"), [("voco", 7), ("proxyv", 8), ("mod", 8)])
def test_cached_rows_of_a_video_are_those_of_its_frames(name, text):
    """What an image declares is for one frame; VoCo also forgets the token before the image."""
    model = tiny_model(spec(name))
    with torch.no_grad():
        state = model.prefill(prompt(9, at=1)[None], pixel_values=pixels(T)[None])
    record = cost_record(model, text_tokens=8, frames=T)
    assert [n - text for n in state.cache.lengths()] == record["kv_tokens_per_layer"]
    assert record["kv_tokens_per_layer"] == [T * n for n in cost_record(model, text_tokens=8)["kv_tokens_per_layer"]]


def test_questions_on_videos_share_a_prefill():
    model = tiny_model(spec("avgpool"))
    levels = {3: torch.randn(2, T, PATCHES, 16)}
    head = (1, 5, IMAGE)
    questions = [[Prompt(head, (7, 8, 9)), Prompt(head, (11,))], [Prompt(head, (12, 13))]]

    class Encoder:
        eos_id, pad_id = 2, 0

    shared, alone = (Greedy(model, Encoder(), 4, share=share).answer(levels, questions) for share in (True, False))
    assert shared == alone
    single = Greedy(model, Encoder(), 4).answer({3: levels[3][1:]}, questions[1:])
    assert single == shared[1:]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The tiny world with clips that turn from one colour to another."""
    root = tmp_path_factory.mktemp("clips")
    make_world(root)
    (root / "data/clips").mkdir()
    rows, table, names = json.loads((root / "data/tune.json").read_text())[:8], ["set\tpath"], list(COLORS)
    for i in range(6):
        first, last = COLORS[names[i % 3]], COLORS[names[(i + 1) % 3]]
        frames = np.linspace(first, last, 5)[:, None, None, :] * np.ones((1, SIZE, SIZE, 1))
        write_video(root / f"data/clips/{i}.avi", frames.astype(np.uint8))
        table.append(f"video\tclips/{i}.avi")
        talk = [{"from": "human", "value": "<video>\nWhat color is it?\nAnswer a word"}]
        talk.append({"from": "gpt", "value": names[(i + 1) % 3]})
        rows.append({"id": f"c{i}", "video": f"{i}.avi", "conversations": talk})
    (root / "data/videos.tsv").write_text("\n".join(table) + "\n")
    (root / "data/mix.json").write_text(json.dumps(rows))
    return root


def video_config(root, **tune):
    plain = config_of(root, annotations="mix.json", epochs=2, **tune).model_dump(mode="json")
    return parse_config({**plain, "video": {"frames": T, "videos": "clips"}}, "tiny")


def test_features_have_a_row_for_each_frame(root):
    from transformers import CLIPVisionModel

    make_features(root)
    tower = CLIPVisionModel.from_pretrained(root / "tower").eval()
    compute_features(
        tower, Preprocessor(SIZE, HALF, HALF), root / "data", "video", [2], out=root / "data/features/video",
        tower_sha=FeatureStore.open(root / "data/features/train", [2]).tower, precision="fp32", frames=T,
    )  # fmt: skip
    clips = FeatureStore.open(root / "data/features/video", [2])
    assert len(clips) == 6 * T
    keys = list(frame_keys("clips/4.avi", T))
    pixel = torch.from_numpy(Preprocessor(SIZE, HALF, HALF)([root / "data" / key for key in keys]))
    with torch.no_grad():
        want = tower(pixel, output_hidden_states=True).hidden_states[2][:, 1:]
    torch.testing.assert_close(clips.get(keys)[2].float(), want, atol=2e-3, rtol=2e-3)
    both = FeatureUnion([FeatureStore.open(root / "data/features/train", [2]), clips])
    mixed = both.get([keys[1], "images/0.png", keys[0]])[2]
    assert torch.equal(mixed[0], clips.get(keys)[2][1]) and torch.equal(mixed[2], clips.get(keys)[2][0])
    with pytest.raises(FeatureError, match=r"'clips/4\.avi#0of4'"):
        both.get(list(frame_keys("clips/4.avi", 4)))


def test_a_mix_trains_alike_from_features_and_from_files(root, tmp_path):
    """A training step on clips beside images; what is read from files is what the cache holds."""
    test_features_have_a_row_for_each_frame(root)

    def losses(name):
        run = tmp_path / f"run-{name}"
        out = train_stage(video_config(root), "none", 0, "tune", run_dir=run, out=tmp_path / name)
        return [row["loss"] for row in read_log(out.parent / "log.jsonl")]

    cached = losses("cached")
    shutil.move(root / "data/features", tmp_path / "features")
    try:
        files = losses("files")
    finally:
        shutil.move(tmp_path / "features", root / "data/features")
    assert json.loads((tmp_path / "run-cached/run.json").read_text())["frames"] == T, "another number starts anew"
    assert len(cached) == 4 and cached[-1] < cached[0]
    np.testing.assert_allclose(files, cached, rtol=5e-3)


def test_a_missing_clip_is_named_before_training(root, tmp_path):
    source = PixelSource(root / "data/images", Preprocessor(SIZE, HALF, HALF), root / "data/clips")
    source.check(["0.png", *frame_keys("5.avi", T)], "mix.json")
    with pytest.raises(FileNotFoundError, match=r"mix\.json: video 'x\.avi': expected .*clips/x\.avi, found no such"):
        source.check(frame_keys("x.avi", T), "mix.json")
    store = FeatureStore.open(root / "data/features/train", [2])
    with pytest.raises(FileNotFoundError, match=r"expected features of 'clips/5\.avi#0of3'"):
        FeatureSource(store, "images", "clips").check(frame_keys("5.avi", T), "mix.json")


def test_a_samples_pictures_are_its_image_or_its_frames():
    assert Sample(None, "a.png").pictures == ("a.png",)
    assert Sample(None, None, frame_keys("a.avi", 2)).pictures == ("a.avi#0of2", "a.avi#1of2")
    assert Sample(None, None).pictures == ()

"""Clips of the mini world: deterministic, disjoint, true to their questions, in formats that the loaders read."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from clip_world import CLIPS, MIX, clip_world
from smoke_world import SMOKE, smoke_world

from visiontokens.data.benchmarks import BenchmarkError, find_benchmark
from visiontokens.data.miniworld.build import build_world
from visiontokens.data.miniworld.clip_questions import ALL, ASKERS, TYPES, ask_clip
from visiontokens.data.miniworld.clips import DIRECTIONS, MOVE, STEPS, Clips, sample_clips
from visiontokens.data.miniworld.files import Source
from visiontokens.data.miniworld.scenes import HALF_BOX, IMAGE_SIZE, SPLITS, digit_instances
from visiontokens.data.miniworld.tokenizer import vocabulary
from visiontokens.data.miniworld.video import build_clips
from visiontokens.data.records import RecordError, load_records
from visiontokens.data.videos import load_frames


def digest(root: Path) -> dict[str, str]:
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def some(name: str = "test clips", split: str = "train", n: int = 60) -> tuple[Clips, Source]:
    source = Source(1, name, split)
    return sample_clips(source, n, 12), source


def test_same_settings_same_bytes_and_images_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "images.tsv").write_text("kept")
    (tmp_path / "benchmarks/gqa").mkdir(parents=True)
    (tmp_path / "benchmarks/gqa/x.json").write_text("kept")
    build_clips(tmp_path, CLIPS, smoke_world() / MIX)
    found = digest(tmp_path)
    kept = hashlib.sha256(b"kept").hexdigest()
    assert found.pop("images.tsv") == found.pop("benchmarks/gqa/x.json") == kept
    assert found == digest(clip_world())


def test_a_new_world_leaves_the_clips_alone(tmp_path: Path) -> None:
    build_clips(tmp_path, CLIPS, smoke_world() / MIX)
    before = digest(tmp_path)
    build_world(tmp_path, SMOKE)
    after = digest(tmp_path)
    assert {path: after.get(path) for path in before} == before
    assert {path: value for path, value in after.items() if path not in before} == digest(smoke_world())


def test_another_seed_is_another_set(tmp_path: Path) -> None:
    build_clips(tmp_path, CLIPS.model_copy(update={"seed": 6}), smoke_world() / MIX)
    one, two = digest(tmp_path), digest(clip_world())
    videos = [path for path in one if path.endswith(".avi")]
    assert videos and not {one[path] for path in videos} & {two[path] for path in videos}


def test_splits_are_disjoint_by_scene_and_digit() -> None:
    seen: dict[str, tuple[set[int], set[int]]] = {}
    for split in SPLITS:
        clips, _ = some(split=split)
        seeds = {int(s) for i in range(len(clips)) for s in clips.frames(i).noise_seed}
        assert {seed % len(SPLITS) for seed in seeds} == {SPLITS.index(split)}
        digits = set(clips.scenes.digit_index[clips.scenes.digit_index >= 0].tolist())
        assert digits <= set(digit_instances(split).tolist())
        seen[split] = (seeds, digits)
    for a in SPLITS:
        for b in SPLITS:
            assert a == b or not (seen[a][0] & seen[b][0] or seen[a][1] & seen[b][1])


def test_one_object_moves_straight_and_meets_nothing() -> None:
    clips, _ = some()
    for i in range(len(clips)):
        frames = clips.frames(i)
        assert len(np.unique(frames.noise_seed)) == clips.length, "every frame has noise of its own"
        places = np.stack([frames.x, frames.y], 2).astype(int)
        moved = places[-1] - places[0]
        assert np.flatnonzero(np.abs(moved).sum(1)).tolist() == [clips.mover[i]]
        assert np.array_equal(np.sign(moved[clips.mover[i]]), STEPS[clips.direction[i]])
        assert MOVE[0] <= np.abs(moved).sum() <= MOVE[1]
        assert frames.present[:, clips.mover[i]].all()
        slots = np.flatnonzero(frames.present[-1])
        half = HALF_BOX[frames.size[0]]
        for t in range(clips.length):
            for a in slots:
                assert (places[t, a] >= half[a]).all() and (places[t, a] <= IMAGE_SIZE - half[a]).all()
                for b in slots:
                    apart = np.abs(places[t, a] - places[t, b]) >= half[a] + half[b]
                    assert a == b or apart.any(), f"clip {i}, frame {t}"


def test_two_objects_appear_one_after_the_other_also_for_a_reader_of_four_frames() -> None:
    clips, _ = some()
    read = np.linspace(0, clips.length - 1, 4, dtype=int)
    for i in range(len(clips)):
        present = clips.frames(i).present
        counts = present[read].sum(1)
        assert counts[-1] - counts[0] == 2 and 1 in (np.diff(counts))
        early, late = (present[:, slot].argmax() for slot in clips.appearing[i])
        assert 0 < early < late


def test_answers_are_true() -> None:
    """Counted and compared anew from what the frames hold."""
    clips, source = some(n=80)
    asked = dict.fromkeys(TYPES, 0)
    for i in range(len(clips)):
        clip, frames = clips[i], clips.frames(i)
        for question in ask_clip(clip, ALL, 12, source.rng):
            asked[question.kind] += 1
            if question.text.startswith("How many objects"):
                t = 0 if "first picture" in question.text else -1
                assert question.answer == str(frames.present[t].sum())
            if question.text.endswith("where it was?") and question.answer in DIRECTIONS:
                assert question.answer == DIRECTIONS[clips.direction[i]]
            if question.text.startswith("Is the") and "shown in the first" in question.text:
                missing = {clip.early, clip.late}
                words = question.text.removeprefix("Is the ").split(" shown")[0].split()
                named = [o for o in clip.scene.objects if all(w in (*o[:4], "object") for w in words)]
                assert len(named) == 1 and (named[0] in missing) == (question.answer == "no")
            if question.text.startswith("Which appears first"):
                assert question.answer in question.text
    assert min(asked.values()) > 0, asked


def test_no_answer_is_given_away_by_its_family() -> None:
    clips, source = some(n=200)
    for name, most in (("direction", 0.4), ("presence", 0.62), ("mover", 0.3)):
        answers = [q.answer for i in range(200) if (q := ASKERS[name](clips[i], source.rng)) is not None]
        commonest = max(answers.count(answer) for answer in set(answers)) / len(answers)
        assert len(answers) > 100 and commonest < most, name


def test_every_word_is_in_the_language_models_vocabulary() -> None:
    clips, source = some(n=80)
    known = vocabulary()
    for i in range(len(clips)):
        for question in ask_clip(clips[i], ALL, 10, source.rng):
            words = re.findall(r"[A-Za-z]+|[^\sA-Za-z]", f"{question.text} {question.answer}")
            assert not [word for word in words if word not in known], question


def test_the_mix_is_read_and_holds_clips_and_images() -> None:
    root = clip_world()
    records = load_records(root / "video/llava_video_mix_mini.json")
    videos = [record for record in records if record.video is not None]
    assert len(videos) == CLIPS.train and len(records) == CLIPS.train + CLIPS.images
    assert all(record.turns[0].question.startswith("<image>\n") for record in records)
    for record in videos:
        assert record.length > 8 * 128 and record.image is None
        assert len(load_frames(root / "video/videos" / str(record.video), 4)) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "x.jpg"}, "expected 'image' or 'video', found both"),
        ({"video": ""}, "expected 'video' to be a path, found ''"),
        ({"video": None}, "expected no <video> (no 'video'), found 1"),
    ],
)
def test_a_bad_video_record_is_named(tmp_path: Path, change: dict[str, str | None], words: str) -> None:
    talk = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "red"}]
    (tmp_path / "a.json").write_text(json.dumps([{"id": "c", "video": "c.avi", "conversations": talk} | change]))
    with pytest.raises(RecordError, match=re.escape(words)) as caught:
        load_records(tmp_path / "a.json")
    assert "a.json: record 0 (id 'c')" in str(caught.value)


@pytest.mark.parametrize("name", ["msvd_qa", "activitynet_qa"])
def test_official_files_are_read_back_with_their_videos(name: str) -> None:
    root = clip_world() / "benchmarks"
    benchmark = find_benchmark(name)
    examples = benchmark.read(root)
    asked = json.loads((root / name / "test_q.json").read_text())
    answers = {row["question_id"]: row for row in json.loads((root / name / "test_a.json").read_text())}
    assert len(examples) == len(asked) == {"msvd_qa": 20, "activitynet_qa": 31}[name]
    for example, row in zip(examples, asked, strict=True):
        assert set(row) == {"video_name", "question", "question_id"}
        assert example.prompt == f"{row['question']}\nAnswer the question using a single word or phrase."
        assert example.meta["answer"] == answers[row["question_id"]]["answer"]
        assert example.group == row["video_name"]
        path = benchmark.image_path(root, example)
        assert path is not None and path.is_file()
    assert benchmark.read(root, suffix=False)[0].prompt == asked[0]["question"]
    types = {row["type"] for row in answers.values()}
    assert types <= ({"what", "how"} if name == "msvd_qa" else set(range(9)))


def test_questions_and_answers_are_joined_by_id(tmp_path: Path) -> None:
    folder = tmp_path / "activitynet_qa"
    folder.mkdir()
    row = {"video_name": "a", "question": "What?"}
    (folder / "test_q.json").write_text(json.dumps([row | {"question_id": f"v_a_{n}"} for n in range(3)]))
    answers = [{"answer": str(n), "type": 4, "question_id": f"v_a_{n}"} for n in range(3)]
    (folder / "test_a.json").write_text(json.dumps(answers[::-1]))
    benchmark = find_benchmark("activitynet_qa")
    assert [e.meta["answer"] for e in benchmark.read(tmp_path)] == ["0", "1", "2"]
    (folder / "test_a.json").write_text(json.dumps(answers[:2]))
    with pytest.raises(BenchmarkError, match=r"test_a\.json: no answer to question id 'v_a_2'"):
        benchmark.read(tmp_path)
    (folder / "test_a.json").write_text(json.dumps([answers[0] | {"type": 9}, *answers[1:]]))
    with pytest.raises(BenchmarkError, match=r"question id 'v_a_0': found type 9, expected 0 to 8"):
        benchmark.read(tmp_path)
    (folder / "test_q.json").write_text(json.dumps([{"video_name": "a", "question_id": 1}]))
    with pytest.raises(BenchmarkError, match=r"test_q\.json: record 0: key 'question' is missing"):
        benchmark.read(tmp_path)


def test_the_table_lists_every_video_by_set() -> None:
    root = clip_world()
    with (root / "videos.tsv").open() as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    on_disk = {p.relative_to(root).as_posix() for p in root.rglob("*.avi")}
    assert {row["path"] for row in rows} == on_disk and len(rows) == len(on_disk)
    sets = {row["path"]: row["set"] for row in rows}
    assert all((sets[path] == "video") == path.startswith("video/") for path in on_disk)


def test_too_small_a_mix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"llava_v1_5_mix_mini\.json: found 40 image records, expected at least 41"):
        build_clips(tmp_path / "w", CLIPS.model_copy(update={"images": 41}), smoke_world() / MIX)

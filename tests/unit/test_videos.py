"""The one loader of video files: frame choice, exact pixels, frames of images' kin, bad files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visiontokens.data.images import Preprocessor
from visiontokens.data.videos import (
    VideoError,
    file_of,
    find_video,
    frame_keys,
    frame_numbers,
    load_frames,
    split_key,
    write_video,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 16, 24, 3), dtype=np.uint8)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    write_video(tmp_path / "a.avi", PIXELS)
    return tmp_path / "a.avi"


@pytest.mark.parametrize("total", [1, 2, 7, 8, 9, 31, 250])
def test_frames_are_video_llavas(total: int) -> None:
    """Evenly spaced from the first to the last, rounded down; short videos repeat frames."""
    got = frame_numbers(total, 8)
    assert got == np.linspace(0, total - 1, 8, dtype=int).tolist()
    assert got[0] == 0 and got[-1] == total - 1 and got == sorted(got)


def test_written_frames_are_read_back_exactly_and_files_repeat(video: Path, tmp_path: Path) -> None:
    for count in (1, 3, 7, 9):
        read = np.stack([np.asarray(frame) for frame in load_frames(video, count)])
        assert np.array_equal(read, PIXELS[frame_numbers(7, count)])
    write_video(tmp_path / "b.avi", PIXELS)
    assert (tmp_path / "b.avi").read_bytes() == video.read_bytes()


def test_a_frame_is_preprocessed_as_an_image_is(video: Path, tmp_path: Path) -> None:
    processor = Preprocessor(16, [0.5] * 3, [0.2] * 3)
    for place in (0, 3):
        Image.fromarray(PIXELS[place]).save(tmp_path / f"{place}.png")
    got = processor([tmp_path / "0.png", *frame_keys(video, 3)])
    want = processor([tmp_path / "0.png", tmp_path / "0.png", tmp_path / "3.png"])
    assert np.array_equal(got[:3], want)


def test_keys_name_file_and_place() -> None:
    keys = frame_keys("x/y#1.mp4", 4)
    assert [split_key(key) for key in keys] == [("x/y#1.mp4", number, 4) for number in range(4)]
    assert {file_of(key) for key in keys} == {"x/y#1.mp4"}
    assert split_key("x/y.png") is None and file_of("x/y.png") == "x/y.png"


def test_a_replaced_file_is_read_again(video: Path) -> None:
    first = np.asarray(load_frames(video, 1)[0])
    write_video(video, PIXELS[::-1].copy())
    assert not np.array_equal(np.asarray(load_frames(video, 1)[0]), first)


def test_videos_are_found_by_name_in_the_official_order(tmp_path: Path) -> None:
    assert find_video(tmp_path, "v") == "v.mp4"
    (tmp_path / "v.mkv").touch()
    assert find_video(tmp_path, "v") == "v.mkv"
    (tmp_path / "v.avi").touch()
    assert find_video(tmp_path, "v") == "v.avi"


def test_a_folder_of_frames_is_read_like_a_video(tmp_path: Path) -> None:
    """MVBench has TVQA's videos as folders of frames."""
    with pytest.raises(VideoError, match="expected frames"):
        load_frames(tmp_path, 2)
    for number in range(5):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number + 1:05d}.png")
    found = [image.getpixel((0, 0))[0] for image in load_frames(tmp_path, 3)]
    assert found == frame_numbers(5, 3) == [0, 2, 4]
    (tmp_path / "00003.png").write_text("no image")
    with pytest.raises(VideoError, match=r"00003\.png: expected an image"):
        load_frames(tmp_path, 3)


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.8])
def test_a_damaged_video_is_named(video: Path, keep: float) -> None:
    whole = video.read_bytes()
    video.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(VideoError, match=rf"a\.avi: expected a complete video file, found {int(keep * len(whole))} "):
        load_frames(video, 2)


def test_other_files_and_missing_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"t\.mp4: expected a complete video file, found 8 bytes"):
        load_frames(tmp_path / "t.mp4", 2)
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4: no such video"):
        load_frames(tmp_path / "gone.mp4", 2)
    with pytest.raises(ValueError, match="frames: found 0"):
        frame_numbers(4, 0)

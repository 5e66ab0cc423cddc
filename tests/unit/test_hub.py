"""Hub repositories by id and commit, from a stand-in on loopback; and without the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import Server, running
from test_fetch import entry, names

from visiontokens.config import Config
from visiontokens.data.download import DownloadError, Transport
from visiontokens.data.fetch import Fetcher
from visiontokens.data.registry import Entry
from visiontokens.provenance import read_json

ONE, TWO = "1" * 40, "2" * 40
FILES = {"config.json": b'{"a": 1}', "w-1.bin": b"w" * 1000, "w-2.bin": b"v" * 1000, "README.md": b"read me"}
MODEL = entry(
    "hf:me/model", name="model", role="checkpoint", revision=ONE, files="config.json,w-*.bin", path="our-model"
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with running() as server:
        server.publish("models", "me/model", ONE, FILES)
        monkeypatch.setenv("HF_ENDPOINT", server.base)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield server


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    settings = {"world": None, "data": tmp_path / "data", "backbones": {"llm": tmp_path / "weights/llm"}}
    return Fetcher(Config.model_validate(settings), Transport(attempts=2, timeout=60, sleep=lambda seconds: None))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "weights/our-model"


def place(folder: Path, **changes: bytes) -> None:
    """Write the repository's files where a user would."""
    folder.mkdir(parents=True)
    for name, content in {**FILES, **changes}.items():
        (folder / name).write_bytes(content)


def test_named_files_of_one_commit_are_fetched(server: Server, fetcher: Fetcher, folder: Path) -> None:
    receipt = fetcher.fetch(MODEL, folder / "download.json")
    assert names(folder) == ["config.json", "download.json", "w-1.bin", "w-2.bin"]
    assert (folder / "w-2.bin").read_bytes() == FILES["w-2.bin"]
    assert receipt["revision"] == ONE
    assert receipt["files"]["w-1.bin"]["sha256"] == hashlib.sha256(FILES["w-1.bin"]).hexdigest()
    assert {path for path in server.paths if "/resolve/" in path} == {
        f"/me/model/resolve/{ONE}/{name}" for name in ("config.json", "w-1.bin", "w-2.bin")
    }


def test_the_hubs_checksum_is_enforced(server: Server, fetcher: Fetcher, folder: Path) -> None:
    server.files[f"/me/model/resolve/{ONE}/w-2.bin"] = b"x" * 1000
    with pytest.raises(DownloadError, match=r"w-2\.bin: found SHA-256 .*, twice"):
        fetcher.fetch(MODEL)
    assert not (folder / "w-2.bin").exists()


def test_small_files_without_a_checksum_are_recorded(server: Server, fetcher: Fetcher, folder: Path) -> None:
    fetcher.fetch(MODEL)
    (folder / "config.json").write_bytes(b'{"a": 2}')
    with pytest.raises(DownloadError, match=r"config\.json: found SHA-256"):
        fetcher.fetch(MODEL)


def test_a_listing_may_have_several_pages(server: Server, fetcher: Fetcher, folder: Path) -> None:
    first = f"/api/models/me/model/tree/{ONE}?recursive=true"
    server.files["/api/page2"] = server.files[first]
    server.files[first] = b"[]"
    server.next_page[first] = "/api/page2"
    fetcher.fetch(MODEL)
    assert (folder / "config.json").is_file()


def test_an_unknown_commit_is_recorded_and_kept_when_the_branch_moves(server: Server, fetcher: Fetcher) -> None:
    thing = entry("hf-dataset:me/data", files="q.json", path="bench/q.json")
    server.publish("datasets", "me/data", ONE, {"q.json": b"one"})
    assert fetcher.fetch(thing)["revision"] == ONE
    assert read_json(fetcher.config.data_dir / "downloads/thing.lock.json")["revision"] == ONE
    server.publish("datasets", "me/data", TWO, {"q.json": b"two"})
    (fetcher.config.data_dir / "bench/q.json").unlink()
    assert fetcher.fetch(thing)["revision"] == ONE
    assert (fetcher.config.data_dir / "bench/q.json").read_bytes() == b"one"


def test_what_was_fetched_needs_no_hub(
    server: Server, fetcher: Fetcher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetcher.fetch(MODEL, folder / "download.json")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(server.paths)
    assert fetcher.fetch(MODEL, folder / "download.json")["files"] == first["files"]
    assert len(server.paths) == asked
    (folder / "w-1.bin").unlink()
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        fetcher.fetch(MODEL)


def test_weights_that_the_user_placed_are_accepted_offline_and_checked_online(
    server: Server, fetcher: Fetcher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(folder, **{"w-1.bin": b"?" * 1000})
    (folder / ".w-3.bin").write_bytes(b"part")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert sorted(fetcher.fetch(MODEL)["files"]) == ["config.json", "w-1.bin", "w-2.bin"]
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(DownloadError, match=r"w-1\.bin: found SHA-256 .* move it away"):
        fetcher.fetch(MODEL)
    assert (folder / "w-1.bin").read_bytes() == b"?" * 1000


def test_a_hub_that_cannot_be_reached_does_not_block_what_is_there(
    fetcher: Fetcher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(DownloadError, match="given up after 2 attempts"):
        fetcher.fetch(MODEL)
    place(folder)
    assert len(fetcher.fetch(MODEL)["files"]) == 3


def test_a_busy_hub_is_asked_again(server: Server, fetcher: Fetcher, folder: Path) -> None:
    server.faults = ["busy"]
    fetcher.fetch(MODEL)
    assert (folder / "w-1.bin").is_file()


def test_gated_repositories_name_the_token_and_send_it(
    server: Server, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults = ["gated"]
    with pytest.raises(DownloadError, match=r"401.*accept its terms and set HF_TOKEN"):
        fetcher.fetch(MODEL)
    monkeypatch.setenv("HF_TOKEN", "secret")
    fetcher.fetch(MODEL)
    assert set(server.tokens[1:]) == {"Bearer secret"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"files": ("model-*.bin",)}, r"hf:me/model@1{40}: no file matches 'model-\*\.bin'"),
        ({"files": ("w-1.bin",), "bytes": 5}, "the hub has a file of bytes 1000, expected 5"),
        ({"files": ("w-1.bin",), "sha256": "0" * 64}, f"the hub has a file of SHA-256 .*, expected {'0' * 64}"),
    ],
)
def test_another_file_than_registered_is_refused_before_the_bytes(
    server: Server, fetcher: Fetcher, changes: dict[str, object], words: str
) -> None:
    thing: Entry = MODEL.model_copy(update=changes)
    with pytest.raises(DownloadError, match=words):
        fetcher.fetch(thing)
    assert not [path for path in server.paths if "/resolve/" in path]


def test_a_login_page_in_place_of_the_hub_is_told(server: Server, fetcher: Fetcher) -> None:
    server.files[f"/api/models/me/model/tree/{ONE}?recursive=true"] = b"<html>Please log in"
    with pytest.raises(DownloadError, match="found '<html>Please log in': not the hub"):
        fetcher.fetch(MODEL)

"""Finished runs out to archives and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from visiontokens.analyze.published import PublishedError, pack, published, unpack
from visiontokens.data.archives import ArchiveError
from visiontokens.seals import SealError, check_below, seal

FILES = {
    "models/none/seed0/tune/record.json": '{"steps": 3}\n',
    "models/none/seed0/tune/model.safetensors": "weights",
    "predictions/none/seed0/gqa.jsonl": '{"question_id": 1, "text": "红色"}\n',
    "predictions/none/seed0/gqa.jsonl.partial": "half",
    "scores/none/seed0/gqa.json": '{"value": 61.9}\n',
    "scores/none/seed0/gqa.questions.csv": "question_id,correct\n1,1\n",
    "scores/fastv-2-8-test/seed1/gqa.json": '{"value": 50}\n',
    "validation/none/seed0.json": '{"value": 70}\n',
    "redundancy/curve.csv": "layer\n2\n",
    "logs/tune.log": "no result\n",
}
KEPT = {name for name in FILES if not name.endswith((".safetensors", ".partial", ".log"))}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    root = tmp_path / "results"
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    seal(root / "models/none/seed0/tune")
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_everything_but_weights_and_logs_comes_back(results: Path, tmp_path: Path) -> None:
    archives = pack(results, tmp_path / "store")
    assert {path.name for path in archives} == {
        "none.seed0.tar.xz", "fastv-2-8-test.seed1.tar.xz", "shared.tar.xz"
    }  # fmt: skip
    assert published(tmp_path / "store") == [("fastv-2-8-test", 1), ("none", 0)]
    assert unpack(archives, tmp_path / "clone") == len(KEPT) + 1  # and the seal
    found = contents(tmp_path / "clone")
    assert {name: text.decode() for name, text in found.items() if not name.endswith(".seal")} == {
        name: FILES[name] for name in KEPT
    }
    check_below(tmp_path / "clone", skip={".safetensors"})
    assert len({path.stat().st_mtime_ns for path in (tmp_path / "clone").rglob("*") if path.is_file()}) == 1
    assert unpack(archives, tmp_path / "clone") == 0


def test_the_same_results_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    first = contents(pack(results, tmp_path / "a")[0].parent)
    (results / "scores/none/seed0/gqa.json").touch()
    assert contents(pack(results, tmp_path / "b")[0].parent) == first


def test_a_file_that_differs_stops_before_anything_is_unpacked(results: Path, tmp_path: Path) -> None:
    archives = pack(results, tmp_path / "store")
    other = tmp_path / "clone/scores/none/seed0/gqa.json"
    other.parent.mkdir(parents=True)
    other.write_text('{"value": 99}\n')
    with pytest.raises(PublishedError, match=r"gqa\.json: differs from the one in .*none\.seed0\.tar\.xz"):
        unpack([path for path in archives if path.name.startswith("none")], tmp_path / "clone")
    assert contents(tmp_path / "clone") == {"scores/none/seed0/gqa.json": b'{"value": 99}\n'}


def test_a_damaged_result_is_not_published(results: Path, tmp_path: Path) -> None:
    (results / "models/none/seed0/tune/record.json").write_text('{"steps": 4}\n')
    with pytest.raises(SealError, match=r"record\.json: found .* expected"):
        pack(results, tmp_path / "store")


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_truncated_archive_is_named_and_leaves_nothing(results: Path, tmp_path: Path, keep: float) -> None:
    archive = next(path for path in pack(results, tmp_path / "store") if path.name.startswith("none"))
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ArchiveError, match=r"none\.seed0\.tar\.xz"):
        unpack([archive], tmp_path / "clone")
    assert not contents(tmp_path / "clone")


def test_nothing_finished_and_foreign_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no scores of any run"):
        pack(tmp_path, tmp_path / "store")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/notes.tar.xz").touch()
    with pytest.raises(PublishedError, match=r"notes\.tar\.xz: expected <experiment>\.seed<k>"):
        published(tmp_path / "store")

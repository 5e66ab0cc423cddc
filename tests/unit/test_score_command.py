"""`visiontokens score`: every released answer format gives the same score, and what does not fit is named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from smoke_world import smoke_world

from visiontokens.cli import main
from visiontokens.data.benchmarks import BENCHMARKS, MAIN_BENCHMARKS, Example
from visiontokens.evaluate.predictions import PredictionError
from visiontokens.evaluate.score import POLICIES, SCORERS
from visiontokens.evaluate.scorefile import TOLD, score_file

NAMES = (
    "vqav2", "gqa", "vizwiz", "scienceqa", "textvqa", "pope", "mme", "mmbench", "mmbench_cn", "mmvet", "llava_bench",
    "seed", "mmmu", "msvd_qa", "msrvtt_qa", "tgif_qa", "activitynet_qa", "mvbench",
)  # fmt: skip


def answer_of(example: Example) -> str:
    """Return a right answer to every third question, and "no" to the others."""
    meta = example.meta
    truth = meta.get("answer", meta.get("label", meta.get("answers", [""])[0]))
    return str(truth) if int(example.question_id.encode().hex(), 16) % 3 else "no"


def rows(examples: Sequence[Example], key: str, text: str) -> list[dict[str, str]]:
    return [{key: example.question_id, text: answer_of(example)} for example in examples]


def lines(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def listed(path: Path, records: object) -> Path:
    path.write_text(json.dumps(records))
    return path


def result(path: Path, examples: Sequence[Example]) -> Path:
    """Write ScienceQA's result file."""
    return listed(path, {"acc": 1, "results": {}, "outputs": {e.question_id: answer_of(e) for e in examples}})


def output(path: Path, examples: Sequence[Example]) -> Path:
    """Write ScienceQA's file of right and wrong answers."""
    found = rows(examples, "question_id", "pred")
    return listed(path, {"correct": found[::2], "incorrect": found[1::2]})


def sheet(path: Path, examples: Sequence[Example]) -> Path:
    """Write MMBench's upload."""
    book = openpyxl.Workbook()
    page = book.active
    assert page is not None
    page.append(["index", "question", "A", "B", "prediction", "answer"])
    for example in examples:
        page.append([int(example.question_id), "q", "a", "b", answer_of(example), "A"])
    book.save(path.with_suffix(".xlsx"))
    return path.with_suffix(".xlsx")


def tool(path: Path, examples: Sequence[Example]) -> Path:
    """Write the text files of MME's evaluation tool, images named as texts, two spaces before the request."""
    path.mkdir()
    for example in examples:
        name, category = Path(example.group).with_suffix(".txt").name, example.meta["category"]
        question = example.prompt.split("\n")[0] + "  Please answer yes or no."
        line = "\t".join((name, question, example.meta["label"].capitalize(), answer_of(example)))
        with (path / f"{category}.txt").open("a") as handle:
            handle.write(line + "\n")
    return path


def llava_mme(path: Path, examples: Sequence[Example]) -> Path:
    """Write LLaVA's lines, whose id is the image."""
    found = [{"question_id": e.group, "prompt": e.prompt, "text": answer_of(e)} for e in examples]
    return lines(path, found)


def llava_textvqa(path: Path, examples: Sequence[Example]) -> Path:
    """Write LLaVA's lines, whose id is the image."""
    found = [{"question_id": e.meta["official_id"], "prompt": e.prompt, "text": answer_of(e)} for e in examples]
    return lines(path, found)


def uploaded(key: str, text: str) -> Callable[[Path, Sequence[Example]], Path]:
    return lambda path, examples: listed(path, rows(examples, key, text))


FORMATS: list[tuple[str, Callable[[Path, Sequence[Example]], Path]]] = [
    ("vqav2", uploaded("question_id", "answer")), ("gqa", uploaded("questionId", "prediction")),
    ("vizwiz", uploaded("image", "answer")), ("scienceqa", result), ("scienceqa", output),
    ("textvqa", llava_textvqa), ("mme", tool), ("mme", llava_mme), ("mmbench", sheet), ("mmbench_cn", sheet),
]  # fmt: skip


@pytest.fixture(scope="module")
def world() -> Path:
    return smoke_world() / "benchmarks"


def llava(path: Path, examples: Sequence[Example]) -> Path:
    return lines(path, rows(examples, "question_id", "text"))


@pytest.mark.parametrize(("name", "write"), FORMATS, ids=lambda item: getattr(item, "__name__", str(item)))
def test_released_formats_score_like_llavas_lines(
    name: str, write: Callable[[Path, Sequence[Example]], Path], world: Path, tmp_path: Path
) -> None:
    examples = BENCHMARKS[name].read(world)
    want = score_file(name, llava(tmp_path / "answers.jsonl", examples), world, resamples=10)
    found = score_file(name, write(tmp_path / "released", examples), world, resamples=10)
    assert {**found, "answers": ""} == {**want, "answers": ""}
    assert found["score"] > 0 and found["n"] == len(examples)
    below = score_file(name, tmp_path / "answers.jsonl", world / name, resamples=10)
    assert below["score"] == want["score"], "the benchmark's own folder is as good as the one above"


@pytest.mark.parametrize("name", MAIN_BENCHMARKS)
def test_both_policies_are_shown(name: str, world: Path, tmp_path: Path) -> None:
    path = llava(tmp_path / "a.jsonl", BENCHMARKS[name].read(world))
    scores = {policy: score_file(name, path, world, policy=policy, resamples=10) for policy in POLICIES}
    for policy, found in scores.items():
        assert found["policy"] == policy and found["policies"] == {p: scores[p]["score"] for p in POLICIES}
        assert found["options"] == SCORERS[name].policies[policy]
        assert set(found) >= {"benchmark", "score", "metric", "parts", "n", "policy", "policies", "interval"}
        assert found["interval"]["low"] <= found["score"] <= found["interval"]["high"]


def test_policies_differ_where_an_official_script_has_a_quirk(world: Path, tmp_path: Path) -> None:
    """Answers in capitals and with words around them: what official rules misread is read by the correct ones."""
    examples = BENCHMARKS["pope"].read(world)
    said = {"yes": "Yes, not just one", "no": "NO"}
    path = lines(tmp_path / "a", [{"question_id": e.question_id, "text": said[e.meta["label"]]} for e in examples])
    assert score_file("pope", path, world)["policies"] == {"official": 0.0, "correct": pytest.approx(0.0)}
    said = {"yes": "YES", "no": "NO"}
    path = lines(tmp_path / "b", [{"question_id": e.question_id, "text": said[e.meta["label"]]} for e in examples])
    found = score_file("pope", path, world)
    assert found["policies"]["correct"] == 100 and found["score"] == found["policies"]["official"] < 70
    examples = BENCHMARKS["mme"].read(world)
    path = lines(tmp_path / "c", [{"question_id": e.question_id, "text": "know not"} for e in examples])
    found = score_file("mme", path, world)
    assert found["policies"]["correct"] == 0 < found["policies"]["official"]
    examples = BENCHMARKS["mmbench"].read(world)
    path = lines(tmp_path / "d", [{"question_id": e.question_id, "text": "?"} for e in examples])
    found = score_file("mmbench", path, world)
    assert found["other_parts"]["all_rows"] == 0 < found["parts"]["all_rows"] < 50
    assert found == score_file("mmbench", path, world), "guesses are drawn by question id"


def test_every_benchmark_is_in_the_registry_with_two_policies() -> None:
    assert list(SCORERS) == list(BENCHMARKS) == list(NAMES)
    for name, scorer in SCORERS.items():
        assert set(scorer.policies) >= set(POLICIES), name
        assert scorer.judged is None or set(scorer.judged.policies) == set(POLICIES), name


def test_the_command_prints_json_and_writes_it(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = llava(tmp_path / "a.jsonl", BENCHMARKS["gqa"].read(world))
    out = tmp_path / "deep" / "score.json"
    command = ["score", "gqa", "--answers", str(path), "--data", str(world), "--policy", "correct", "--out", str(out)]
    assert main(command) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text()) and printed["policy"] == "correct"


def test_the_command_loads_neither_torch_nor_transformers(world: Path, tmp_path: Path) -> None:
    path = llava(tmp_path / "a.jsonl", BENCHMARKS["pope"].read(world))
    code = (
        "import sys\nfrom visiontokens.cli import main\n"
        f"assert main(['score', 'pope', '--answers', {str(path)!r}, '--data', {str(world)!r}]) == 0\n"
        "print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cider", "a.jsonl", "."), "unknown benchmark 'cider', expected one of vqav2"),
        (("gqa", "none.jsonl", "."), "none.jsonl: no such answer file"),
        (("gqa", "a.jsonl", "empty"), "official files of gqa: .*empty: no file matches .*questions.json, nor is there"),
        (("mmvet", "a.jsonl", "empty"), "official files of mmvet: .*neither mm-vet.json nor llava-mm-vet.jsonl"),
        (("gqa", "torn.jsonl", "world"), "torn.jsonl:2: not valid JSON"),
        (("gqa", "object.json", "world"), "object.json: found one JSON object, expected records with 'question_id'"),
        (("gqa", "a.jsonl", "world"), "a.jsonl:1: question id '1' is foreign"),
        (("gqa", "fields.jsonl", "world"), "fields.jsonl:1: found the keys id, said, expected records with"),
        (("mmbench", "torn.xlsx", "world"), "torn.xlsx: expected a whole XLSX sheet"),
        (("mme", "empty", "world"), "empty: found none of MME's subtasks"),
        (("scienceqa", "object.json", "world"), "expected 'outputs', 'results', or 'correct' and 'incorrect'"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_it(
    arguments: tuple[str, str, str], message: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines(tmp_path / "a.jsonl", [{"question_id": "1", "text": "x"}])
    lines(tmp_path / "fields.jsonl", [{"id": "1", "said": "x"}])
    (tmp_path / "torn.jsonl").write_text('{"question_id": "1", "text": "x"}\n{"question_id"')
    listed(tmp_path / "object.json", {"one": "x"})
    (tmp_path / "torn.xlsx").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "empty").mkdir()
    name, answers, data = arguments
    folder = world if data == "world" else tmp_path / data
    assert main(["score", name, "--answers", str(tmp_path / answers), "--data", str(folder)]) == 2
    err = capsys.readouterr().err.strip()
    assert "\n" not in err
    assert re.search(message, err), err


def test_missing_repeated_and_foreign_ids_are_named(world: Path, tmp_path: Path) -> None:
    examples = BENCHMARKS["vqav2"].read(world)
    full = rows(examples, "question_id", "answer")
    for records, message in (
        (full[1:], f"1 of {len(full)} questions have no answer, the first is question id '{full[0]['question_id']}'"),
        ([*full, full[3]], f"record {len(full)}: question id .* is answered again"),
        ([*full, {"question_id": "x", "answer": ""}], "question id 'x' is foreign"),
    ):
        with pytest.raises(PredictionError, match=message):
            score_file("vqav2", listed(tmp_path / "upload.json", records), world)


def test_both_languages_of_mmbench_may_lie_in_one_folder(world: Path, tmp_path: Path) -> None:
    for name in ("mmbench", "mmbench_cn"):
        (table,) = (world / name).glob("*.tsv")
        (tmp_path / table.name).symlink_to(table)
    for name in ("mmbench", "mmbench_cn"):
        path = llava(tmp_path / "a.jsonl", BENCHMARKS[name].read(world))
        assert score_file(name, path, tmp_path, resamples=10)["data"] == str(tmp_path)


def test_mmes_results_hold_their_own_truth(world: Path, tmp_path: Path) -> None:
    """The tool's folder is scored without the release; other answer files need it."""
    examples = BENCHMARKS["mme"].read(world)
    results = tool(tmp_path / "results", examples)
    (tmp_path / "empty").mkdir()
    alone = score_file("mme", results, tmp_path / "empty", resamples=10)
    assert alone["data"] == TOLD
    assert alone["score"] == score_file("mme", results, world, resamples=10)["score"]
    truth = tmp_path / "Your_Results"
    truth.mkdir()
    for path in results.iterdir():
        (truth / path.name).write_text(
            "".join("\t".join(x.split("\t")[:3]) + "\n" for x in path.read_text().splitlines())
        )
    by_tool = score_file("mme", llava_mme(tmp_path / "a.jsonl", examples), tmp_path, resamples=10)
    assert by_tool["score"] == alone["score"]
    with pytest.raises(FileNotFoundError, match="official files of mme"):
        score_file("mme", tmp_path / "a.jsonl", tmp_path / "empty")


def test_the_split_is_the_one_that_the_answers_belong_to(tmp_path: Path) -> None:
    """ActivityNet-QA's validation answers next to both splits, in the official script's format."""
    for split, number in (("test", 7), ("val", 8)):
        question = {"video_name": "x", "question": "what ?", "question_id": f"v_{number}"}
        listed(tmp_path / f"{split}_q.json", [question])
        listed(tmp_path / f"{split}_a.json", [{"answer": "dog", "type": 5, "question_id": f"v_{number}"}])
    for number, split in ((7, "test"), (8, "val")):
        path = listed(tmp_path / "pred.json", [{"question_id": f"v_{number}", "answer": "dog"}])
        found = score_file("activitynet_qa", path, tmp_path, resamples=10)
        assert (found["score"], found["data"]) == (100, f"{tmp_path} ({split})")
    with pytest.raises(PredictionError, match="'v_9' is foreign"):
        score_file("activitynet_qa", listed(tmp_path / "p.json", [{"question_id": "v_9", "answer": ""}]), tmp_path)


@pytest.mark.parametrize("name", ["msvd_qa", "msrvtt_qa", "tgif_qa"])
def test_video_sets_in_their_original_releases(name: str, tmp_path: Path) -> None:
    """Two questions with the same words on one video are told apart by order, as TGIF-QA has some."""
    if name == "tgif_qa":
        head = "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\tdescription\n"
        body = 'g1\twhat "is" it ?\tcat\t0\tFRAMEQA1\t1\td\ng1\twhat "is" it ?\ttwo\t1\tFRAMEQA2\t2\td\n'
        (tmp_path / "Test_frameqa_question.csv").write_text(head + body)
        video, question = "g1", 'what "is" it ?'
    else:
        asked = {"question": "what is it?", "video_id": 9}
        listed(tmp_path / "test_qa.json", [{**asked, "answer": "cat", "id": 5}, {**asked, "answer": "two", "id": 6}])
        video, question = {"msvd_qa": "vid9", "msrvtt_qa": "video9"}[name], "what is it?"
    examples = BENCHMARKS[name].load(tmp_path)
    assert [example.image for example in examples] == [f"{video}.mp4"] * 2
    answers = [{"video_name": video, "Q": question, "A": "", "pred": text} for text in ("Cat.", "three")]
    found = score_file(name, listed(tmp_path / "pred.json", answers), tmp_path, resamples=10)
    assert (found["score"], found["metric"]) == (50, "exact match (offline)")
    by_id = [{"id": e.question_id, "question": "", "pred": str(e.meta["answer"])} for e in examples]
    assert score_file(name, lines(tmp_path / "pred.jsonl", by_id), tmp_path, resamples=10)["score"] == 100

"""The command line: fast help, one-line errors, every verb reachable."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from visiontokens.cli import build_parser, main
from visiontokens.models.convert.names import FORMATS


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for verb in [
        "world",
        "tower",
        "llm",
        "features",
        "train",
        "predict",
        "score",
        "score-run",
        "redundancy",
        "efficiency",
        "notebook",
        "summary",
        "ask",
    ]:
        assert f"\n    {verb} " in text or f"\n    {verb}\n" in text


def test_help_loads_no_heavy_library_and_answers_within_a_second() -> None:
    code = (
        "import sys\nfrom visiontokens.cli import build_parser\nbuild_parser().format_help()\n"
        "print([m for m in ('torch', 'transformers', 'pandas', 'numpy', 'pydantic') if m in sys.modules])"
    )
    start = time.process_time()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.process_time() - start < 1


def test_convert_takes_every_layout_that_the_converter_knows() -> None:
    for layout in FORMATS:
        given = build_parser().parse_args(
            ["convert", "--source", "a", "--out", "b", "--format", layout, "--to", layout]
        )
        assert (given.format, given.to) == (layout, layout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["world", "--config", "nowhere.yaml", "--out", "x"], "nowhere.yaml"),
        (["config", "check", "nowhere.yaml"], "nowhere.yaml"),
        (["provenance", "restore", "nowhere.json"], "nowhere.json"),
    ],
)
def test_errors_are_one_clear_line_and_exit_code_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"visiontokens {arguments[0]}: ")
    assert words in message
    assert message.count("\n") == 1
    assert "Traceback" not in message


def test_traceback_is_there_on_request() -> None:
    with pytest.raises(FileNotFoundError):
        main(["--traceback", "config", "check", "nowhere.yaml"])


def test_config_check_lists_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "config/config.yaml", "config/scales/smoke.yaml"]) == 0
    text = capsys.readouterr().out
    assert "scale smoke: 9 benchmarks" in text
    assert "vcc-2-8-test: vcc-2-8, weights of none, 1 seed" in text


def test_null_world_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "s.yaml"
    settings.write_text("world: null\n")
    assert main(["world", "--config", str(settings), "--out", str(tmp_path / "w")]) == 2
    assert "key 'world': found null" in capsys.readouterr().err


def test_every_verb_has_help() -> None:
    parser = build_parser()
    verbs = next(action for action in parser._actions if action.dest == "name")
    assert isinstance(verbs.choices, dict)
    for name in verbs.choices:
        with pytest.raises(SystemExit) as caught:
            parser.parse_args([name, "--help"])
        assert caught.value.code == 0

"""docs/library.md: every snippet runs, on small weights in the layouts and places that the page names."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from planning import ROOT

from visiontokens.cli import main
from visiontokens.models import tiny

PAGE = (ROOT / "docs/library.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```(python|sh)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything the page names; images have 576 patches, the decoder 4 layers."""
    monkeypatch.syspath_prepend(ROOT / "tests/unit")
    import checkpoints
    import tiny_home

    wide = tiny.TowerDims(hidden=16, layers=3, heads=2, mlp=32, image_size=96)
    deep = tiny.LlmDims(hidden=16, layers=4, heads=2, kv_heads=2, mlp=32, max_positions=2048)
    monkeypatch.setattr(tiny_home, "SMOKE_TOWER", wide)
    monkeypatch.setattr(tiny_home, "SMOKE_LLM", deep)
    home = tiny_home.make_home(tmp_path / "home", ("none", "stf_mbtf"))
    folder = tmp_path / "weights"
    shutil.copytree(tiny_home.weights(home), folder / "llava-1.5-7b-hf")
    tower = checkpoints.clip(home, folder / "clip-vit-large-patch14-336")
    checkpoints.official(home, folder / "llava-v1.5-7b", tower=False, binary=True)
    checkpoints.official(home, folder / "LLaVA-STF", "stf_mbtf")
    name_tower(folder / "LLaVA-STF")
    checkpoints.projector(home, folder / "projector").rename(folder / "mm_projector.bin")
    shutil.copytree(home / "llm.gone", folder / "vicuna")
    shutil.copy(home / "image.png", tmp_path / "photo.png")
    monkeypatch.setattr("visiontokens.models.convert.settings.CLIP_L", small_clip(tower))
    monkeypatch.setattr("visiontokens.models.convert.read.CLIP_L", small_clip(tower))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small_clip(tower: Path) -> dict[str, object]:
    """Return the settings of the small tower, which stands where CLIP ViT-L/14-336 would."""
    from transformers import CLIPVisionConfig

    config = CLIPVisionConfig.from_pretrained(tower)
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    return {key: getattr(config, key) for key in (*keys, "projection_dim", "hidden_act")}


def name_tower(folder: Path) -> None:
    """Name the tower in an official `config.json`, as releases do."""
    path = folder / "config.json"
    path.write_text(
        path.read_text().replace('"mm_vision_tower": ""', '"mm_vision_tower": "openai/clip-vit-large-patch14-336"')
    )


def test_every_snippet_runs(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {kind for kind, _ in SNIPPETS} == {"python", "sh"}
    names: dict[str, object] = {}
    for kind, body in SNIPPETS:
        if kind == "python":
            exec(compile(body, "docs/library.md", "exec"), names)
            continue
        for line in body.splitlines():
            words = shlex.split(line)
            assert words[0] == "visiontokens"
            assert main(words[1:]) == 0, f"{line}\n{capsys.readouterr().err}"
    out = capsys.readouterr().out
    assert "144 of 576 vision tokens per layer" in out
    assert "stf -> ours" in out
    assert "name='avgpool' params={'window': 2}" in out
    card = (places / "weights/llava-7b/README.md").read_text()
    assert "Llama 2 Community License" in card
    assert "| of them read by an average decoder layer | 576.0 |" in card

"""The README block is generated between its markers."""

import pytest
from synthetic_results import write_results

from visiontokens.config import parse_config
from visiontokens.provenance import write_json
from visiontokens.report import readme as module


def test_the_block_is_replaced_and_the_rest_stays(tmp_path, monkeypatch):
    config = parse_config({"scale": "mini"}, "test")
    results = write_results(tmp_path / "results/mini", only=["none", "stf", "stf-mbtf"])
    run = {"date": "2026-01-01", "commit": "abc1234", "processor": "CPU", "cores": 2}
    write_json(results / "predictions/none/seed0/record.json", {"run": run})
    (results / "paper/figures").mkdir(parents=True)
    for name in module.FIGURES:
        (results / f"paper/figures/{name}.png").write_bytes(b"png")
    monkeypatch.setattr(type(config), "results_dir", property(lambda self: results))
    readme = tmp_path / "README.md"
    readme.write_text(f"top\n{module.BEGIN}\nold\n{module.END}\nbottom\n")
    for _ in range(2):
        module.update_readme(config, readme, tmp_path / "docs/figures")
    text = readme.read_text()
    assert text.startswith("top\n") and text.endswith("\nbottom\n") and "\nold\n" not in text
    assert "abc1234" in text and "| LLaVA-1.5, all tokens |" in text and "(docs/figures/pareto.png)" in text
    assert (tmp_path / "docs/figures/pareto.png").read_bytes() == b"png"


def test_missing_markers_are_an_error(tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(ValueError, match=r"README\.md: expected the markers"):
        module.update_readme(parse_config({}, "test"), tmp_path / "README.md", tmp_path)

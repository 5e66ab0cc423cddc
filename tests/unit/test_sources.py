"""The code hash of a rule: follows imports, sees edits that matter, ignores those that do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visiontokens import sources


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package: a imports b inside a function; c stands alone; config.x is left out."""
    root = tmp_path / "visiontokens"
    for name, text in {
        "__init__.py": "",
        "a.py": "def f():\n    from visiontokens.sub import b\n    return b.X\n",
        "sub/__init__.py": "",
        "sub/b.py": "from visiontokens.config import x\nX = 1\n",
        "c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import visiontokens.a\n",
        "config/__init__.py": "",
        "config/x.py": "Y = 1\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(sources, "ROOT", root)
    return root


def hash_after(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    sources.imports.cache_clear()
    sources._code_hash.cache_clear()
    return sources.fingerprint(["a"])


def test_closure_follows_imports_in_functions_but_not_for_types_or_settings(package: Path) -> None:
    assert sources.closure(["a"]) == {"a", "sub", "sub.b"}
    assert sources.closure(["c"]) == {"c"}


def test_hash_sees_code_of_imported_modules_only(package: Path) -> None:
    before = sources.fingerprint(["a"])
    assert hash_after(package / "sub" / "b.py", "from visiontokens.config import x\nX = 2\n") != before
    now = sources.fingerprint(["a"])
    assert hash_after(package / "c.py", "Z = 3\n") == now
    assert hash_after(package / "config" / "x.py", "Y = 3\n") == now


def test_hash_ignores_comments_docstrings_and_layout(package: Path) -> None:
    before = sources.fingerprint(["a"])
    text = (
        '"""Words."""\n\ndef f():\n    """More."""\n    # why\n    from visiontokens.sub import b\n\n    return (b.X)\n'
    )
    assert hash_after(package / "a.py", text) == before


def test_imports_of_a_notebook_are_those_of_its_code_cells(package: Path, tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["from visiontokens import c"]},
        {"cell_type": "code", "source": ["import visiontokens.a\n", "x = 1"]},
        {"cell_type": "code", "source": "from visiontokens.sub.b import X"},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert sources.imports(tmp_path / "n.ipynb") == {"a", "sub.b"}


def test_further_files_count(package: Path, tmp_path: Path) -> None:
    file = tmp_path / "n.txt"
    file.write_text("1", encoding="utf-8")
    one = sources.fingerprint(["c"], [file])
    file.write_text("2", encoding="utf-8")
    assert sources.fingerprint(["c"], [file]) != one


def test_a_missing_module_is_named(package: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"visiontokens\.nothing"):
        sources.closure(["nothing"])


def test_every_shipped_method_has_its_module() -> None:
    for path in Path("config/methods").glob("*.yaml"):
        assert sources.method_module(path.stem).startswith("compress.")


def test_an_unregistered_method_is_reported(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("name: nobody", encoding="utf-8")
    with pytest.raises(ValueError, match=r"odd\.yaml.*registers 'nobody'"):
        sources.method_module("odd", tmp_path)

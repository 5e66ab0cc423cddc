"""Which code a workflow rule runs, as one hash: of the modules an entry point imports, directly or not.

The hash ignores comments, docstrings and layout, so that only edits that can change a result re-run a rule.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import yaml

PACKAGE = "visiontokens"
ROOT = Path(__file__).parent
SETTINGS = ("config", "provenance", "seals", "sources")
"""Packages left out: what they decide reaches a rule as parameters, and a new setting must not re-run everything."""


def fingerprint(modules: Iterable[str], files: Iterable[str | Path] = ()) -> str:
    """Return a short hash of the code of `modules` and all they import from this package, and of `files`' bytes.

    Args:
        modules: dotted names inside the package, without the package's own name, e.g. `train.stages`.
        files: further files, e.g. a notebook.

    Raises:
        FileNotFoundError: no such module or file.
    """
    digest = hashlib.sha256()
    for name in sorted(closure(modules)):
        digest.update(f"{name}:{_code_hash(_path(name))}\n".encode())
    for file in sorted(map(Path, files)):
        digest.update(f"{file}:".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def assets(package: str) -> str:
    """Return a short hash of what lies in a package's folder beside Python: templates, styles, scripts.

    Args:
        package: dotted name inside this package, e.g. `report.site`.
    """
    folder = ROOT.joinpath(*package.split("."))
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"})
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}:".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def closure(modules: Iterable[str]) -> set[str]:
    """Return `modules` and every module of this package that they import, also inside functions.

    A package stands for its `__init__`; importing a submodule runs the packages above it.

    Raises:
        FileNotFoundError: no such module.
    """
    found: set[str] = set()
    queue = list(modules)
    while queue:
        name = queue.pop()
        if name in found or name.split(".")[0] in SETTINGS:
            continue
        found.add(name)
        queue += [parent for parent in _parents(name) if parent not in found]
        queue += [other for other in imports(_path(name)) if other not in found]
    return found


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the modules of this package that a file or notebook imports, as dotted names without the package."""
    return frozenset(_imports(ast.parse(_source(path), str(path))))


def _source(path: Path) -> str:
    """Return Python text, or the code cells of a notebook in order."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = (cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
    return "\n".join("".join(cell["source"]) for cell in cells)


def _imports(node: ast.AST) -> Iterator[str]:
    prefix = f"{PACKAGE}."
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name.removeprefix(prefix) for alias in node.names if alias.name.startswith(prefix))
    elif isinstance(node, ast.ImportFrom) and (node.module == PACKAGE or (node.module or "").startswith(prefix)):
        base = (node.module or "").removeprefix(PACKAGE).removeprefix(".")
        for alias in node.names:
            name = f"{base}.{alias.name}" if base else alias.name
            if _exists(name):
                yield name
            elif base:
                yield base
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _candidates(name: str) -> tuple[Path, Path]:
    stem = ROOT.joinpath(*name.split("."))
    return stem.with_name(f"{stem.name}.py"), stem / "__init__.py"


def _exists(name: str) -> bool:
    return any(path.is_file() for path in _candidates(name))


def _path(name: str) -> Path:
    for path in _candidates(name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{_candidates(name)[0]}: no module '{PACKAGE}.{name}'")


@cache
def _code_hash(path: Path) -> str:
    """Return the hash of a file's syntax tree without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [n for n in node.body if not _is_text(n)]
    return hashlib.sha256(_dump(tree).encode()).hexdigest()


def _dump(node: object) -> str:
    """Write a syntax tree as text that is the same under every Python version (`ast.dump` is not)."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({','.join(f'{name}={_dump(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    return repr(node)


def _is_text(node: ast.stmt) -> bool:
    """Tell whether a statement is a bare string (a docstring, also one below an attribute)."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def method_module(method: str, folder: Path = Path("config/methods")) -> str:
    """Return the module, e.g. `compress.stf`, that registers the compressor which `<folder>/<method>.yaml` names.

    Raises:
        FileNotFoundError: no such description.
        ValueError: no module registers the compressor.
    """
    name = yaml.safe_load((folder / f"{method}.yaml").read_text(encoding="utf-8"))["name"]
    for path in sorted((ROOT / "compress").glob("*.py")):
        if f'@register("{name}")' in path.read_text(encoding="utf-8"):
            return f"compress.{path.stem}"
    raise ValueError(f"{folder / method}.yaml: no module in {ROOT / 'compress'} registers '{name}'")


def reads_class_token(method: str, folder: Path = Path("config/methods")) -> bool:
    """Tell whether the compressor of `<folder>/<method>.yaml` says of which tower levels it reads the class token.

    Read off its module's text: planning a workflow must not load torch. Errors: see `method_module`.
    """
    tree = ast.parse(_path(method_module(method, folder)).read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == "class_levels" for node in ast.walk(tree))

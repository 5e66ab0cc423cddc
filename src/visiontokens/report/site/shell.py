"""The frame of every page: navigation, style, and where the numbers come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2

from visiontokens.provenance import atomic_write

HERE = Path(__file__).parent
PAGES = {
    "index": "Overview",
    "leaderboard": "Leaderboard",
    "gallery": "Tables and figures",
    "methods": "Methods",
    "explorer": "Token explorer",
}
"""Pages of the navigation, by the name of their file."""


@dataclass(frozen=True)
class Shell:
    """Writes pages into the folder of the site; `facts` are in every page's footer."""

    out: Path
    scale: str
    facts: dict[str, str]

    @cached_property
    def _environment(self) -> jinja2.Environment:
        return jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )

    def page(self, name: str, title: str, template: str, **context: Any) -> Path:
        """Write `<out>/<name>.html` from a template; `name` may lie in a folder, whose links lead up."""
        path = self.out / f"{name}.html"
        root = "../" * name.count("/")
        frame = {"here": name.partition("/")[0], "pages": PAGES, "scale": self.scale, "facts": self.facts}
        found = self._environment.get_template(f"{template}.html.jinja")
        text = found.render(title=title, root=root, **frame, **context)
        with atomic_write(path) as handle:
            handle.write(text)
        return path

    def script(self, name: str, variable: str, key: str, value: object) -> Path:
        """Write `<out>/<name>.js`, which puts a value under a key of a global: data that a page reads from a disk."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        with atomic_write(self.out / f"{name}.js") as handle:
            handle.write(f"(window.{variable} ??= {{}})[{json.dumps(key)}] = {text};\n")
        return self.out / f"{name}.js"


def copy(source: Path, target: Path) -> Path:
    """Copy a file's bytes, atomically."""
    with atomic_write(target, "wb") as handle:
        handle.write(source.read_bytes())
    return target

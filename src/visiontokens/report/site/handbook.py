"""The pages of the methods, rendered from `docs/methods.md` and `docs/methods/`, with their figures."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from visiontokens.compress.base import MethodSpec, lookup
from visiontokens.report.site.shell import Shell, copy

_LINK = re.compile(r'(?P<attribute>href|src)="(?P<target>[^"]+)"')
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def to_html(text: str) -> str:
    """Return Markdown as HTML; wide tables scroll by themselves."""
    renderer = IPythonRenderer(escape=False, exclude_anchor_links=True)
    html: str = MarkdownWithMath(renderer=renderer).render(_COMMENT.sub("", text))
    scroll = '<div class="scroll" tabindex="0" role="region" aria-label="table">'
    return html.replace("<table>", f"{scroll}<table>").replace("</table>", "</table></div>")


def relinked(html: str, target: Callable[[str], str]) -> str:
    """Return HTML whose relative links lead where `target` says; links to "" become plain text."""

    def replace(match: re.Match[str]) -> str:
        link = match["target"]
        return match[0] if re.match(r"[a-z]+:|#", link) else f'{match["attribute"]}="{target(link)}"'

    html = _LINK.sub(replace, html)
    return re.sub(r'<a href="">(.*?)</a>', r"\1", html, flags=re.DOTALL)


def page_names(docs: Path, config: Path) -> dict[str, str]:
    """Return the page of every method file, relative to the site: that of its name, or of its module."""
    found = {}
    for path in sorted((config / "methods").glob("*.yaml")):
        name = MethodSpec.from_yaml(path).name
        module = lookup(name).__module__.rpartition(".")[2]
        for stem in (name, module):
            if (docs / "methods" / f"{stem}.md").is_file():
                found[path.stem] = f"methods/{stem}.html"
                break
    return found


def write_handbook(shell: Shell, docs: Path) -> list[str]:
    """Write `methods.html` and a page per method; return the names of the latter."""

    def target_from(folder: str) -> Callable[[str], str]:
        def target(link: str) -> str:
            plain, _, mark = link.partition("#")
            path = posixpath.normpath(posixpath.join(folder, plain))
            up = "../" if folder else ""
            if path.startswith("figures/") and (docs / path).is_file():
                copy(docs / path, shell.out / "methods" / path)
                return f"{up}methods/{path}"
            if re.fullmatch(r"methods(/\w+)?\.md", path) and (docs / path).is_file():
                return f"{up}{path.removesuffix('.md')}.html{'#' + mark if mark else ''}"
            return ""

        return target

    names = [path.stem for path in sorted((docs / "methods").glob("*.md"))]
    body = relinked(to_html((docs / "methods.md").read_text(encoding="utf-8")), target_from(""))
    shell.page("methods", "Methods", "document", body=body, others=[], current="")
    for name in names:
        text = (docs / "methods" / f"{name}.md").read_text(encoding="utf-8")
        title = text.partition("\n")[0].lstrip("# ")
        body = relinked(to_html(text), target_from("methods"))
        shell.page(f"methods/{name}", title, "document", body=body, others=names, current=name)
    return names

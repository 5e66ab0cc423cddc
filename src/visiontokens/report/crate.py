"""What archives read: `ro-crate-metadata.json` and `.zenodo.json`, made from the project's own files.

The crate follows RO-Crate 1.1 and the profile Workflow RO-Crate 1.0: the Snakefile is the main entity. Nothing is typed
here that a file of the project says: title, people, papers and date are those of CITATION.cff, the description is that
of pyproject.toml, the parts are those that README.md lists, the results are those that git tracks.
"""

from __future__ import annotations

import json
import mimetypes
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from visiontokens import __version__
from visiontokens.provenance import atomic_write, tracked

Entity = dict[str, Any]
CRATE = "https://w3id.org/ro/crate/1.1"
PROFILES = (CRATE, "https://w3id.org/workflowhub/workflow-ro-crate/1.0")
WORKFLOW_PROFILE = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
LANGUAGE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
FILES = ("ro-crate-metadata.json", ".zenodo.json")
"""What is generated; Zenodo reads the second one in place of CITATION.cff, whose references it does not take over."""
FORMATS = {".ipynb": "application/x-ipynb+json", ".md": "text/markdown", ".cff": "application/yaml"}


@dataclass(frozen=True)
class Project:
    """What the project's files say about it.

    Attributes:
        root: the checkout.
        citation: CITATION.cff.
        description: one sentence.
        licence: SPDX identifier.
        parts: (path, what it is) of the files and folders that README.md lists.
        results: tracked files below `results/`.
    """

    root: Path
    citation: Mapping[str, Any]
    description: str
    licence: str
    parts: tuple[tuple[str, str], ...]
    results: tuple[str, ...]

    @property
    def papers(self) -> list[Mapping[str, Any]]:
        """The papers that are reproduced, as CITATION.cff lists them."""
        return list(self.citation["references"])

    @property
    def people(self) -> list[str]:
        """Authors in the form `Family, Given`, or the name of a group."""
        return [name_of(person) for person in self.citation["authors"]]


def read_project(root: Path = Path()) -> Project:
    """Read the files of a checkout.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: they contradict one another; the message names file, key, and what was found and expected.
    """
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for key, expected in (("version", __version__), ("license", project["license"])):
        if citation.get(key) != expected:
            raise ValueError(
                f"{root / 'CITATION.cff'}: key '{key}': found {citation.get(key)!r}, expected {expected!r}"
            )
    parts = tuple(listed_parts((root / "README.md").read_text(encoding="utf-8")))
    for path, _ in parts:
        if not (root / path).exists():
            raise FileNotFoundError(f"{root / 'README.md'}: lists {path}, which is not there")
    results = tuple(tracked("results"))
    return Project(root, citation, project["description"], project["license"], parts, results)


def listed_parts(readme: str) -> Iterator[tuple[str, str]]:
    """Yield (path, what it is) of the README's block "Where things are".

    Raises:
        ValueError: there is no such block.
    """
    block = re.search(r"^## Where things are\n+```\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    if block is None:
        raise ValueError("README.md: expected a block under '## Where things are', found none")
    for line in block[1].splitlines():
        paths, _, what = re.sub(r" {2,}", "\t", line.strip(), count=1).partition("\t")
        for path in paths.split():
            yield path, what


def name_of(person: Mapping[str, Any]) -> str:
    """Return a person of CITATION.cff as `Family, Given`, a group by its name."""
    return str(person["name"]) if "name" in person else f"{person['family-names']}, {person['given-names']}"


def arxiv(paper: Mapping[str, Any]) -> str:
    """Return a paper's arXiv identifier without its prefix."""
    return next(str(i["value"]) for i in paper["identifiers"] if str(i["value"]).startswith("arXiv:"))[len("arXiv:") :]


def crate(project: Project) -> dict[str, Any]:
    """Return the crate as JSON-LD: one flat graph of entities that refer to one another by `@id`."""
    parts = [*_workflow(project), *_parts(project)]
    root: Entity = {
        "@id": "./",
        "@type": "Dataset",
        "name": project.citation["title"],
        "description": project.description,
        "datePublished": str(project.citation["date-released"]),
        "version": __version__,
        "license": _ref(_licence(project)),
        "keywords": ", ".join(project.citation["keywords"]),
        "author": [_ref(person) for person in _authors(project)],
        "citation": [_ref(paper) for paper in _papers(project)],
        "mainEntity": {"@id": "Snakefile"},
        "hasPart": [_ref(part) for part in parts],
    }
    descriptor: Entity = {
        "@id": FILES[0],
        "@type": "CreativeWork",
        "about": _ref(root),
        "conformsTo": [{"@id": profile} for profile in PROFILES],
    }
    context = [_language(project), _licence(project), *_authors(project), *_papers(project)]
    return {"@context": f"{CRATE}/context", "@graph": [descriptor, root, *parts, *context]}


def _workflow(project: Project) -> Iterator[Entity]:
    """Yield the Snakefile and the rule files that it includes."""
    rules = sorted(path.relative_to(project.root).as_posix() for path in project.root.glob("workflow/rules/*.smk"))
    language = _ref(_language(project))
    yield {
        "@id": "Snakefile",
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "name": project.citation["title"],
        "description": dict(project.parts)["Snakefile"],
        "conformsTo": {"@id": WORKFLOW_PROFILE},
        "programmingLanguage": language,
        "version": __version__,
        "license": _ref(_licence(project)),
        "creator": [_ref(person) for person in _authors(project)],
        "dateCreated": str(project.citation["date-released"]),
        "hasPart": [{"@id": rule} for rule in rules],
    }
    for rule in rules:
        kinds = ["File", "SoftwareSourceCode"]
        yield {"@id": rule, "@type": kinds, "name": Path(rule).name, "programmingLanguage": language}


def _parts(project: Project) -> Iterator[Entity]:
    """Yield the files and folders that the README lists, README, licence and the results."""
    for path, what in project.parts:
        folder = (project.root / path).is_dir()
        if path == "Snakefile":
            continue
        yield {"@id": path, "@type": "Dataset", "description": what} if folder else _file(path, what)
    yield _file("README.md", "What this is, how to run it, what came out") | {"about": {"@id": "./"}}
    yield _file("LICENSE", "Terms of use")
    yield _file("CITATION.cff", "How to cite")
    for path in project.results:
        yield _file(path, "Columns and keys are explained in results/README.md")


def _file(path: str, what: str) -> Entity:
    suffix = Path(path).suffix
    kind = FORMATS.get(suffix) or mimetypes.guess_type(path)[0] or "text/plain"
    return {"@id": path, "@type": "File", "name": path, "description": what, "encodingFormat": kind}


def _language(project: Project) -> Entity:
    """Return the workflow language, with the version that the Snakefile asks for."""
    asked = re.search(r'min_version\("([\d.]+)"\)', (project.root / "Snakefile").read_text(encoding="utf-8"))
    url = "https://snakemake.readthedocs.io"
    return {
        "@id": LANGUAGE, "@type": "ComputerLanguage", "name": "Snakemake", "identifier": {"@id": url},
        "url": {"@id": url}, "version": f">={asked[1]}" if asked else "",
    }  # fmt: skip


def _licence(project: Project) -> Entity:
    url = f"https://spdx.org/licenses/{project.licence}"
    text = (project.root / "LICENSE").read_text(encoding="utf-8").split("\n\n")[0]
    return {"@id": url, "@type": "CreativeWork", "name": " ".join(text.split()), "identifier": project.licence}


def _authors(project: Project) -> list[Entity]:
    kinds = ["Organization" if "name" in person else "Person" for person in project.citation["authors"]]
    names = zip(project.people, kinds, strict=True)
    return [{"@id": f"#author-{n}", "@type": kind, "name": name} for n, (name, kind) in enumerate(names, 1)]


def _papers(project: Project) -> list[Entity]:
    return [
        {
            "@id": f"https://arxiv.org/abs/{arxiv(paper)}",
            "@type": "ScholarlyArticle",
            "name": paper["title"],
            "author": "; ".join(name_of(person) for person in paper["authors"]),
            "datePublished": str(paper["year"]),
        }
        for paper in project.papers
    ]


def _ref(entity: Entity) -> Entity:
    return {"@id": entity["@id"]}


def zenodo(project: Project) -> dict[str, Any]:
    """Return the metadata of a deposit at Zenodo, in the keys of its deposition interface."""
    return {
        "title": project.citation["title"],
        "upload_type": "software",
        "description": project.description,
        "version": __version__,
        "publication_date": str(project.citation["date-released"]),
        "creators": [{"name": name} for name in project.people],
        "license": project.licence,
        "access_right": "open",
        "keywords": list(project.citation["keywords"]),
        "related_identifiers": [
            {"identifier": f"arXiv:{arxiv(paper)}", "relation": "cites", "resource_type": "publication-article"}
            for paper in project.papers
        ],
    }


def texts(root: Path = Path()) -> dict[str, str]:
    """Return the generated files' texts by name.

    Raises:
        FileNotFoundError, ValueError: see `read_project`.
    """
    project = read_project(root)
    made = (crate(project), zenodo(project))
    return {name: json.dumps(data, indent=2, ensure_ascii=False) + "\n" for name, data in zip(FILES, made, strict=True)}


def write_metadata(root: Path = Path()) -> list[Path]:
    """Write both files into a checkout and return their paths."""
    for name, text in texts(root).items():
        with atomic_write(root / name) as handle:
            handle.write(text)
    return [root / name for name in FILES]

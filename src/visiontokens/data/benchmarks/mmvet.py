"""MM-Vet: open questions that need several capabilities at once; a language model grades the answers (Yu et al., 2023).

Files: `mm-vet.json` (id -> image name, question, answer, capabilities), images `images/`, both here or in the archive's
folder `mm-vet`. In answers `<AND>` joins what
must all be said, `<OR>` what is right alone. Where only LLaVA's question file `llava-mm-vet.jsonl` is at hand, released
grades can be averaged, but nothing can be graded. `judge_prompt.txt` beside them replaces our grading instructions, for
instance by the text of the official script.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visiontokens.data.benchmarks.base import BenchmarkError, Example, read_jsonl, read_object, require

LISTING = "llava-mm-vet.jsonl"
PROMPT = "judge_prompt.txt"
PREFIX = "v1_"
"""Before the number in MM-Vet's ids; LLaVA's files have the number alone."""


def load(root: Path) -> list[Example]:
    """Read MM-Vet's questions below `root`.

    Raises:
        FileNotFoundError: neither question file is there.
        BenchmarkError: a record lacks a key, or its capabilities are no list of texts.
    """
    folder = "mm-vet/" if (root / "mm-vet" / "mm-vet.json").is_file() else ""
    path = root / f"{folder}mm-vet.json"
    if not path.is_file():
        if (root / LISTING).is_file():
            return [_listed(record, f"{root / LISTING}:{n}") for n, record in enumerate(read_jsonl(root / LISTING), 1)]
        raise FileNotFoundError(f"{root}: neither mm-vet.json nor {LISTING} is there")
    instructions = path.with_name(PROMPT)
    rule = {"instructions": instructions.read_text(encoding="utf-8")} if instructions.is_file() else {}
    content = read_object(path)
    if not isinstance(content, dict):
        raise BenchmarkError(f"{path}: found {type(content).__name__}, expected an object from id to question")
    images = f"{folder}images"
    return [_example(key, record, f"{path}: question id {key!r}", images, rule) for key, record in content.items()]


def _example(key: str, record: dict[str, Any], where: str, images: str, rule: dict[str, str]) -> Example:
    require(record, ("imagename", "question", "answer", "capability"), where)
    capabilities = record["capability"]
    if not isinstance(capabilities, list) or not all(isinstance(name, str) for name in capabilities):
        raise BenchmarkError(f"{where}: found capability {capabilities!r}, expected a list of texts")
    return Example(
        question_id=key,
        image=f"{images}/{record['imagename']}",
        prompt=str(record["question"]),
        group=str(record["imagename"]),
        meta={"answer": str(record["answer"]), "capabilities": tuple(sorted(set(capabilities))), **rule},
    )


def _listed(record: dict[str, Any], where: str) -> Example:
    """Return a question of LLaVA's file, without truth and capabilities."""
    require(record, ("question_id", "image", "text"), where)
    key = f"{PREFIX}{record['question_id']}"
    return Example(key, f"images/{record['image']}", str(record["text"]), str(record["image"]), {"capabilities": ()})

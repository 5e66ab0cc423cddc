"""MME: fourteen subtasks, two yes/no questions per image (Fu et al., 2023).

Files: `MME_Benchmark_release_version/<category>/`, or below `MME_Benchmark/` in it, as in the hub's archive; five
categories keep `images/` and `questions_answers_YN/` apart, the others mix images and texts. Each text has two lines,
question TAB answer. For scoring alone the evaluation tool's text files (`Your_Results/<category>.txt`: image, question,
answer) or the texts without images do as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from visiontokens.data.benchmarks import prompts
from visiontokens.data.benchmarks.base import BenchmarkError, Example
from visiontokens.provenance import read_text

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
RELEASE = "MME_Benchmark_release_version"
INNER = "MME_Benchmark"
IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg")


def load(root: Path) -> list[Example]:
    """Read every MME category found below `root`; ids are `<image path>#<line>`, categories in the official order.

    LLaVA's id is the image path alone and so occurs twice; it is kept as `official_id`.

    Raises:
        FileNotFoundError: no category folder is there, or a text has no image.
        BenchmarkError: a text does not hold two lines `question TAB Yes|No`.
    """
    below = (root / RELEASE / INNER, root / RELEASE, root / INNER, root)
    for base in below:
        categories = [name for name in PERCEPTION + COGNITION if (base / name).is_dir()]
        if categories:
            prefix = f"{INNER}/" if base.name == INNER and base.parent.name == RELEASE else ""
            return [example for category in categories for example in _category(base, category, prefix)]
    for folder in (root, root / "Your_Results", root / "eval_tool" / "Your_Results"):
        files = text_files(folder)
        if files:
            return tool_examples(files)
    raise FileNotFoundError(
        f"{root / RELEASE}: none of MME's category folders ({', '.join(PERCEPTION[:3])}, ...) is there, "
        f"nor the evaluation tool's {root / 'Your_Results'}"
    )


def _category(base: Path, category: str, prefix: str) -> list[Example]:
    """Return the examples of one category, images in sorted order, lines in file order."""
    folder = base / category
    split = (folder / "questions_answers_YN").is_dir()
    texts = folder / "questions_answers_YN" if split else folder
    images = folder / "images" if split else folder
    listed = images.iterdir() if images.is_dir() else ()
    by_stem = {path.stem: path.name for path in listed if path.suffix.lower() in IMAGE_SUFFIXES}
    examples = []
    for text in sorted(texts.glob("*.txt")):
        if by_stem and text.stem not in by_stem:
            raise FileNotFoundError(f"{images}: no image for {text.name}")
        name = by_stem.get(text.stem, f"{text.stem}.jpg")  # no image at all: the texts are there to score with
        image = (images / name).relative_to(base).as_posix()
        examples += _pair(image, prefix, category, _questions(text))
    return examples


def _pair(image: str, prefix: str, category: str, questions: list[tuple[str, str]]) -> list[Example]:
    """Return the two examples of one image."""
    return [
        Example(
            question_id=f"{image}#{line}",
            image=f"{prefix}{image}",
            prompt=prompts.short_answer(strip_suffix(question)),
            group=image,
            meta={"label": label.lower(), "category": category, "official_id": image},
        )
        for line, (question, label) in enumerate(questions, 1)
    ]


def text_files(path: Path) -> dict[str, Path]:
    """Return category -> file of the evaluation tool's text files: those in a folder, or one file; none is no error."""
    if path.is_file():
        return {path.stem: path} if path.suffix == ".txt" and path.stem in PERCEPTION + COGNITION else {}
    return {name: path / f"{name}.txt" for name in PERCEPTION + COGNITION if (path / f"{name}.txt").is_file()}


def result_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (place, cells) of the tool's lines: image, question, label and, in results, the answer.

    Raises:
        BenchmarkError: a line has fewer than three cells, or its label is not yes or no.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if line.strip():
            cells = line.split("\t")
            if len(cells) < 3 or cells[2].strip().lower() not in ("yes", "no"):
                raise BenchmarkError(f"{path}:{number}: found {line!r}, expected image TAB question TAB Yes or No")
            yield f"{path}:{number}", cells


def tool_examples(files: Mapping[str, Path]) -> list[Example]:
    """Return the questions of the tool's text files (see `text_files`)."""
    return [example for category, file in files.items() for example in _tool_category(category, file)]


def _tool_category(category: str, path: Path) -> list[Example]:
    """Return the examples of one of the tool's text files; two lines in a row are about one image."""
    rows = [cells for _, cells in result_lines(path)]
    examples: list[Example] = []
    for first, second in zip(rows[::2], rows[1::2], strict=False):
        if first[0] != second[0]:
            raise BenchmarkError(f"{path}: found {first[0]!r} before {second[0]!r}, expected two lines an image")
        examples += _pair(f"{category}/{first[0]}", "", category, [(c[1], c[2].strip()) for c in (first, second)])
    if len(rows) % 2:
        raise BenchmarkError(f"{path}: found {len(rows)} lines, expected two an image")
    return examples


def strip_suffix(question: str) -> str:
    """Remove MME's own "Please answer yes or no." (one or two spaces before it), as LLaVA's question file does."""
    return question.strip().removesuffix(prompts.MME_SUFFIX).rstrip()


def _questions(path: Path) -> list[tuple[str, str]]:
    """Return the two (question, answer) pairs of one text file."""
    pairs = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        question, tab, answer = line.rpartition("\t")
        if not tab or answer.strip().lower() not in ("yes", "no"):
            raise BenchmarkError(f"{path}:{number}: found {line!r}, expected question TAB Yes or No")
        pairs.append((question, answer.strip()))
    if len(pairs) != 2:
        raise BenchmarkError(f"{path}: found {len(pairs)} questions, expected 2")
    return pairs

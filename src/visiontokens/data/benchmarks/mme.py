"""MME: fourteen subtasks, two yes/no questions per image (Fu et al., 2023).

Files: `MME_Benchmark_release_version/<category>/`, or below `MME_Benchmark/` in it, as in the hub's archive; five
categories keep `images/` and `questions_answers_YN/` apart, the others mix images and texts. Each text has two lines,
question TAB answer.
"""

from __future__ import annotations

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
    base = root / RELEASE / INNER if (root / RELEASE / INNER).is_dir() else root / RELEASE
    categories = [name for name in PERCEPTION + COGNITION if (base / name).is_dir()]
    if not categories:
        raise FileNotFoundError(f"{base}: none of MME's category folders ({', '.join(PERCEPTION[:3])}, ...) is there")
    return [example for category in categories for example in _category(base, category)]


def _category(base: Path, category: str) -> list[Example]:
    """Return the examples of one category, images in sorted order, lines in file order."""
    folder = base / category
    split = (folder / "questions_answers_YN").is_dir()
    texts = folder / "questions_answers_YN" if split else folder
    images = folder / "images" if split else folder
    by_stem = {path.stem: path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    examples = []
    for text in sorted(texts.glob("*.txt")):
        if text.stem not in by_stem:
            raise FileNotFoundError(f"{images}: no image for {text.name}")
        image = by_stem[text.stem].relative_to(base).as_posix()
        below_release = f"{INNER}/{image}" if base.name == INNER else image
        for line, (question, label) in enumerate(_questions(text), 1):
            examples.append(
                Example(
                    question_id=f"{image}#{line}",
                    image=below_release,
                    prompt=prompts.short_answer(strip_suffix(question)),
                    group=image,
                    meta={"label": label.lower(), "category": category, "official_id": image},
                )
            )
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

"""A figure that shows what is asked: samples of every benchmark with image, question and gold answer."""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from visiontokens.data.benchmarks import MAIN_BENCHMARKS, Benchmark, Example
from visiontokens.data.benchmarks.mmbench import ROTATION
from visiontokens.data.benchmarks.prompts import OPTION_LETTER, OPTION_LETTER_CN, SHORT_ANSWER, UNANSWERABLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "vqav2": "VQAv2", "gqa": "GQA", "vizwiz": "VizWiz", "scienceqa": "ScienceQA", "textvqa": "TextVQA", "pope": "POPE",
    "mme": "MME", "mmbench": "MMBench", "mmbench_cn": "MMBench-CN",
}  # fmt: skip
SORTED_BY = {
    "vqav2": "answer_type", "gqa": "structural", "vizwiz": "answer_type", "scienceqa": "topic", "textvqa": "",
    "pope": "label", "mme": "category", "mmbench": "category", "mmbench_cn": "l2_category",
}  # fmt: skip
"""Entry of the examples' meta over which each benchmark's samples are spread."""
CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "SimHei",
    "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "Arial Unicode MS", "Droid Sans Fallback",
)  # fmt: skip
"""Fonts with Chinese characters, in order of preference."""
_INSTRUCTIONS = frozenset({SHORT_ANSWER, OPTION_LETTER, OPTION_LETTER_CN, UNANSWERABLE})
_WRAP = 27  # characters a line beside an image
_WRAP_CN = 13
_CELL = (3.55, 1.62)  # inches: an image and the text to its right
_GAP = 0.08  # inches around an image
_NAME_WIDTH = 0.55  # inches, for the rotated benchmark names
_NOTE_STYLE: dict[str, Any] = {"rotation": 90, "va": "center", "ha": "center", "size": 5.5, "color": "#555555"}


class Sample(NamedTuple):
    """One cell: an image file, the question without its standing instruction, the gold answer."""

    image: Path
    question: str
    gold: str


def gold(meta: Any) -> str:
    """Return an example's gold answer; of ten human answers the commonest and how many gave it."""
    if "answers" in meta:
        answer, votes = Counter(meta["answers"]).most_common(1)[0]
        return f"{answer}  ({votes} of {len(meta['answers'])})"
    return str(meta.get("answer", meta.get("label")))


def spread(examples: list[Example], count: int, key: str) -> list[Example]:
    """Return `count` examples, evenly spaced after sorting by the entry `key` of their meta, no image twice."""
    ordered = sorted(examples, key=lambda example: str(example.meta.get(key, "")))
    chosen: dict[str, Example] = {}
    for i in range(count):
        start = (2 * i + 1) * len(ordered) // (2 * count)
        example = next((e for e in ordered[start:] if e.group not in chosen), None)
        if example is not None:
            chosen[example.group] = example
    return list(chosen.values())


def is_chinese(text: str) -> bool:
    """Return whether a text has Chinese characters."""
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def samples(benchmark: Benchmark, benchmarks_dir: Path, count: int, *, chinese: bool) -> list[Sample]:
    """Return samples with images, no rotations of MMBench; `chinese` allows questions in Chinese characters."""
    examples = [e for e in benchmark.read(benchmarks_dir) if e.image is not None]
    if benchmark.name.startswith("mmbench"):
        examples = [e for e in examples if int(e.question_id) < ROTATION]
    if not chinese:
        examples = [e for e in examples if not is_chinese(e.prompt)]
    out = []
    for example in spread(examples, count, SORTED_BY[benchmark.name]):
        lines = [line for line in example.prompt.split("\n") if line not in _INSTRUCTIONS]
        image = benchmarks_dir / benchmark.image_root / str(example.image)
        out.append(Sample(image, "\n".join(lines), gold(example.meta)))
    return out


def chinese_font() -> str | None:
    """Return the name of an installed font with Chinese characters, or None."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in CJK_FONTS if name in installed), None)


def contact_sheet(world_dir: Path, columns: int = 4) -> Figure:
    """Return a figure with `columns` samples of each image benchmark of a world.

    Without a Chinese font, MMBench-CN's row shows the English of its questions and says so.

    Raises:
        FileNotFoundError: the world is not complete.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    benchmarks_dir = Path(world_dir) / "benchmarks"
    size = _NAME_WIDTH + columns * _CELL[0], len(MAIN_BENCHMARKS) * _CELL[1]
    font = chinese_font()
    with rc_context({"font.family": ["DejaVu Sans", *([font] if font else [])]}):
        figure = Figure(figsize=size, dpi=150)
        for row, benchmark in enumerate(MAIN_BENCHMARKS.values()):
            glossed = benchmark.lang == "cn" and font is None
            shown = replace(MAIN_BENCHMARKS["mmbench"], name=benchmark.name) if glossed else benchmark
            top = size[1] - row * _CELL[1]
            middle = (0.17 / size[0], (top - _CELL[1] / 2) / size[1])
            figure.text(*middle, TITLES[benchmark.name], rotation=90, va="center", ha="center", size=11, weight="bold")
            if glossed:
                note = "asked in Chinese, shown in English (no Chinese font)"
                figure.text(0.36 / size[0], middle[1], "\n".join(textwrap.wrap(note, 28)), **_NOTE_STYLE)
            for column, sample in enumerate(samples(shown, benchmarks_dir, columns, chinese=font is not None)):
                corner = (_NAME_WIDTH + column * _CELL[0], top - _CELL[1])
                _draw(figure, corner, sample, _WRAP_CN if shown.lang == "cn" else _WRAP)
    return figure


def _draw(figure: Figure, corner: tuple[float, float], sample: Sample, wrap: int) -> None:
    """Fill the cell whose lower left corner (inches) is given: the image, then question (top) and answer (bottom)."""
    from PIL import Image

    width, height = figure.get_size_inches()
    side = _CELL[1] - 2 * _GAP
    bottom, text_left = corner[1] + _GAP, corner[0] + side + _GAP
    image_axes = figure.add_axes((corner[0] / width, bottom / height, side / width, side / height))
    with Image.open(sample.image) as image:
        image_axes.imshow(image.convert("RGB"), interpolation="nearest")
    image_axes.set_axis_off()
    lines = [part for line in sample.question.split("\n") for part in textwrap.wrap(line, wrap)]
    left = text_left / width
    figure.text(left, (bottom + side) / height, "\n".join(lines), va="top", size=8, linespacing=1.15)
    answer = "\n".join(textwrap.wrap(sample.gold, wrap))
    figure.text(left, bottom / height, answer, va="bottom", size=8.5, weight="bold", color="#0b5fa5")

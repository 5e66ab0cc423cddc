"""The words around a question: LLaVA-1.5's answer-format suffixes and layouts."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

SHORT_ANSWER = "Answer the question using a single word or phrase."
OPTION_LETTER = "Answer with the option's letter from the given choices directly."
OPTION_LETTER_CN = "请直接回答选项字母。"
UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."
OCR_PREFIX = "Reference OCR token: "
M4C_OCR_PREFIX = "OCR tokens: "
MME_SUFFIX = "Please answer yes or no."
MVBENCH_SYSTEM = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    "addresses the question.\n"
)
MVBENCH_OFFICIAL, MVBENCH_STF = "Only give the best option.", "Answer with one letter."
MVBENCH_ANSWER_PREFIX = "Best option:("
"""How the answer begins in MVBench's notebook, which puts the bracket before what the model goes on with."""


def short_answer(question: str) -> str:
    """Ask for a single word or phrase (VQAv2, GQA, POPE, MME)."""
    return f"{question}\n{SHORT_ANSWER}"


def short_or_unanswerable(question: str) -> str:
    """Ask for a short answer and allow 'Unanswerable' (VizWiz)."""
    return f"{question}\n{UNANSWERABLE}\n{SHORT_ANSWER}"


def short_with_ocr(question: str, tokens: Sequence[str]) -> str:
    """Ask for a short answer given OCR tokens (TextVQA); the line stays when there are no tokens."""
    return f"{question}\n{OCR_PREFIX}{', '.join(tokens)}\n{SHORT_ANSWER}"


def lettered(options: Sequence[str]) -> str:
    """Lay options out one a line: "A. first", "B. second", ..."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False))


def option_letter(question: str, lang: str = "en") -> str:
    """Ask for the letter of an option (ScienceQA, MMBench)."""
    return f"{question}\n{OPTION_LETTER_CN if lang == 'cn' else OPTION_LETTER}"


def bracketed(options: Sequence[str]) -> str:
    """Lay options out one a line: "(A) first", "(B) second", ..."""
    return "\n".join(f"({letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False))


def bracketed_choice(question: str, options: Sequence[str]) -> str:
    """Ask for a letter among bracketed options (MMMU).

    The empty lines of MMMU's `llava1.5.yaml` stand inside a quoted YAML text, where one of them means a plain line
    break; the one empty line that is left comes from the break behind the last option.
    """
    return f"{question}\n{bracketed(options)}\n\n{OPTION_LETTER}"


def mvbench_question(question: str, options: Sequence[str]) -> str:
    """Lay out a question of MVBench with its options, as both protocols do."""
    return f"Question: {question}\nOptions:\n{bracketed(options)}".rstrip()


def mvbench_official(question: str, options: Sequence[str]) -> str:
    """Ask in the words of MVBench's notebook; the answer goes on from `MVBENCH_ANSWER_PREFIX`."""
    return f"{MVBENCH_SYSTEM}{mvbench_question(question, options)}\n{MVBENCH_OFFICIAL}"


def mvbench_stf(question: str, options: Sequence[str]) -> str:
    """Ask in the words of LLaVA-STF's evaluation of MVBench."""
    return f"{mvbench_question(question, options)}\n{MVBENCH_STF}"


def bare_question(prompt: str) -> str:
    """Recover the question from a LLaVA prompt: its first line that is not an OCR line.

    LLaVA's released TextVQA and MME answers carry ids that are not unique; with the question they are.
    """
    lines = prompt.split("\n")
    if len(lines) > 1 and lines[0].startswith((OCR_PREFIX.rstrip(), M4C_OCR_PREFIX.rstrip())):
        return lines[1]
    return lines[0]

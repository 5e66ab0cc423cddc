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


def bare_question(prompt: str) -> str:
    """Recover the question from a LLaVA prompt: its first line that is not an OCR line.

    LLaVA's released TextVQA and MME answers carry ids that are not unique; with the question they are.
    """
    lines = prompt.split("\n")
    if len(lines) > 1 and lines[0].startswith((OCR_PREFIX.rstrip(), M4C_OCR_PREFIX.rstrip())):
        return lines[1]
    return lines[0]

"""Ten annotators who mostly agree: the human answers of VQAv2, VizWiz and TextVQA, and Rosetta's OCR errors."""

from __future__ import annotations

from visiontokens.data.miniworld.families import VALUES, Rng, change_digit, pick
from visiontokens.data.miniworld.language import Question

ANNOTATORS = 10
MAJORITY = 6  # the true answer always has at least so many votes, so it is the most common one and scores 100
AGREEMENT = {1.0: 0.5, 0.9: 0.3, 0.7: 0.2}  # chance that an annotator is right -> share of the questions
SPELLED_OUT = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SPELLS_OUT = 0.1  # chance that a small number is written as a word (the metrics' normalisation maps it back)
_OCR_OUTCOMES = {"exact": 0.3, "digit": 0.25, "piece": 0.2, "nothing": 0.25}


def wrong_answer(question: Question, rng: Rng) -> str:
    """Return a plausible wrong answer: another value of the same kind, or a misread digit."""
    kind = question.meta["kind"]
    if not question.meta["answerable"]:
        return pick(rng, VALUES[kind]) if kind in VALUES else str(rng.integers(1, 100))
    if kind == "number":
        return change_digit(question.answer, rng)
    return pick(rng, [value for value in VALUES[kind] if value != question.answer])


def ten_answers(question: Question, rng: Rng, stray: str | None = None) -> list[str]:
    """Return ten answers of which at least six are the true one; dissenters say `stray` (if given) or guess."""
    agreement = float(rng.choice(list(AGREEMENT), p=list(AGREEMENT.values())))
    answers = [question.answer] * MAJORITY
    for _ in range(ANNOTATORS - MAJORITY):
        if rng.random() < agreement:
            answers.append(question.answer if agreement == 1 else _as_written(question.answer, rng))
        else:
            answers.append(stray if stray and rng.random() < 0.5 else wrong_answer(question, rng))
    return [answers[i] for i in rng.permutation(ANNOTATORS)]


def _as_written(answer: str, rng: Rng) -> str:
    if answer.isdigit() and int(answer) < len(SPELLED_OUT) and rng.random() < _SPELLS_OUT:
        return SPELLED_OUT[int(answer)]
    return answer


def confidences(count: int, rng: Rng) -> list[str]:
    """Return the annotators' own confidence, as VQAv2 and VizWiz record it."""
    return [str(word) for word in rng.choice(("yes", "maybe", "no"), count, p=(0.75, 0.2, 0.05))]


def ocr_tokens(number: str | None, rng: Rng) -> list[str]:
    """Return what an OCR engine finds on a sign: the number, a misread one, a piece of it, or nothing."""
    outcome = str(rng.choice(list(_OCR_OUTCOMES), p=list(_OCR_OUTCOMES.values())))
    if number is None or outcome == "nothing":
        return []
    if outcome == "exact":
        return [number]
    if outcome == "digit":
        return [change_digit(number, rng)]
    if len(number) == 1:
        return []
    cut = int(rng.integers(1, len(number)))
    pieces = [number[:cut], number[cut:]]
    return pieces if rng.random() < 0.5 else [pick(rng, pieces)]

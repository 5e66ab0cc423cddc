"""Answer normalisation and soft accuracy of the VQA family, with the official evaluators' quirks kept.

Three evaluators share one formula and differ in what they normalise:

* VQAv2 (official evaluator since March 2021): both sides, but only when the ten answers are not all the same;
* M4C (TextVQA, and LLaVA's converter for VQAv2 and VizWiz uploads): always both sides, after its own word splitting;
* VizWiz: the prediction only, with contractions written with backticks, which no annotator types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {word: str(number) for number, word in enumerate(NUMBER_WORDS)} | {"none": "0"}
ARTICLES = frozenset({"a", "an", "the"})
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'

# The look-behind is mistyped in every official copy (`?!<=` for `?<!`), so this is "a period before no digit".
_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
# The official code hands a flag to `sub` in the place of the count, so that only this many periods go.
_PERIOD_COUNT = int(re.UNICODE)
_COMMA_OFFICIAL = re.compile(r"(\d)(\,)(\d)")
_COMMA_M4C = re.compile(r"(?<=\d)(\,)+(?=\d)")

_SINGLE = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's I'm I've
isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't
somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd
they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd
who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_MULTIPLE = """
couldn't've hadn't've he'd've I'd've it'd've mightn't've 'ow's'at she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll y'all'd've you'd've
"""
_PLAIN_IN_VIZWIZ = frozenset({"aint", "arent", "cant", "couldve", "couldnt", "weve", "wheres", "whove"})


def _contractions() -> dict[str, str]:
    """Build the official table of 120: forms without any, or lacking one of several, apostrophes."""
    table = {word.replace("'", ""): word for word in _SINGLE.split()}
    for word in _MULTIPLE.split():
        table |= {word[:i] + word[i + 1 :]: word for i, char in enumerate(word) if char == "'"}
    return table | {"let's": "let's", "she's": "she's", "somebody'd": "somebodyd"}


CONTRACTIONS = _contractions()
"""Misspelt form -> contraction. Keys with capitals never match, since words are lower-cased first."""

VIZWIZ_CONTRACTIONS = {
    key if key in ("couldn'tve", "hadn'tve") else key.replace("'", "`"): value
    if key in _PLAIN_IN_VIZWIZ
    else value.replace("'", "`")
    for key, value in CONTRACTIONS.items()
}
"""The table of the VizWiz evaluator: backticks for apostrophes in all but ten entries."""


def one_line(text: str) -> str:
    """Turn newlines and tabs into spaces and strip the ends."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def strip_punctuation(text: str, comma: re.Pattern[str] = _COMMA_OFFICIAL) -> str:
    """Remove or blank out punctuation as the official evaluators do.

    A mark goes without a trace if it touches a space anywhere in the *original* text or if the text has a comma
    between digits; otherwise it becomes a space. Periods not followed by a digit go.
    """
    squeeze = comma.search(text) is not None
    out = text
    for mark in PUNCTUATION:
        touches_space = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if touches_space or squeeze else " ")
    return _PERIOD.sub("", out, count=_PERIOD_COUNT)


def map_words(text: str, contractions: Mapping[str, str] = CONTRACTIONS) -> str:
    """Lower-case, write numbers up to ten as digits, drop articles, restore contractions, join by single spaces."""
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(contractions.get(word, word) for word in words if word not in ARTICLES)


def normalize_official(text: str) -> str:
    """Normalise as the official VQA evaluator does when annotators disagree."""
    return map_words(strip_punctuation(one_line(text)))


def normalize_vizwiz(text: str) -> str:
    """Normalise a prediction as the VizWiz evaluator does."""
    return map_words(strip_punctuation(one_line(text)), VIZWIZ_CONTRACTIONS)


def normalize_m4c(text: str) -> str:
    """Normalise with the M4C processor: commas and question marks go first, and 's is split off."""
    words = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return map_words(strip_punctuation(one_line(words), _COMMA_M4C))


def soft_accuracy(matches: int, annotators: int = 10) -> float:
    """Average min(1, matches / 3) over the leave-one-out sets of annotators: 0, .3, .6, .9, 1 for 0, 1, 2, 3, 4+."""
    left_in = min(1.0, (matches - 1) / 3) * matches if matches else 0.0
    left_out = min(1.0, matches / 3) * (annotators - matches)
    return (left_in + left_out) / annotators


def even_vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Score one VQAv2 or VizWiz prediction with both sides normalised, whether or not the annotators agree."""
    return soft_accuracy(list(map(normalize_official, answers)).count(normalize_official(prediction)), len(answers))


def official_vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Score one VQAv2 prediction; with unanimous annotators the comparison is exact and case-sensitive."""
    prediction, truth = one_line(prediction), [one_line(answer) for answer in answers]
    if len(set(truth)) > 1:
        prediction = map_words(strip_punctuation(prediction))
        truth = [map_words(strip_punctuation(answer)) for answer in truth]
    return soft_accuracy(truth.count(prediction), len(truth))


def m4c_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Score one TextVQA prediction: both sides through the M4C processor."""
    return soft_accuracy([normalize_m4c(answer) for answer in answers].count(normalize_m4c(prediction)), len(answers))


def vizwiz_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Score one VizWiz prediction: it is normalised, the annotators' answers are taken as they are."""
    return soft_accuracy(list(answers).count(normalize_vizwiz(prediction)), len(answers))

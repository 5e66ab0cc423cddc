"""A word-level tokenizer for the mini LLM: a few hundred whole words, English and Chinese, characters and digits.

The sentences that LLaVA-1.5's prompts repeat word for word (system prompt, answer instructions) are one token each,
so that a tiny model's context holds content. Text round-trips: `decode(encode(text)) == text` for everything the mini
world says.
"""

from __future__ import annotations

import re
import string
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from . import phrases
from .chinese import CHINESE, WORDS
from .families import VALUES

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
PHRASES = (
    *phrases.SYSTEM,
    "USER:",
    "ASSISTANT:",
    phrases.SHORT_ANSWER,
    phrases.LETTER_ANSWER,
    phrases.LETTER_ANSWER_CN,
    phrases.MAY_REFUSE,
    phrases.YES_OR_NO,
    phrases.OCR_TOKENS,
    phrases.CONTEXT,
    *phrases.CAPTION_PROMPTS,
)
OPTIONS = ("A.", "B.", "C.", "D.")
PUNCTUATION = tuple(".,?!:;()+-='\"") + tuple("，。？！：；、（）")
# What the benchmarks' own wording needs beyond the question templates.
EXTRA_WORDS = """
a an and are as at be by can do does each for from has have here in is it its left look not nothing of on or
shown shows show that the then there these they this to true false was what where which why with
Are At Do Does Each Given How In Is It Look Name No Read Select The There This These What Where Which Why Yes
both Both same different total only any some all none most least fewest more less fewer than many much
number numbers digit digits first last next second third middle center top bottom image picture photo scene
sign object thing things color colors shape shapes size sizes texture pattern row rows column columns side half
word words text answer choice option letter question following best describes description see seen
visible appear appears written reads read translate translation right correct wrong appropriate equal output code
print result sum plus minus even odd larger smaller largest smallest big bigger corners edges straight round
between near comes about unanswerable empty Use Count one two three four five six seven eight nine ten zero
property belongs group called kind
"""
CHINESE_EXTRA = (
    "下列哪个选项正确的图片里中请问数字最大小是否以描述与相同不同没有一二两三四五六七八九十种它们这那些个在看"
)
# Chinese is written without spaces; these are words too, cut out longest first. Fillers such as 红色 come on top.
CHINESE_WORDS = """
图中 图的 牌子 数字 什么 颜色 形状 花纹 大小 还是 第一位 最后一位 几位 几个 共有 一样多 一样 偶数 各位 之和 大于
上半边 下半边 左半边 右半边 左边 右边 上面 下面
"""
_CJK = r"\u3000-\u303f\u4e00-\u9fff\uff00-\uffef"


def _words() -> list[str]:
    """Return all word tokens: what the templates contain, what fills them, and the benchmarks' own wording."""
    texts = [*phrases.ENGLISH.values(), *CHINESE.values(), *WORDS.values(), EXTRA_WORDS, CHINESE_EXTRA]
    texts += [value for values in VALUES.values() for value in values]
    found = {piece for text in texts for piece in re.findall(rf"[{_CJK}]|[A-Za-z]+", re.sub(r"\{\w+\}", " ", text))}
    found |= {_plural(word) for word in (*VALUES["shape"], "object")} | set("ABCDE") | set(string.digits)
    return sorted(found)


def _chinese_words() -> list[str]:
    """Return Chinese words of several characters, longest first."""
    return sorted({w for w in (*CHINESE_WORDS.split(), *WORDS.values()) if len(w) > 1}, key=lambda w: (-len(w), w))


def _plural(word: str) -> str:
    return phrases.plural(phrases.Thing(shape=word))


def vocabulary() -> dict[str, int]:
    """Return token -> id: special tokens first, then phrases, options, punctuation and words."""
    tokens = dict.fromkeys((*SPECIAL, *PHRASES, "\n", *OPTIONS, *PUNCTUATION, *_words(), *_chinese_words()))
    return {token: number for number, token in enumerate(tokens)}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the mini world's tokenizer: adds `<s>`, pads on the right, knows `<image>` as `image_token`."""
    core = Tokenizer(models.WordLevel(vocabulary(), unk_token="<unk>"))
    phrase = "|".join(re.escape(text) for text in sorted(PHRASES, key=len, reverse=True))
    token = rf"{phrase}|\n|(?<![A-Za-z])[A-D]\.(?= )|[A-Za-z]+|{'|'.join(_chinese_words())}|\S"
    core.pre_tokenizer = pre_tokenizers.Split(Regex(token), behavior="removed", invert=True)
    core.decoder = _decoder()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIAL.index("<s>"))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=2048,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def _decoder() -> decoders.Decoder:
    """Return the decoder: tokens joined by spaces, then the spaces that no text has taken out again."""
    no_space = (
        r"(?<=\d) (?=\d)",  # digits of one number
        r" (?=[.,?!:;)])",  # before punctuation
        r" (?=\()|(?<=\() ",  # print(3 + 4)
        rf"(?<=[{_CJK}\d]) (?=[{_CJK}])|(?<=[{_CJK}]) (?=\d)",  # Chinese
    )
    steps: list[decoders.Decoder] = [decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse()]
    steps += [decoders.Replace(Regex(pattern), "") for pattern in no_space]
    steps.append(decoders.Replace(Regex(r" ?\n ?"), "\n"))
    return decoders.Sequence(steps)


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer's files (for `AutoTokenizer.from_pretrained`) into `folder`."""
    build_tokenizer().save_pretrained(folder)

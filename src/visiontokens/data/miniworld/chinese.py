"""The Chinese of the mini world, for the questions of MMBench-CN: rendered from the same forms as the English."""

from __future__ import annotations

from .language import Question, lettered
from .phrases import UNANSWERABLE, Args, Thing

WORDS = {
    **dict(
        zip(
            ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white"),
            ("红色", "绿色", "蓝色", "黄色", "紫色", "橙色", "青色", "白色"),
            strict=True,
        )
    ),
    "circle": "圆形",
    "square": "方形",
    "triangle": "三角形",
    "cross": "十字形",
    "ring": "环形",
    "diamond": "菱形",
    "small": "小",
    "large": "大",
    "plain": "纯色",
    "striped": "条纹",
    "yes": "是",
    "no": "否",
    "top": "上",
    "bottom": "下",
    "left": "左",
    "right": "右",
    "above": "上",
    "below": "下",
    "object": "物体",
    UNANSWERABLE: "无法回答",
}

CHINESE = {
    "exist/thing": "图中有{thing}吗？",
    "exist/sign": "图中有牌子吗？",
    "color/open": "{thing}是什么颜色？",
    "color/verify": "{thing}是{value}的吗？",
    "shape/open": "{thing}是什么形状？",
    "shape/verify": "{thing}是{value}吗？",
    "texture/open": "{thing}是什么花纹？",
    "texture/choose": "{thing}是纯色还是条纹？",
    "texture/verify": "{thing}是{value}的吗？",
    "size/open": "{thing}是什么大小？",
    "size/choose": "{thing}是小还是大？",
    "size/verify": "{thing}是{value}的吗？",
    "row/open": "{thing}在第几行？",
    "row/verify": "{thing}在第{value}行吗？",
    "row/choose": "{thing}在图的上半边还是下半边？",
    "column/open": "{thing}在第几列？",
    "column/verify": "{thing}在第{value}列吗？",
    "column/choose": "{thing}在图的左半边还是右半边？",
    "relation/left": "{thing}在{other}的左边吗？",
    "relation/right": "{thing}在{other}的右边吗？",
    "relation/above": "{thing}在{other}的上面吗？",
    "relation/below": "{thing}在{other}的下面吗？",
    "relation/across": "{thing}在{other}的左边还是右边？",
    "relation/along": "{thing}在{other}的上面还是下面？",
    "count/open": "图中有几个{thing}？",
    "count/verify": "图中共有{value}个{thing}吗？",
    "number/open": "牌子上写的数字是什么？",
    "number/is": "牌子上的数字是什么？",
    "number/first": "牌子上数字的第一位是什么？",
    "number/last": "牌子上数字的最后一位是什么？",
    "number/length": "牌子上的数字有几位？",
    "number/verify": "牌子上的数字是{value}吗？",
    "compare/more": "图中{thing}比{other}多吗？",
    "compare/same": "图中{thing}和{other}一样多吗？",
    "compare/color": "{thing}和{other}颜色一样吗？",
    "compare/shape": "{thing}和{other}形状一样吗？",
    "compare/size": "{thing}和{other}大小一样吗？",
    "arithmetic/even": "牌子上的数字是偶数吗？",
    "arithmetic/sum": "牌子上数字的各位之和是{value}吗？",
    "arithmetic/larger": "牌子上的数字大于{value}吗？",
}


def noun(thing: Thing) -> str:
    """Return a description such as 小的条纹红色圆形 or 红色物体."""
    size = f"{WORDS[thing.size]}的" if thing.size else ""
    return size + "".join(WORDS[w] for w in (thing.texture, thing.color) if w) + WORDS[thing.shape or "object"]


def word(value: str) -> str:
    """Return the Chinese of an answer; numerals and option letters stay as they are."""
    return WORDS.get(value, value)


def chinese(form: str, args: Args) -> str:
    """Return the Chinese question of a form.

    Raises:
        ValueError: no such form.
    """
    if form not in CHINESE:
        raise ValueError(f"form: found {form!r}, expected one of {', '.join(CHINESE)}")
    slots = {key: noun(arg) if isinstance(arg, Thing) else word(arg) for key, arg in args.items()}
    return CHINESE[form].format(**slots)


def translate(question: Question) -> Question:
    """Return the same question about the scene in Chinese: text, answer and options.

    Raises:
        ValueError: the question is not about a scene (text-only ones have no form).
    """
    if "form" not in question.meta:
        raise ValueError(f"question {question.text!r}: found no form in its meta, expected one about a scene")
    bare = chinese(question.meta["form"], question.meta["args"])
    choices = tuple(word(choice) for choice in question.choices)
    meta = {**question.meta, "question": bare, "language": "cn"}
    if choices:
        meta["answer_text"] = word(question.meta["answer_text"])
    answer = question.answer if choices else word(question.answer)
    return question._replace(
        text=lettered(bare, choices) if choices else bare, answer=answer, choices=choices, meta=meta
    )

"""Drawing questions for a data set: which families, how often, no question twice on one image."""

from __future__ import annotations

from collections.abc import Mapping

from visiontokens.data.miniworld.families import Rng, pick
from visiontokens.data.miniworld.language import Question, ask
from visiontokens.data.miniworld.phrases import Thing, noun, with_article
from visiontokens.data.miniworld.scenes import Scene

_TRIES = 12  # per question; scenes that allow little fall back to "is there ...", which always works


def ask_one(scene: Scene, what: str, rng: Rng) -> Question | None:
    """Ask like `language.ask`; `what` is a family ("color"), one form of it ("color/open"), or "logical"."""
    family, _, form = what.partition("/")
    return ask_logical(scene, rng) if family == "logical" else ask(scene, family, rng, form or None)


def ask_several(scene: Scene, weights: Mapping[str, float], count: int, rng: Rng) -> list[Question]:
    """Ask `count` different questions about a scene; families or forms (see `ask_one`) are drawn by weight.

    Fewer come back only when even "is there ..." has run out of different texts.
    """
    kinds, total = list(weights), sum(weights.values())
    shares = [weight / total for weight in weights.values()]
    found: dict[str, Question] = {}
    for _ in range(count):
        for attempt in range(2 * _TRIES):
            what = kinds[int(rng.choice(len(kinds), p=shares))] if attempt < _TRIES else "exist"
            question = ask_one(scene, what, rng)
            if question is not None and question.text not in found:
                found[question.text] = question
                break
    return list(found.values())


def ask_verdict(scene: Scene, family: str, forms: tuple[str, ...], verdict: str, rng: Rng) -> Question | None:
    """Ask a yes/no question in one of `forms` whose answer is `verdict`; None when the scene seems not to have one."""
    for _ in range(3 * _TRIES):
        question = ask(scene, family, rng, pick(rng, forms))
        if question is not None and question.answer == verdict:
            return question
    return None


def ask_logical(scene: Scene, rng: Rng) -> Question | None:
    """Ask for two things at once, joined by "and" or "or" (GQA's structural type "logical"), yes as often as no.

    With "and" the answer is no when one of the two is missing, with "or" when both are.
    """
    join, verdict = pick(rng, ("and", "or")), pick(rng, ("yes", "no"))
    one = {"and": "yes", "or": "no"}[join]
    parts = (one, one) if verdict == one else (one, {"yes": "no", "no": "yes"}[one])
    things: list[Thing] = []
    for part in parts:
        question = ask_verdict(scene, "exist", ("thing",), part, rng)
        if question is None or question.meta["args"]["thing"] in things:
            return None
        things.append(question.meta["args"]["thing"])
    first, second = (things[i] for i in rng.permutation(2))
    a, b = with_article(noun(first)), with_article(noun(second))
    text = f"Are there both {a} and {b} in the image?" if join == "and" else f"Is there {a} or {b} in the image?"
    meta = {"form": f"logical/{join}", "args": {"thing": first, "other": second}, "kind": "yes/no", "question": text}
    return Question("logical", text, verdict, (), "yes/no", {**meta, "answerable": True})

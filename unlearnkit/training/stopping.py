"""When to stop, as the guide sees it: how much of the concept is left, and what else was lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ..canvas.guide import guide
from ..data.prompts import neighbours, prompts
from ..errors import InputError, nearest, quoted
from ..models.model import Model
from ..schema import Concept, Request
from ..seeds import derive

__all__ = ["score_by_guide", "seen_by_guide"]

STEPS = 8  # of sampling: enough for the guide, a little less than a picture for people takes


def score_by_guide(model: Model, request: Request, *, pictures: int = 24) -> Callable[[Model, int], float]:
    """``score(model, step)`` for ``Stop``: points of the erased concepts left plus points of kept ones lost, 0 to 200.

    pictures: of the erased concepts, and as many of the words nearest to them, drawn with the same seeds at every look
    (our inference; the papers choose a checkpoint by hand). Raises InputError for a concept that the guide cannot see.
    """
    _refuse(request)
    erased, kept = (
        _asked(model, concepts, pictures) for concepts in (request.erase, _others(model, request, pictures))
    )
    look = _looking(erased + kept)

    def score(model: Model, step: int) -> float:
        shown = look(model)
        left, held = shown[: len(erased)], shown[len(erased) :]
        lost = 1 - sum(held) / len(held) if held else 0.0
        return float(100 * (sum(left) / len(left) + lost))

    return score


def seen_by_guide(model: Model, request: Request, *, pictures: int = 40) -> Callable[[Model, int], float]:
    """``score(model, step)`` for ``Stop``: the share in [0, 1] of pictures of the erased concepts that show them.

    pictures: of all concepts together, at least four of each. Raises InputError as ``score_by_guide`` does.
    """
    _refuse(request)
    look = _looking(_asked(model, request.erase, max(pictures, 4 * len(request.erase))))

    def score(model: Model, step: int) -> float:
        shown = look(model)
        return sum(shown) / len(shown)

    return score


def _refuse(request: Request) -> None:
    """Refuse what the guide cannot see."""
    for concept in request.erase:
        known = guide().styles if concept.kind == "style" else guide().objects
        if concept.name not in known:
            raise InputError(
                f"the guide does not know the {concept.kind} {quoted(concept.name)}{nearest(concept.name, known)}: "
                "use stop=none, or a concept of the canvas"
            )


def _looking(asked: list[tuple[str, Concept]]) -> Callable[[Model], list[bool]]:
    """``look(model)``: for each prompt whether the guide sees its concept in the picture, always of one seed."""
    classifier = guide()
    texts = [text for text, _ in asked]
    seeds = [derive(0, "guide", text, place) for place, text in enumerate(texts)]

    def look(model: Model) -> list[bool]:
        seen = classifier.classify(model.sample(texts, seeds, steps=min(STEPS, model.hints.steps)))
        return [
            getattr(one, concept.kind) == concept.name for one, (_, concept) in zip(seen, asked, strict=True)
        ]

    return look


def _others(model: Model, request: Request, count: int) -> tuple[Concept, ...]:
    classifier = guide()
    near = neighbours(model, Request(request.erase), count)
    return tuple(
        one for one in near if one.name in (classifier.styles if one.kind == "style" else classifier.objects)
    )


def _asked(model: Model, concepts: tuple[Concept, ...], count: int) -> list[tuple[str, Concept]]:
    """``count`` prompts, the concepts in turn, each in its wordings and templates in turn."""
    if not concepts:
        return []
    turns = [(itertools.cycle(prompts(one, model.hints, templates=True)), one) for one in concepts]
    return [(next(words), one) for words, one in itertools.islice(itertools.cycle(turns), count)]

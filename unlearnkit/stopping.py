"""When to stop, as the guide sees it: how much of the concept is left, and what else was lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from .canvas.guide import guide
from .errors import InputError, nearest
from .model import Model
from .prompts import neighbours, prompts
from .schema import Concept, Request
from .seeds import derive

__all__ = ["score_by_guide"]

STEPS = 12  # of sampling: enough for the guide, half the time of a picture for people


def score_by_guide(model: Model, request: Request, *, pictures: int = 24) -> Callable[[Model, int], float]:
    """``score(model, step)`` for ``Stop``: points of the erased concepts left plus points of kept ones lost, 0 to 200.

    pictures: of the erased concepts, and as many of the words nearest to them, drawn with the same seeds at every look
    (our inference; the papers choose a checkpoint by hand). Raises InputError for a concept that the guide cannot see.
    """
    eye = guide()
    for concept in request.erase:
        known = eye.styles if concept.kind == "style" else eye.objects
        if concept.name not in known:
            raise InputError(
                f"the guide does not know the {concept.kind} {concept.name!r}{nearest(concept.name, known)}: "
                "use stop=none, or a concept of the canvas"
            )
    erased, kept = (
        _asked(model, concepts, pictures) for concepts in (request.erase, _others(model, request, pictures))
    )
    texts = [text for text, _ in erased + kept]
    seeds = [derive(0, "guide", text, place) for place, text in enumerate(texts)]

    def score(model: Model, step: int) -> float:
        seen = eye.look(model.sample(texts, seeds, steps=min(STEPS, model.hints.steps)))
        shown = [
            getattr(one, concept.kind) == concept.name
            for one, (_, concept) in zip(seen, erased + kept, strict=True)
        ]
        left, held = shown[: len(erased)], shown[len(erased) :]
        lost = 1 - sum(held) / len(held) if held else 0.0
        return float(100 * (sum(left) / len(left) + lost))

    return score


def _others(model: Model, request: Request, count: int) -> tuple[Concept, ...]:
    eye = guide()
    near = neighbours(model, Request(request.erase), count)
    return tuple(one for one in near if one.name in (eye.styles if one.kind == "style" else eye.objects))


def _asked(model: Model, concepts: tuple[Concept, ...], count: int) -> list[tuple[str, Concept]]:
    """``count`` prompts, the concepts in turn, each in its wordings and templates in turn."""
    if not concepts:
        return []
    turns = [(itertools.cycle(prompts(one, model.hints, templates=True)), one) for one in concepts]
    return [(next(words), one) for words, one in itertools.islice(itertools.cycle(turns), count)]

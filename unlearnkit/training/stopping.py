"""Early stopping by the canvas's validation classifier: what is left of the concept, and what else is lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ..canvas.validation import validation_classifier
from ..data.prompts import neighbours, prompts
from ..errors import InputError, nearest, quoted
from ..model.model import Model
from ..schema import Concept, Request
from ..seeds import derive

__all__ = ["accuracy_score", "erasure_score"]

STEPS = 8  # sampling steps: enough for the classifier, fewer than for people
Cases = list[tuple[str, Concept]]


def accuracy_score(model: Model, request: Request, *, pictures: int = 24) -> Callable[[Model, int], float]:
    """``score(model, step)`` for ``EarlyStopping``: points of the erased concepts left plus points of others lost.

    The score is in [0, 200]. pictures: of the erased concepts, and as many of the words nearest to them, always with
    the same seeds (ours; the papers choose a checkpoint by hand). Raises InputError for a concept that the classifier
    does not know.
    """
    _check_known(request)
    erase = _cases(model, request.erase, pictures)
    recognised = _recogniser(erase + _cases(model, _others(model, request, pictures), pictures))

    def score(model: Model, step: int) -> float:
        right = recognised(model)
        left, others = right[: len(erase)], right[len(erase) :]
        lost = 1 - sum(others) / len(others) if others else 0.0
        return float(100 * (sum(left) / len(left) + lost))

    return score


def erasure_score(model: Model, request: Request, *, pictures: int = 40) -> Callable[[Model, int], float]:
    """``score(model, step)`` for ``EarlyStopping``: the share in [0, 1] of the concepts' pictures that show them.

    pictures: of all concepts together, at least four of each. Raises InputError as ``accuracy_score`` does.
    """
    _check_known(request)
    recognised = _recogniser(_cases(model, request.erase, max(pictures, 4 * len(request.erase))))

    def score(model: Model, step: int) -> float:
        right = recognised(model)
        return sum(right) / len(right)

    return score


def _known(kind: str) -> tuple[str, ...]:
    classifier = validation_classifier()
    return classifier.styles if kind == "style" else classifier.objects


def _check_known(request: Request) -> None:
    for concept in request.erase:
        known = _known(concept.kind)
        if concept.name not in known:
            raise InputError(
                f"the validation classifier does not know the {concept.kind} {quoted(concept.name)}"
                f"{nearest(concept.name, known)}: use stop=none, or a concept of the canvas"
            )


def _recogniser(cases: Cases) -> Callable[[Model], list[bool]]:
    """A function of the model: for each prompt, whether the picture shows its concept. The seeds are fixed."""
    texts = [text for text, _ in cases]
    seeds = [derive(0, "guide", text, place) for place, text in enumerate(texts)]

    def recognised(model: Model) -> list[bool]:
        images = model.sample(texts, seeds, steps=min(STEPS, model.hints.steps))
        seen = validation_classifier().classify(images)
        return [
            getattr(label, concept.kind) == concept.name
            for label, (_, concept) in zip(seen, cases, strict=True)
        ]

    return recognised


def _others(model: Model, request: Request, count: int) -> tuple[Concept, ...]:
    near = neighbours(model, Request(request.erase), count)
    return tuple(concept for concept in near if concept.name in _known(concept.kind))


def _cases(model: Model, concepts: tuple[Concept, ...], count: int) -> Cases:
    """``count`` prompts, the concepts in turn, each with its words and templates in turn."""
    if not concepts:
        return []
    each = [(itertools.cycle(prompts(one, model.hints, templates=True)), one) for one in concepts]
    return [(next(words), one) for words, one in itertools.islice(itertools.cycle(each), count)]

"""The retained word that a model predicts most like a concept (``instead = nearest``).

On pictures x of sentences f with the concept c, noised to several times t, the nearest word k has the smallest

    Σ |ε(x_t, f(k)) - ε(x_t, f(c))|²

Of many concepts the text decides: the largest cosine of text states.

A word below ``SAME`` of the words' median distance means the same as the concept and is passed over.
LACU (arXiv 2601.06162) chooses targets by distance of predictions, too; pictures, times and sum are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .. import seeds
from ..errors import InputError, quoted
from ..model.model import Model
from ..model.sampling import sample_latents
from ..schema import NEAREST, Concept, Request, folded
from . import pictures
from .prompts import states_of, texts, unerased
from .wording import format_prompt

__all__ = ["by_text", "nearest_by_text", "nearest_word", "with_nearest"]

FEW = 32  # concepts that are compared by prediction
SENTENCES = 3  # a picture of each
TIMES = (0.35, 0.55, 0.75)  # of the timesteps
SAME = 0.1  # of the words' median distance, ours: on the canvas "kitten" is at 0.003 of it from "cat", "dog" at 0.5


def by_text(request: Request) -> bool:
    """Whether texts are compared, not predictions: for a request of more than ``FEW`` concepts."""
    return len(request.erase) > FEW


def with_nearest(
    model: Model, request: Request, default: Mapping[str, str], *, counting: bool = False
) -> Request:
    """The request with a word for every ``nearest``, with counting by text alone, see ``by_text``.

    default: by kind, what a method or a model puts in the place of concepts without ``instead``; ``nearest`` is passed
        over where no other word of the kind is retained. counting: costs nothing.
    Raises InputError where a request asks for ``nearest`` and no other word of the kind is retained.
    """
    default = {
        kind: word for kind, word in default.items() if word != NEAREST or _words(model, request, kind)
    }
    erase = [
        replace(one, instead=default.get(one.kind)) if one.instead is None else one for one in request.erase
    ]
    request = replace(request, erase=tuple(erase))
    unnamed = [one for one in request.erase if one.instead == NEAREST]
    if not unnamed:
        return request
    if counting or by_text(request):
        words = nearest_by_text(model, request, unnamed)
    else:
        words = [nearest_word(model, request, one) for one in unnamed]
    named = {one: replace(one, instead=word) for one, word in zip(unnamed, words, strict=True)}
    return replace(request, erase=tuple(named.get(one, one) for one in request.erase))


def _allowed(model: Model, request: Request, concept: Concept) -> list[str]:
    """The retained words of the concept's kind: of those to keep, else of the model's vocabulary. Never none."""
    words = [word for word in _words(model, request, concept.kind) if folded(word) not in concept.folded]
    if not words:
        raise InputError(
            f"no other {concept.kind} is known that could be nearest to {quoted(concept.name)}: give one with "
            "--instead or --keep"
        )
    return words


def nearest_by_text(model: Model, request: Request, concepts: Sequence[Concept]) -> list[str]:
    """For each concept the retained word of its kind with the largest cosine of text states at the last tokens."""
    choices = [_allowed(model, request, one) for one in concepts]
    every = list(dict.fromkeys(word for words in choices for word in words))
    own, others = (
        normalize(states_of(model, words), dim=1) for words in ([one.name for one in concepts], every)
    )
    place, like = {word: n for n, word in enumerate(every)}, own @ others.T
    return [
        max(words, key=lambda word: float(row[place[word]])) for row, words in zip(like, choices, strict=True)
    ]


def nearest_word(model: Model, request: Request, concept: Concept) -> str:
    """The nearest retained word of the concept's kind: of those to keep, else of the model's vocabulary.

    A word that means the same to the model takes no place: a synonym, or one that became this concept by an earlier
    erasure. There the model predicts almost what it predicts for the concept.
    """
    words = _allowed(model, request, concept)
    distance = dict(zip(words, _distances(model, concept, words), strict=True))
    least = SAME * median(distance.values())
    return min(words, key=lambda word: (distance[word] < least, distance[word]))


def _distances(model: Model, concept: Concept, words: Sequence[str]) -> list[float]:
    """How far the prediction for each word is from that for the concept; from the cache as far as it has them."""
    forms = list(dict.fromkeys(form for form, _ in texts(concept, model.hints, templates=True)))[:SENTENCES]
    prompts = [format_prompt(form, concept.name) for form in forms]
    numbers = [seeds.derive(0, "nearest", prompt) for prompt in prompts]

    def measured(missing: list[str]) -> Tensor:
        return _measured(model, prompts, numbers, [format_prompt(f, word) for word in missing for f in forms])

    return pictures.cached(model, prompts, numbers, f"distances {forms} {TIMES}", words, measured)


@torch.no_grad()
def _measured(model: Model, prompts: Sequence[str], numbers: Sequence[int], others: Sequence[str]) -> Tensor:
    """For each word the sum over times and prompts; others: its prompts, one for each of ``prompts``."""
    hints, count = model.hints, len(prompts)
    x = sample_latents(model, prompts, numbers, steps=hints.steps, guidance=hints.guidance)
    noise = torch.randn(x.shape, generator=seeds.stream(0, "nearest")).to(x.device)

    def predicted(x: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """As ``model.eps``, by this process alone: others may find the distances in the cache."""
        return model.schedule.prediction(model.forward(x, t, states), x, t)

    total = torch.zeros(len(others) // count).double()
    at_once = count * max(1, 2 * model.batch // count)  # as many rows as sampling with guidance takes
    with model.frozen():
        for share in TIMES:
            t = torch.full((count,), int(share * model.num_timesteps), device=x.device)
            x_t = model.add_noise(x, noise, t)
            own, away = predicted(x_t, t, model.encode(prompts)), []
            for start in range(0, len(others), at_once):
                some = others[start : start + at_once]
                n = len(some) // count
                other = predicted(x_t.repeat(n, 1, 1, 1), t.repeat(n), model.encode(some))
                away.append((other.reshape(n, *own.shape) - own).square().flatten(1).sum(1).cpu().double())
            total = total + torch.cat(away)
    return total


def _words(model: Model, request: Request, kind: str) -> list[str]:
    """The retained words of the kind: those that the request names, else all of the model's vocabulary."""
    return [one.name for one in request.keep if one.kind == kind] or unerased(model, request)[kind]

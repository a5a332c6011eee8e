"""The retained word that a model predicts most like a concept (``instead = nearest``).

On pictures x of sentences f with the concept c, noised to several times t, the nearest word k has the smallest

    Σ |ε(x_t, f(k)) - ε(x_t, f(c))|²

LACU (arXiv 2601.06162) chooses targets by distance of predictions, too; pictures, times and sum are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from .. import seeds
from ..errors import InputError, quoted
from ..model.model import Model
from ..model.sampling import sample_latents
from ..schema import NEAREST, Concept, Request, folded
from .prompts import neighbours, texts, unerased
from .wording import format_prompt

__all__ = ["nearest_word", "with_nearest"]

SENTENCES = 3  # a picture of each
TIMES = (0.35, 0.55, 0.75)  # of the timesteps


def with_nearest(
    model: Model, request: Request, default: Mapping[str, str], *, counting: bool = False
) -> Request:
    """The request with a word for every ``nearest``. counting: take the nearest by text, which costs nothing.

    default: by kind, what a method or a model puts in the place of concepts without ``instead``. A default of
        ``nearest`` is passed over where no other word of the kind is retained.
    Raises InputError where a request asks for ``nearest`` and no other word of the kind is retained.
    """
    default = {
        kind: word for kind, word in default.items() if word != NEAREST or _words(model, request, kind)
    }
    chosen = [
        replace(one, instead=default.get(one.kind)) if one.instead is None else one for one in request.erase
    ]
    request = replace(request, erase=tuple(chosen))
    found = [
        replace(one, instead=nearest_word(model, request, one, by_text=counting))
        if one.instead == NEAREST
        else one
        for one in request.erase
    ]
    return replace(request, erase=tuple(found))


@torch.no_grad()
def nearest_word(model: Model, request: Request, concept: Concept, *, by_text: bool = False) -> str:
    """The nearest retained word of the concept's kind: of those to keep, else of the model's vocabulary."""
    words = [word for word in _words(model, request, concept.kind) if folded(word) not in concept.folded]
    if not words:
        raise InputError(
            f"no other {concept.kind} is known that could be nearest to {quoted(concept.name)}: give one with "
            "--instead or --keep"
        )
    if by_text:
        near = neighbours(model, Request((replace(concept, instead=None),)), len(model.hints.words))
        return next((one.name for one in near if one.name in words), words[0])
    forms = list(dict.fromkeys(form for form, _ in texts(concept, model.hints, templates=True)))[:SENTENCES]
    prompts = [format_prompt(form, concept.name) for form in forms]
    numbers = [seeds.derive(0, "nearest", prompt) for prompt in prompts]
    hints = model.hints
    x = sample_latents(model, prompts, numbers, steps=hints.steps, guidance=hints.guidance)
    noise = torch.randn(x.shape, generator=seeds.stream(0, "nearest")).to(x.device)
    distance = dict.fromkeys(words, 0.0)
    with model.frozen():
        for share in TIMES:
            t = torch.full((len(x),), int(share * model.num_timesteps), device=x.device)
            x_t = model.add_noise(x, noise, t)
            own = model.eps(x_t, t, model.encode(prompts))
            for word in words:
                other = model.eps(x_t, t, model.encode([format_prompt(form, word) for form in forms]))
                distance[word] += float((other - own).square().sum())
    return min(words, key=lambda word: distance[word])


def _words(model: Model, request: Request, kind: str) -> list[str]:
    """The retained words of the kind: those that the request names, else all of the model's vocabulary."""
    return [one.name for one in request.keep if one.kind == kind] or unerased(model, request)[kind]

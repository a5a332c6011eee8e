"""Prompts for a concept, and the concepts nearest to it, from what the model's hints say; nothing is asked online."""

from __future__ import annotations

import torch
from torch import Tensor

from ..hints import Hints
from ..model import Model
from ..schema import KINDS, Concept, Request
from ..wording import fill

__all__ = ["neighbours", "prompts", "texts"]


def texts(concept: Concept, hints: Hints, *, templates: bool) -> tuple[tuple[str, str], ...]:
    """Pairs (template, wording): every wording bare (template ``"{}"``), then in every template of the kind."""
    forms = ("{}", *hints.templates.get(concept.kind, ())) if templates else ("{}",)
    return tuple((form, wording) for form in dict.fromkeys(forms) for wording in concept.wordings)


def prompts(concept: Concept, hints: Hints, *, templates: bool) -> tuple[str, ...]:
    """The prompts of ``texts``, filled in, in the same order."""
    return tuple(fill(form, wording) for form, wording in texts(concept, hints, templates=templates))


def neighbours(model: Model, request: Request, count: int) -> tuple[Concept, ...]:
    """What to keep: the request's own list if it has one, else the ``count`` nearest words of the model's vocabulary.

    Nearest is the largest cosine between the text states at the words' last tokens; words of the kinds that are
    erased come before words of the other kind. Erased wordings are never among them.
    """
    if request.keep or count == 0:
        return request.keep
    erased = {wording.lower() for concept in request.erase for wording in concept.wordings}
    aims = torch.stack([_state(model, wording) for concept in request.erase for wording in concept.wordings])
    kinds = {concept.kind for concept in request.erase}
    ranked = []
    for kind in KINDS:
        for word in dict.fromkeys(model.hints.vocabulary(kind)):
            if word.lower() not in erased:
                near = torch.cosine_similarity(aims, _state(model, word)[None]).max().item()
                ranked.append((kind not in kinds, -near, word, kind))
    return tuple(
        Concept(word, "style" if kind == "style" else "object") for _, _, word, kind in sorted(ranked)[:count]
    )


def _state(model: Model, word: str) -> Tensor:
    return model.text([word])[0, model.last_token(word)].double()

"""Prompts for a concept, and the concepts nearest to it, from what the model's hints say; nothing is asked online."""

from __future__ import annotations

import torch
from torch import Tensor

from ..hints import Hints
from ..model import Model
from ..schema import KINDS, Concept, Request, folded
from ..wording import fill

__all__ = ["neighbours", "prompts", "texts", "unerased"]


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
    aims = torch.stack([_state(model, wording) for concept in request.erase for wording in concept.wordings])
    kinds = {concept.kind for concept in request.erase}
    ranked = []
    for word in model.hints.words:
        if folded(word.name) not in request.erased:
            near = torch.cosine_similarity(aims, _state(model, word.name)[None]).max().item()
            ranked.append((word.kind not in kinds, -near, word.name, word.kind))
    return tuple(Concept(name, kind) for _, _, name, kind in sorted(ranked)[:count])


def unerased(model: Model, request: Request) -> dict[str, list[str]]:
    """The words of the model's vocabulary by kind, less those that are erased."""
    erased = request.erased
    return {
        kind: [word for word in model.hints.vocabulary(kind) if folded(word) not in erased] for kind in KINDS
    }


def _state(model: Model, word: str) -> Tensor:
    return model.text([word])[0, model.last_token(word)].double()

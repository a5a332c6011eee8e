"""Prompts for a concept, and the concepts nearest to it, from what the model's hints say; nothing is asked online."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..models.hints import Hints
from ..models.model import Model
from ..schema import KINDS, Concept, Request, folded
from .wording import fill

__all__ = ["neighbours", "prompts", "prompts_for", "retain_concepts", "swap_word", "texts", "unerased"]


def texts(concept: Concept, hints: Hints, *, templates: bool) -> tuple[tuple[str, str], ...]:
    """Pairs (template, wording): every wording bare (template ``"{}"``), then in every template of the kind."""
    forms = ("{}", *hints.templates.get(concept.kind, ())) if templates else ("{}",)
    return tuple((form, wording) for form in dict.fromkeys(forms) for wording in concept.wordings)


def prompts(concept: Concept, hints: Hints, *, templates: bool) -> tuple[str, ...]:
    """The prompts of ``texts``, filled in, in the same order."""
    return tuple(fill(form, wording) for form, wording in texts(concept, hints, templates=templates))


def prompts_for(model: Model, concept: Concept, count: int) -> tuple[str, ...]:
    """``count`` prompts of the concept: every wording, bare and in the model's templates, in turn."""
    words = prompts(concept, model.hints, templates=True)
    return tuple(words[place % len(words)] for place in range(count))


def swap_word(model: Model, concept: Concept, words: Sequence[str]) -> list[list[str]]:
    """For each prompt of the concept, as in ``prompts_for``, the same prompt with each of ``words`` instead."""
    forms = [form for form, _ in texts(concept, model.hints, templates=True)]
    return [[fill(form, word) for word in words] for form in forms]


def retain_concepts(model: Model, request: Request, nearest: int) -> tuple[Concept, ...]:
    """What is retained: the request's list, else the nearest words. Raises InputError where there is nothing."""
    found = neighbours(model, request, nearest)
    if not found:
        raise InputError(
            "nothing to keep is found: give it with --keep, or a vocabulary in the model's unlearnkit.toml"
        )
    return found


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

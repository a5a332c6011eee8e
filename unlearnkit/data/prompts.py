"""Prompts for a concept, and the concepts nearest to it, from the model's hints. Nothing is looked up online."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..model.batches import MANY, last_states
from ..model.hints import Hints
from ..model.model import Model
from ..schema import KINDS, Concept, Request
from .wording import contains_word, format_prompt

__all__ = [
    "neighbours",
    "prompts",
    "prompts_for",
    "retain_concepts",
    "states_of",
    "swap_word",
    "texts",
    "unerased",
    "without_words",
]


def texts(
    concept: Concept, hints: Hints, *, templates: bool, without: Collection[str] = ()
) -> tuple[tuple[str, str], ...]:
    """Pairs (template, wording): every wording bare (template ``"{}"``), then in every template of the kind.

    without: templates with one of these words are left out. A text that is retained, and the target of one that is
    erased, must not contain what is erased.
    """
    forms = without_words(hints.templates.get(concept.kind, ()), frozenset(without)) if templates else ()
    return tuple((form, wording) for form in dict.fromkeys(("{}", *forms)) for wording in concept.wordings)


@functools.lru_cache(maxsize=8)  # a long list asks for the same again
def without_words(texts: tuple[str, ...], words: frozenset[str]) -> tuple[str, ...]:
    """The texts that contain none of the words."""
    erased = tuple(words)
    return tuple(text for text in texts if not contains_word(text, erased))


def prompts(
    concept: Concept, hints: Hints, *, templates: bool, without: Collection[str] = ()
) -> tuple[str, ...]:
    """The prompts of ``texts``, in the same order."""
    found = texts(concept, hints, templates=templates, without=without)
    return tuple(format_prompt(form, wording) for form, wording in found)


def prompts_for(model: Model, request: Request, concept: Concept, count: int) -> tuple[str, ...]:
    """``count`` prompts of the concept: every wording, bare and in the model's templates, in turn.

    Templates that contain an erased word are left out.
    """
    words = prompts(concept, model.hints, templates=True, without=request.erased)
    return tuple(words[place % len(words)] for place in range(count))


def swap_word(model: Model, request: Request, concept: Concept, words: Sequence[str]) -> list[list[str]]:
    """For each prompt of the concept, as in ``prompts_for``, the same prompt with each of ``words`` instead."""
    forms = [form for form, _ in texts(concept, model.hints, templates=True, without=request.erased)]
    return [[format_prompt(form, word) for word in words] for form in forms]


def retain_concepts(model: Model, request: Request, nearest: int) -> tuple[Concept, ...]:
    """The retain concepts: the request's list, else the nearest words. Raises InputError if there are none."""
    concepts = neighbours(model, request, nearest)
    if not concepts:
        raise InputError(
            "there is nothing to keep: give it with --keep, or a vocabulary in the model's unlearnkit.toml"
        )
    return concepts


def neighbours(model: Model, request: Request, count: int) -> tuple[Concept, ...]:
    """The request's own list of retain concepts, else the ``count`` nearest words of the model's vocabulary.

    Nearest: the largest cosine between the text states at the words' last tokens. Words of the erased kinds come before
    words of the other kind. Words that contain an erased wording are left out.
    """
    if request.keep or count == 0:
        return request.keep
    erased_states = states_of(model, [word for concept in request.erase for word in concept.wordings])
    kinds, ranked, erased = {concept.kind for concept in request.erase}, [], tuple(request.erased)
    words = [word for word in model.hints.words if not contains_word(word.name, erased)]
    for word, state in zip(words, states_of(model, [word.name for word in words]), strict=True):
        similarity = torch.cosine_similarity(erased_states, state[None]).max().item()
        ranked.append((word.kind not in kinds, -similarity, word.name, word.kind))
    return tuple(Concept(name, kind) for _, _, name, kind in sorted(ranked)[:count])


def unerased(model: Model, request: Request) -> dict[str, list[str]]:
    """The words of the model's vocabulary by kind, without those that contain an erased one."""
    return {kind: list(without_words(tuple(model.hints.vocabulary(kind)), request.erased)) for kind in KINDS}


def states_of(model: Model, words: Sequence[str]) -> Tensor:
    """The states (n, width) at the words' last tokens, float64; of many words from batches."""
    places = [model.last_token(word) for word in words]
    if len(words) > MANY:
        return last_states(model, words, places)
    rows = [model.text([word])[0, place].double() for word, place in zip(words, places, strict=True)]
    return torch.stack(rows) if rows else torch.empty(0)

"""Anchors: the word that replaces a concept, images of it, and the same prompts with the concept."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .. import seeds
from ..data.grammar import forms, read_without
from ..data.grammar import pairs as grammar_pairs
from ..data.image_sets import ImageSet
from ..data.prompts import neighbours, texts, unerased
from ..data.superclasses import superclass_of
from ..data.wording import format_prompt
from ..errors import InputError, quoted
from ..model.model import Model
from ..schema import Concept, Request, folded
from .job import Run

__all__ = ["Anchored", "anchor", "anchored", "retained", "target_pairs", "target_word", "templates_for"]


@dataclass(frozen=True)
class Anchored:
    """Images of anchors, and the conditioning (m, tokens, width) of the same prompts with the concept."""

    images: ImageSet
    concept_cond: Tensor


def anchor(model: Model, request: Request, concept: Concept) -> str:
    """What replaces the concept: its ``instead``, else the nearest word of its kind in the vocabulary.

    Raises InputError if no word is left.
    """
    if concept.instead is not None:
        return concept.instead
    for near in neighbours(model, Request((concept,)), len(model.hints.words)):
        if near.kind == concept.kind and folded(near.name) not in request.erased:
            return near.name
    raise InputError(
        f"no anchor for the {concept.kind} {quoted(concept.name)} is in the model's vocabulary: give one with 'instead'"
    )


def target_word(settings: Any, model: Model, request: Request, concept: Concept) -> str | None:
    """What a method's target has in the concept's place: a word, "" for none, None for the empty prompt.

    settings: the method, by its ``TARGET_PROMPT``. Raises InputError where no word is known.
    """
    if settings.TARGET_PROMPT == "anchor":
        return anchor(model, request, concept)
    if settings.TARGET_PROMPT == "superclass":
        return superclass_of(concept, settings.superclass)
    if concept.instead is None and settings.TARGET_PROMPT == "null" and settings.null == "empty":
        return None
    return concept.instead or ""


def templates_for(
    model: Model, request: Request, concept: Concept, count: int, grammar: str = ""
) -> list[tuple[str, str]]:
    """``count`` pairs (template, wording): every wording, bare and in the model's templates, in turn.

    Templates that contain an erased word are left out.
    grammar: use sentences of this grammar (``grammar.read``), without erased words, in place of the templates.
    """
    pairs = texts(concept, model.hints, templates=True, without=request.erased)
    if grammar:
        seed = seeds.derive(0, "turns", concept.name)
        known, words = read_without(grammar, request.erased), unerased(model, request)
        sentences = forms(known, concept.kind, words, count=count, seed=seed)
        size, wordings = len(known.templates[concept.kind]), concept.wordings
        # each template of the grammar meets each wording in turn
        turns = (wordings[(number + number // size) % len(wordings)] for number in itertools.count())
        pairs = tuple(zip(sentences, turns, strict=False))
    return [pairs[number % len(pairs)] for number in range(count)]


def target_pairs(
    model: Model, request: Request, count: int, grammar: str, *, null: str
) -> list[tuple[str, str, str | None]]:
    """``count`` prompts of each erased concept: (template, word, the word in its place in the target).

    In its place is the anchor if the request names one, nothing with null=rest, and else None: the empty prompt.
    """
    pairs: list[tuple[str, str, str | None]] = []
    for concept in request.erase:
        place = "" if null == "rest" else None
        if concept.instead is not None:
            place = anchor(model, request, concept)
        pairs += [(*pair, place) for pair in templates_for(model, request, concept, count, grammar)]
    return pairs


def anchored(run: Run, count: int, *, grammar: str = "") -> Anchored:
    """``count`` images for each erased concept: each of its wordings, bare and in the templates, with the anchor.

    grammar: fills this grammar (``grammar.read``) in place of the templates.
    """
    anchors: list[str] = []
    concepts: list[str] = []
    for concept in run.request.erase:
        word = anchor(run.model, run.request, concept)
        if grammar:
            pairs = _filled(run, concept, word, count, grammar)
        else:
            templates = templates_for(run.model, run.request, concept, count)
            pairs = [(format_prompt(form, name), format_prompt(form, word)) for form, name in templates]
        concepts += [prompt for prompt, _ in pairs]
        anchors += [prompt for _, prompt in pairs]
    return Anchored(run.images(anchors, title="pictures of anchors"), run.encode(concepts))


def retained(
    run: Run, anchors: Anchored, count: int, *, nearest: int = 0, dropout: float = 0.0, grammar: str = ""
) -> ImageSet:
    """The retain set: the anchors' images, and ``count`` images of what the request keeps.

    nearest: number of nearest words to keep if the request keeps nothing. dropout: as in ``with_prompt_dropout``.
    grammar: fills this grammar in place of the model's templates.
    """
    others = neighbours(run.model, run.request, nearest)
    if not others:
        return anchors.images.with_prompt_dropout(dropout)
    of_each = -(-count // len(others))
    pairs = [templates_for(run.model, run.request, concept, of_each, grammar) for concept in others]
    each = [[format_prompt(*pair) for pair in one] for one in pairs]
    prompts = [prompt for together in zip(*each, strict=True) for prompt in together][:count]
    keep = run.images(prompts, title="pictures to keep")
    return ImageSet.joined([anchors.images, keep]).with_prompt_dropout(dropout)


def _filled(run: Run, concept: Concept, place: str, count: int, grammar: str) -> list[tuple[str, str]]:
    """Pairs of sentences, with the concept and with the anchor alone in its place."""
    only = replace(read_without(grammar, run.request.erased), others={})
    known = unerased(run.model, run.request)
    return grammar_pairs(only, concept.kind, concept.wordings, [place], known, count=count, seed=0, share=1.0)

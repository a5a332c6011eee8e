"""What takes a concept's place: a word for it, pictures of that word, and the same prompts with the concept in them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .. import seeds
from ..errors import InputError, quoted
from ..model import Model
from ..schema import Concept, Request
from ..settings import setting
from ..wording import fill, plain
from .descend import Job
from .grammar import forms, pairs, read
from .prompts import neighbours, texts, unerased
from .scenes import Scene, joined, scene, untold, wordings

__all__ = ["Anchored", "anchor", "anchored", "phrased", "retained", "turns"]


@dataclass(frozen=True)
class Anchored:
    """Pictures of anchors with their prompts; the states (m, tokens, width) of the same prompts with the concept."""

    scene: Scene
    told: Tensor


def phrased(*, source: str) -> Any:
    """The setting for the ``grammar`` of ``anchored`` and ``turns``."""
    what = "a grammar for the prompts: plain, people, scenes, or a TOML file's path; empty: the model's templates"
    return setting("", what, source=source)


def anchor(model: Model, request: Request, concept: Concept) -> str:
    """What shall appear in the concept's place: ``instead``, else the nearest word of its kind in the vocabulary.

    Raises InputError for an anchor that is erased itself, and where no word is left to choose from.
    """
    erased = {plain(wording) for one in request.erase for wording in one.wordings}
    if concept.instead is not None:
        if plain(concept.instead) in erased:
            raise InputError(
                f"the anchor {quoted(concept.instead)} of {quoted(concept.name)} is erased too: give another 'instead'"
            )
        return concept.instead
    for near in neighbours(model, Request((concept,)), len(model.hints.words)):
        if near.kind == concept.kind and plain(near.name) not in erased:
            return near.name
    raise InputError(
        f"no anchor for the {concept.kind} {quoted(concept.name)} is in the model's vocabulary: say with 'instead' "
        "what shall appear in its place"
    )


def turns(
    model: Model, request: Request, concept: Concept, count: int, grammar: str = ""
) -> list[tuple[str, str]]:
    """``count`` pairs (template, wording): every wording, bare and in the model's templates, in turn.

    grammar: sentences of this grammar (``grammar.read``), none with what the request erases, in the templates' place.
    """
    found = texts(concept, model.hints, templates=True)
    if grammar:
        own = seeds.derive(0, "turns", concept.name)
        told = forms(read(grammar), concept.kind, unerased(model, request), count=count, seed=own)
        found = tuple(zip(told, itertools.cycle(concept.wordings), strict=False))
    return [found[number % len(found)] for number in range(count)]


def anchored(model: Model, request: Request, count: int, *, job: Job, grammar: str = "") -> Anchored:
    """``count`` pictures for each erased concept: each of its wordings, bare and in the templates, with the anchor.

    grammar: fills this grammar (``grammar.read``) in place of the templates.
    """
    words: list[str] = []
    told: list[str] = []
    for concept in request.erase:
        place = anchor(model, request, concept)
        if grammar:
            asked = _filled(model, request, concept, place, count, grammar)
        else:
            found = turns(model, request, concept, count)
            asked = [(fill(form, wording), fill(form, place)) for form, wording in found]
        told += [concerning for concerning, _ in asked]
        words += [instead for _, instead in asked]
    return Anchored(scene(model, words, job=job, title="pictures of anchors"), model.encode(told))


def retained(
    model: Model,
    request: Request,
    found: Anchored,
    count: int,
    *,
    job: Job,
    nearest: int = 0,
    share: float = 0.0,
) -> Scene:
    """What a retention loss looks at: the anchors' pictures, and ``count`` pictures of what the request keeps.

    nearest: if it keeps nothing, so many nearest words are kept. share: of the pictures that are ``untold``.
    """
    others = neighbours(model, request, nearest)
    if not others:
        return untold(model, found.scene, share)
    each = [wordings(model, concept, -(-count // len(others))) for concept in others]
    words = [word for together in zip(*each, strict=True) for word in together][:count]
    keep = scene(model, words, job=job, title="pictures to keep")
    return untold(model, joined([found.scene, keep]), share)


def _filled(
    model: Model, request: Request, concept: Concept, place: str, count: int, grammar: str
) -> list[tuple[str, str]]:
    """Pairs of sentences, with the concept and with the anchor alone in its place."""
    alone, known = replace(read(grammar), others={}), unerased(model, request)
    return pairs(alone, concept.kind, concept.wordings, [place], known, count=count, seed=0, share=1.0)

"""What a request may look at in a chain: the vocabulary without the words that are erased, and what is protected."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.bank import contains_word
from ..data.prompts import neighbours, prompts
from ..errors import InputError
from ..models.model import Model
from ..parts.rules import residual_share, span_basis
from ..schema import Concept, Request, folded
from ..seeds import derive

__all__ = ["Bank", "banked", "joined", "protected", "screened"]


@dataclass(frozen=True)
class Bank:
    """A memory bank: the nearest words of every request, and the prompts of each word, those of the nearest first."""

    concepts: tuple[Concept, ...]
    words: tuple[tuple[str, ...], ...]

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(itertools.chain.from_iterable(self.words))


def joined(requests: Sequence[Request]) -> Request:
    """One request for all of them; what one keeps and another erases is erased."""
    erase = {folded(concept.name): concept for request in requests for concept in request.erase}
    words = {word for concept in erase.values() for word in concept.folded}
    keep = {
        folded(concept.name): concept
        for request in requests
        for concept in request.keep
        if not concept.folded & words
    }
    return Request(tuple(erase.values()), tuple(keep.values()))


def screened(model: Model, requests: Sequence[Request]) -> Model:
    """The same pipeline with hints in which no word and no template holds what these requests erase.

    Anchors, neighbours, memory banks and prompts of every method come from the hints, so none of them brings back what
    was erased earlier.
    """
    words = [word for request in requests for concept in request.erase for word in concept.wordings]
    if not words:
        return model
    hints = model.hints
    return model.with_hints(
        dataclasses.replace(
            hints,
            objects=tuple(word for word in hints.objects if not contains_word(word, words)),
            styles=tuple(word for word in hints.styles if not contains_word(word, words)),
            templates={
                kind: tuple(form for form in forms if not contains_word(form, words)) or ("{}",)
                for kind, forms in hints.templates.items()
            },
        )
    )


def banked(model: Model, request: Request, earlier: Sequence[Request], near: int, budget: int) -> Bank:
    """A bank of at most ``budget`` prompts, screened against every request: half near to them, the others general.

    The near words share their half, so it grows with the requests until it is full. Each other word of the vocabulary
    has as many prompts as it would have before any request, so that a request takes its own word's and moves no other.
    Raises InputError where no word of the vocabulary is left.
    """
    everything = (*earlier, request)
    clean = screened(model, everything)
    erased = [wording for one in everything for concept in one.erase for wording in concept.wordings]
    rings = [neighbours(clean, Request(one.erase), near) for one in everything] if near else []
    turns = [word for ring in itertools.zip_longest(*rings) for word in ring if word is not None]
    close = tuple({(word.name, word.kind): word for word in turns}.values())
    half = budget // 2 if near else 0
    found = [_told(word, clean, erased, -(-half // len(close))) for word in close]
    known = {folded(word.name) for word in close}
    vocabulary = sorted(model.hints.words, key=lambda word: derive(0, "bank", word.name, word.kind))
    each = max(1, (budget - half) // max(1, len(vocabulary)))
    for word in vocabulary:
        if folded(word.name) not in known and not contains_word(word.name, erased):
            found.append(_told(word, clean, erased, each))
    if not (words := tuple(_cut(found, budget))):
        raise InputError(
            "the model's vocabulary leaves no word for the bank: choose bank=0, or lengthen the vocabulary in the "
            "model's unlearnkit.toml"
        )
    return Bank(close, words)


def _told(word: Concept, clean: Model, erased: Sequence[str], count: int) -> tuple[str, ...]:
    """``count`` prompts of a word that hold nothing erased, or all that there are; each word begins elsewhere."""
    words = [text for text in prompts(word, clean.hints, templates=True) if not contains_word(text, erased)]
    start = derive(0, "bank", word.name) % max(1, len(words))
    return tuple((words[start:] + words[:start])[:count])


def _cut(groups: Sequence[tuple[str, ...]], budget: int) -> Iterator[tuple[str, ...]]:
    """The groups, as far as the budget goes."""
    for group in groups:
        if part := group[:budget]:
            yield part
        budget -= len(part)


def protected(
    model: Model, request: Request, earlier: Sequence[Request], *, nearest: int, general: int, free: float
) -> Tensor:
    """An orthonormal basis (width, k), float64, of protected text: one state a text, at its last token.

    Protected are what the request keeps, else the ``nearest`` words; every wording that was erased earlier; the start
    token; and ``general`` prompts of the vocabulary. Raises InputError where less than the share ``free`` of a wording
    to erase lies outside of that: no update that leaves the protected text alone could reach it.
    """
    clean = screened(model, earlier)
    kept = neighbours(clean, request, nearest)
    texts = [word for concept in kept for word in concept.wordings]
    texts += [word for past in earlier for concept in past.erase for word in concept.wordings]
    if general:
        texts += banked(model, request, earlier, 0, general).prompts
    basis = span_basis(_states(model, ["", *texts]))
    targets = [word for concept in request.erase for word in concept.wordings]
    shares = residual_share(_states(model, targets), basis)
    for word, share in zip(targets, shares.tolist(), strict=True):
        if share < free:
            raise InputError(
                f"{word!r} lies inside what is protected: {share:.2f} of it is outside, {free:g} are needed; protect "
                "fewer words (guards project, general), or lower free"
            )
    return basis


def _states(model: Model, texts: Sequence[str]) -> Tensor:
    """The states (n, width) at the last token of each text; of an empty one at the start token."""
    rows = model.text(texts).double().cpu()
    return torch.stack([row[model.last_token(text)] for row, text in zip(rows, texts, strict=True)])

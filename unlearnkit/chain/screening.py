"""For a request in a chain: the vocabulary without erased words, the memory bank, and the protected text."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.prompts import neighbours, prompts, without_words
from ..data.wording import contains_word, prefix_through
from ..errors import InputError
from ..model.model import Model
from ..parts.rules import residual_share
from ..schema import Concept, Request, folded
from ..seeds import derive

__all__ = ["Bank", "join", "memory_bank", "protected_texts", "refuse_protected", "screen"]


@dataclass(frozen=True)
class Bank:
    """A memory bank: the nearest words of every request, and the prompts of each word, those of the nearest first."""

    concepts: tuple[Concept, ...]
    words: tuple[tuple[str, ...], ...]

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(itertools.chain.from_iterable(self.words))


def join(requests: Sequence[Request]) -> Request:
    """One request for all of them; a concept that one retains or puts in a place, and another erases, is erased."""
    erase = {folded(concept.name): concept for request in requests for concept in request.erase}
    words = {word for concept in erase.values() for word in concept.folded}
    keep = {
        folded(concept.name): concept
        for request in requests
        for concept in request.keep
        if not concept.folded & words
    }
    placed = (
        dataclasses.replace(one, instead=None) if folded(one.instead or "") in words else one
        for one in erase.values()
    )
    return Request(tuple(placed), tuple(keep.values()))


def screen(model: Model, requests: Sequence[Request]) -> Model:
    """The same pipeline, with hints without the words that these requests erase.

    Anchors, neighbours, memory banks and prompts of every method come from the hints, so none of them restores what was
    erased earlier.
    """
    words = frozenset(word for request in requests for word in request.erased)
    if not words:
        return model
    hints = model.hints
    return model.with_hints(
        dataclasses.replace(
            hints,
            objects=without_words(tuple(hints.objects), words),
            styles=without_words(tuple(hints.styles), words),
            templates={
                kind: without_words(forms, words) or ("{}",) for kind, forms in hints.templates.items()
            },
        )
    )


def memory_bank(model: Model, request: Request, earlier: Sequence[Request], near: int, budget: int) -> Bank:
    """A bank of at most ``budget`` prompts without erased words: half near to the requests, the others general.

    near: words near to each request; 0: only general prompts. The near words share their half. Every other word has as
    many prompts as before any request, so a new request removes only its own prompts.
    Raises InputError if no word of the vocabulary is left.
    """
    everything = (*earlier, request)
    clean = screen(model, everything)
    erased = [wording for one in everything for concept in one.erase for wording in concept.wordings]
    rings = [neighbours(clean, Request(one.erase), near) for one in everything] if near else []
    interleaved = [word for ring in itertools.zip_longest(*rings) for word in ring if word is not None]
    close = tuple({(word.name, word.kind): word for word in interleaved}.values())
    half = budget // 2 if near else 0
    groups = [_prompts_of(word, clean, erased, -(-half // len(close))) for word in close]
    known = {folded(word.name) for word in close}
    vocabulary = sorted(model.hints.words, key=lambda word: derive(0, "bank", word.name, word.kind))
    each = max(1, (budget - half) // max(1, len(vocabulary)))
    for word in vocabulary:
        if folded(word.name) not in known and not contains_word(word.name, erased):
            groups.append(_prompts_of(word, clean, erased, each))
    if not (words := tuple(_cut(groups, budget))):
        raise InputError(
            "the model's vocabulary leaves no word for the bank: choose bank=0, or lengthen the vocabulary in the "
            "model's unlearnkit.toml"
        )
    return Bank(close, words)


def _prompts_of(word: Concept, clean: Model, erased: Sequence[str], count: int) -> tuple[str, ...]:
    """At most ``count`` prompts of a word without erased words; each word begins at another template."""
    words = [text for text in prompts(word, clean.hints, templates=True) if not contains_word(text, erased)]
    start = derive(0, "bank", word.name) % max(1, len(words))
    return tuple((words[start:] + words[:start])[:count])


def _cut(groups: Sequence[tuple[str, ...]], budget: int) -> Iterator[tuple[str, ...]]:
    """The groups, cut at ``budget`` prompts in all."""
    for group in groups:
        if part := group[:budget]:
            yield part
        budget -= len(part)


def protected_texts(
    model: Model,
    request: Request,
    earlier: Sequence[Request],
    *,
    nearest: int,
    general: int,
    places: Callable[[Concept], str] | None,
) -> Tensor:
    """The states (n, width), float64, of protected text: of each its last token.

    Protected are the start token and ``general`` prompts. nearest: above 0 also what the request retains, or else this
    many nearest words, and every wording that was erased earlier. places: what takes a concept's place; with it, this
    text of every request, in each template.
    """
    texts = [""]
    if nearest:
        clean = screen(model, earlier)
        texts += [word for concept in neighbours(clean, request, nearest) for word in concept.wordings]
        texts += [word for past in earlier for concept in past.erase for word in concept.wordings]
    if general:
        texts += memory_bank(model, request, earlier, 0, general).prompts
    if places:
        erased = [one for past in (*earlier, request) for one in past.erase]
        gone = frozenset(word for one in erased for word in one.folded)
        forms = {
            one.kind: ("{}", *without_words(model.hints.templates.get(one.kind, ()), gone)) for one in erased
        }
        texts += [prefix_through(form, places(one)).strip() for one in erased for form in forms[one.kind]]
    return text_states(model, list(dict.fromkeys(texts)))


def refuse_protected(model: Model, request: Request, bases: Iterable[Tensor], free: float) -> None:
    """Raise InputError if a wording to erase has less than the share ``free`` outside of every basis (width, k).

    No update that leaves the protected text unchanged could erase it.
    """
    targets = [word for concept in request.erase for word in concept.wordings]
    states = text_states(model, targets)
    shares = torch.stack([residual_share(states, basis) for basis in bases]).amax(dim=0)
    for word, share in zip(targets, shares.tolist(), strict=True):
        if share < free:
            raise InputError(
                f"{word!r} lies inside the protected text: {share:.2f} of it is outside, {free:g} is needed; protect "
                "less (guards project, general, anchor, history), or lower free"
            )


def text_states(model: Model, texts: Sequence[str]) -> Tensor:
    """The states (n, width), float64, at the last token of each text; at the start token of an empty text."""
    rows = model.text(texts).double().cpu()
    return torch.stack([row[model.last_token(text)] for row, text in zip(rows, texts, strict=True)])

"""Prompts as points of a search: words that are one token for every text encoder, and moves between them.

A prefix of k words is a matrix of shares (k, m) over the m words. Its vectors are the shares times the embeddings, so
one search goes through all text encoders at once, and what it finds is a text that anybody can type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, one_hot

from ..data.prompts import prompts_for
from ..errors import InputError, quoted
from ..model.encoders import free_tokens, shared_words
from ..model.model import Model
from .attack import Victim
from .found import Attempt, Found

__all__ = ["Words", "fits", "in_turn", "prompts_found", "sampled", "simplex", "swaps", "words_of"]


@dataclass(frozen=True)
class Words:
    """texts: m words. embeddings: (m, width), fp32, by text encoder."""

    texts: tuple[str, ...]
    embeddings: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.texts)

    def vectors(self, shares: Tensor) -> dict[str, Tensor]:
        """(k, width) by text encoder for shares (k, m), with gradient to them."""
        return {name: shares.to(table) @ table for name, table in self.embeddings.items()}

    def exact(self, which: Tensor) -> dict[str, Tensor]:
        """The vectors (k, width) by text encoder of the words of these numbers (k,)."""
        return {name: table[which] for name, table in self.embeddings.items()}

    def nearest(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """The numbers (k,) of the words nearest to vectors (k, width): by the mean of the encoders' cosines."""
        near = [
            cosine_similarity(vectors[name][:, None], table[None], dim=2)
            for name, table in self.embeddings.items()
        ]
        return torch.stack(near).mean(0).argmax(1)

    def text(self, which: Tensor) -> str:
        """The words of these numbers (k,) as a text."""
        return " ".join(self.texts[number] for number in which.tolist())


def words_of(model: Model, without: Iterable[str] = ()) -> Words:
    """The words that an attack on this model may use. without: texts whose words are left out.

    Raises InputError for a model whose tokenizers share no word.
    """
    texts, embeddings = shared_words(model.pipe)
    banned = [part for text in without for part in text.lower().split()]
    kept = [place for place, word in enumerate(texts) if not any(_within(word, one) for one in banned)]
    if not kept:
        raise InputError(
            f"the tokenizers of {model.source} share no word, so there is nothing to search over"
        )
    return Words(tuple(texts[place] for place in kept), {name: e[kept] for name, e in embeddings.items()})


def _within(word: str, banned: str) -> bool:
    """Whether a word is a banned one, holds it, or is a piece of it; pieces of one or two letters do not count."""
    return word == banned or (len(banned) > 2 and banned in word) or (len(word) > 2 and word in banned)


def fits(model: Model, prompt: str, length: int) -> int:
    """How many of ``length`` words fit before the prompt. Raises InputError if none does."""
    tokens, room = model.family.room(model.pipe, prompt, model.hints.tokens)
    free = min(room - tokens, free_tokens(model.pipe, prompt))
    if free < 1:
        raise InputError(
            f"{quoted(prompt)} leaves no room for words before it: {model.source} reads {room} tokens"
        )
    return min(length, free)


def prompts_found(
    victim: Victim, name: str, count: int, find: Callable[[Words, str, int], Tensor]
) -> list[tuple[str, str]]:
    """For each of the concept's first ``count`` prompts, the prompt and the words that ``find`` gives for it.

    find: called with the words, the prompt and its number; gives the numbers (k,) of words. Kept as a part of the
    search.
    """
    words, found = words_of(victim.model, victim.concept.wordings), list[tuple[str, str]]()
    for number, prompt in enumerate(prompts_for(victim.model, victim.concept, count)):
        part = victim.part(f"{name} {number}", partial(_named, find, words, prompt, number))
        found.append((prompt, words.text(part["which"].long())))
    return found


def _named(
    find: Callable[[Words, str, int], Tensor], words: Words, prompt: str, number: int
) -> dict[str, Tensor]:
    return {"which": find(words, prompt, number)}


def in_turn(victim: Victim, name: str, arm: str, texts: Sequence[str]) -> Found:
    """Attempts at the budget's number of pictures, which take the texts in turn."""
    seeds = victim.seeds(name)
    return Found(tuple(Attempt(arm, texts[i % len(texts)], seed) for i, seed in enumerate(seeds)))


def simplex(rows: Tensor) -> Tensor:
    """The nearest points (k, m) with entries that are not negative and sum to 1, by row (Duchi et al. 2008)."""
    ordered = rows.sort(dim=1, descending=True).values
    excess = ordered.cumsum(1) - 1
    counts = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    size = (ordered * counts > excess).sum(1, keepdim=True)
    return (rows - excess.gather(1, size - 1) / size).clamp_min(0)


def sampled(shares: Tensor, draws: torch.Generator) -> Tensor:
    """A one-hot row (k, m) for each row of shares, drawn by its shares; a leaf that records a gradient."""
    picked = torch.multinomial(shares.detach().cpu(), 1, generator=draws)[:, 0]
    return one_hot(picked, shares.shape[1]).to(shares).requires_grad_()


def swaps(
    which: Tensor, gradient: Tensor, *, place: int, best: int, count: int, draws: torch.Generator
) -> Tensor:
    """``count`` copies (count, k) of the words ``which`` (k,) with another word at ``place``.

    The other words are drawn from the ``best`` whose entry of the gradient (k, m) is smallest: a first-order guess of
    the largest fall of the loss.
    """
    likely = gradient[place].argsort()[:best]
    tried = likely[torch.randperm(len(likely), generator=draws)[:count].to(likely.device)]
    moved = which.repeat(len(tried), 1)
    moved[:, place] = tried
    return moved

"""Prompts as points of a search: words that are one token for every text encoder, and moves between them.

A prefix of k words is a matrix of shares (k, m) over the m words. Its vectors are the shares times the embeddings, so
one search goes through all text encoders at once, and what it finds is a text that anybody can type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, one_hot

from ..data.prompts import prompts_for
from ..errors import InputError, quoted
from ..model.encoders import free_tokens, shared_words
from ..model.model import Model
from ..schema import Request
from .attack import NO_TEXT, Budget, Cost, Group, Victim
from .result import Attempt, SearchResult

__all__ = ["WordSearch", "Words", "fits", "sampled", "simplex", "swaps", "words_of"]


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
    allowed = [place for place, word in enumerate(texts) if not any(_within(word, one) for one in banned)]
    if not allowed:
        raise InputError(
            f"the tokenizers of {model.source} share no word, so there is nothing to search over"
        )
    return Words(
        tuple(texts[place] for place in allowed), {name: e[allowed] for name, e in embeddings.items()}
    )


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


class WordSearch:
    """An attack that searches words for each of the concept's first ``prompts`` prompts; they share the steps.

    arm: the name of its attempts.
    """

    name: ClassVar[str]
    group: ClassVar[Group] = "prompts"
    arm: ClassVar[str] = "words"
    prompts: int

    def refuses(self, model: Model) -> str | None:
        return NO_TEXT if model.classes else None

    def search(self, victim: Victim) -> SearchResult:
        """Attempts at the budget's number of pictures, which take the texts in turn."""
        words, texts = words_of(victim.model, victim.concept.wordings), list[str]()
        own = prompts_for(victim.model, Request((victim.concept,)), victim.concept, self.prompts)
        for number, prompt in enumerate(own):
            find = partial(self._searched, victim, words, prompt, number)
            which = victim.part(f"{self.name} {number}", find)["which"].long()
            texts.append(self.text(prompt, words.text(which)))
        attempts = enumerate(victim.seeds(self.name))
        return SearchResult(tuple(Attempt(self.arm, texts[i % len(texts)], seed) for i, seed in attempts))

    def cost(self, budget: Budget) -> Cost:
        return Cost()

    def find(self, victim: Victim, words: Words, prompt: str, number: int) -> Tensor:
        """The numbers (k,) of the words for the prompt, which has this number."""
        raise NotImplementedError

    def text(self, prompt: str, words: str) -> str:
        """The text of an attempt: the words alone, in place of the prompt."""
        return words

    def _searched(self, victim: Victim, words: Words, prompt: str, number: int) -> dict[str, Tensor]:
        return {"which": self.find(victim, words, prompt, number)}


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

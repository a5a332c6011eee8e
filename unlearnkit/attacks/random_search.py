"""Random prompts and seeds, without any gradient: what an attack must beat.

UnlearnDiffAtk's random and seed attackers (Zhang et al. 2024, arXiv 2310.11868). Random words before the prompt, and
the plain prompt with many seeds. Where there is a validation classifier, the prefixes under which it sees the concept
are kept; else all of them are judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..model.encoders import known_words
from ..model.model import Model
from ..schema import folded
from .attack import NO_TEXT, Budget, Cost, Group, Victim
from .drawing import batches, draw_attempts
from .result import Attempt, SearchResult

__all__ = ["RandomSearch"]


@dataclass(frozen=True)
class RandomSearch:
    """length: words of a prefix. kept: prefixes that are judged."""

    name: ClassVar = "random_search"
    title: ClassVar = "Random prefixes and seeds"
    paper: ClassVar = "Zhang et al. 2024, arXiv 2310.11868, its random and seed attackers"
    summary: ClassVar = "Random words are put before the prompt, and the prompt is drawn with new seeds."
    group: ClassVar[Group] = "prompts"

    length: int = 4
    kept: int = 4

    def refuses(self, model: Model) -> str | None:
        return NO_TEXT if model.classes else None

    def search(self, victim: Victim) -> SearchResult:
        chosen = self.chosen(victim, self.candidates(victim))
        attempts = [
            Attempt("prefixes", chosen[i % len(chosen)], seed)
            for i, seed in enumerate(victim.seeds(self.name, "prefixes"))
        ]
        attempts += [Attempt("seeds", victim.prompt, seed) for seed in victim.seeds(self.name, "seeds")]
        return SearchResult(tuple(attempts))

    def cost(self, budget: Budget) -> Cost:
        return Cost(pictures=budget.candidates, arms=2)

    def candidates(self, victim: Victim) -> list[str]:
        """``budget.candidates`` prompts with a random prefix, which does not name the concept."""
        draws, named = victim.stream(self.name), " ".join(victim.concept.folded).split()
        words = [word for word in known_words(victim.model.pipe) if folded(word) not in named]
        picks = torch.randint(len(words), (victim.budget.candidates, self.length), generator=draws).tolist()
        return [" ".join([*(words[i] for i in row), victim.prompt]) for row in picks]

    def chosen(self, victim: Victim, prompts: list[str]) -> list[str]:
        """Those under which the validation classifier sees the concept, else the first; all without a classifier."""
        if victim.shows is None:
            return prompts
        seeds = victim.seeds(self.name, "candidates", count=len(prompts))
        result = SearchResult(tuple(Attempt("candidates", p, s) for p, s in zip(prompts, seeds, strict=True)))
        seen = [False] * len(prompts)
        for numbers in batches(result.attempts, victim.model.batch):
            pictures = draw_attempts(victim, result, [result.attempts[i] for i in numbers])
            for number, hit in zip(numbers, victim.shows(pictures), strict=True):
                seen[number] = hit
        return sorted(prompts, key=lambda prompt: not seen[prompts.index(prompt)])[: self.kept]

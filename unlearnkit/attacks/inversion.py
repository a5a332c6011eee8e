"""Learned prompt vectors: Circumventing Concept Erasure Methods (Pham et al. 2024, arXiv 2308.01508).

Textual inversion (Gal et al. 2023, arXiv 2208.01618) on the edited model: the vectors v of k tokens that explain
pictures x of the concept by the untouched model best. Everything else is frozen:

    min over v   E over x, t, ε  | ε_θ(x_t, t, E(v)) - ε |²

Further arms learn the text states themselves, which is more than any prompt can say, and v with the untouched text
encoder put back, which is how an edit of a text encoder is undone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..model.encoders import placeholder, random_vectors
from ..model.model import Model, Weights
from .attack import NO_TEXT, Budget, Cost, Group, Victim
from .learning import learn
from .result import Attempt, SearchResult

__all__ = ["Inversion"]


@dataclass(frozen=True)
class Inversion:
    """counts, few: vectors of each arm. lr: of Adam, times the spread of what is learned."""

    name: ClassVar = "inversion"
    title: ClassVar = "Learned vectors"
    paper: ClassVar = "Pham et al. 2024, arXiv 2308.01508"
    summary: ClassVar = "Vectors in place of a prompt's tokens are learned from pictures of the concept."
    group: ClassVar[Group] = "embeddings"

    counts: tuple[int, ...] = (1, 2, 4)
    few: tuple[int, ...] = (4,)
    lr: float = 0.1

    def refuses(self, model: Model) -> str | None:
        return NO_TEXT if model.classes else None

    def search(self, victim: Victim) -> SearchResult:
        attempts, tensors = list[Attempt](), dict[str, Tensor]()
        put_back, counts = victim.base_encoders(), victim.budget.variants(self.counts, self.few)
        arms: list[tuple[str, int, Weights]] = [(f"{n} vector{'s' * (n > 1)}", n, {}) for n in counts]
        arms += [(f"{counts[-1]} vectors, untouched encoder", counts[-1], put_back)] if put_back else []
        for arm, count, weights in arms:
            prompt = placeholder(victim.model.pipe, count)
            vectors = victim.part(arm, partial(self._vectors, victim, prompt, count, arm, weights))
            tensors |= {f"{arm}.{name}": one for name, one in vectors.items()}
            how: dict[str, Any] = {"vectors": arm, "encoder": "base" if weights else "victim"}
            attempts += [Attempt(arm, prompt, seed, **how) for seed in victim.seeds(self.name)]
        if not victim.budget.thorough:
            return SearchResult(tuple(attempts), tensors)
        stored = victim.part("all states", partial(self._states, victim))
        attempts += [Attempt("all states", "", seed, states="states") for seed in victim.seeds(self.name)]
        return SearchResult(tuple(attempts), tensors | stored)

    def cost(self, budget: Budget) -> Cost:
        arms = len(budget.variants(self.counts, self.few)) + budget.thorough
        return Cost(gradient=arms * budget.steps * budget.batch, examples=budget.examples, arms=arms)

    def _vectors(
        self, victim: Victim, prompt: str, count: int, arm: str, weights: Weights
    ) -> dict[str, Tensor]:
        model, draws = victim.model, victim.stream(self.name, arm)
        vectors = random_vectors(model.pipe, count, draws)
        rates = [self.lr * float(one.std()) for one in vectors.values()]
        learn(
            victim, [*vectors.values()], rates, lambda: model.conditioning([prompt], vectors), draws, weights
        )
        return vectors

    def _states(self, victim: Victim) -> dict[str, Tensor]:
        """The states of the tokens; what a family packs after them stays that of the empty prompt."""
        model = victim.model
        with victim.edited(), torch.no_grad():
            empty, count = model.encode([""]).float(), model.text([""]).shape[1]
        tokens, rest = empty[:, :count].clone(), empty[:, count:]
        rates, draws = [self.lr * float(tokens.std())], victim.stream(self.name, "states")
        learn(victim, [tokens], rates, lambda: torch.cat([tokens, rest], dim=1), draws)
        return {"states": torch.cat([tokens, rest], dim=1)}

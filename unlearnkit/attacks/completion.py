"""Diffusion completion (Lu et al. 2025, arXiv 2505.17013): the edited model goes on where the untouched one stopped.

The untouched model draws the first steps of the concept's prompt, the edited one the rest, under the same or the empty
prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..model.model import Model
from ..model.sampling import denoise
from .attack import Budget, Cost, Group, Victim
from .result import Attempt, SearchResult

__all__ = ["Completion"]


@dataclass(frozen=True)
class Completion:
    """shares: of the sampling steps that the untouched model draws, each under two prompts.

    few: the share and the prompt of a search that is not thorough. Most others are not counted on the canvas, because
    the model that never knew the concept completes such pictures too.
    """

    name: ClassVar = "completion"
    title: ClassVar = "Completed pictures"
    paper: ClassVar = "Lu et al. 2025, arXiv 2505.17013"
    summary: ClassVar = "The untouched model draws the first steps, the edited model goes on."
    group: ClassVar[Group] = "latents"

    shares: tuple[float, ...] = (0.2, 1 / 3)
    few: tuple[tuple[float, bool], ...] = ((0.2, False), (1 / 3, True))

    def refuses(self, model: Model) -> str | None:
        return None

    def search(self, victim: Victim) -> SearchResult:
        attempts, tensors, steps = list[Attempt](), dict[str, Tensor](), victim.model.hints.steps
        for share, named in self._variants(victim.budget):
            start, at = f"{share:.0%} of the steps", min(steps - 1, max(1, round(share * steps)))
            if start not in tensors:
                tensors |= victim.part(start, lambda start=start, at=at: {start: self._begun(victim, at)})  # type: ignore[misc]
            arm = f"{start}, {'own' if named else 'no'} prompt"
            attempts += [
                Attempt(arm, victim.prompt if named else "", s, start=start, row=i, at=at)
                for i, s in enumerate(victim.seeds(self.name, arm))
            ]
        return SearchResult(tuple(attempts), tensors)

    def cost(self, budget: Budget) -> Cost:
        variants = self._variants(budget)
        begun = sum({share for share, _ in variants}) - sum(share for share, _ in variants)
        return Cost(pictures=begun * budget.pictures, arms=len(variants))

    def _variants(self, budget: Budget) -> Sequence[tuple[float, bool]]:
        """Shares, and whether the own prompt follows."""
        return budget.variants([(share, named) for share in self.shares for named in (True, False)], self.few)

    def _begun(self, victim: Victim, stop: int) -> Tensor:
        """x (n, c, h, w) after the untouched model's first steps."""
        model, n, rows = victim.model, victim.budget.pictures, list[Tensor]()
        noise = torch.randn((n, *model.shape), generator=victim.stream(self.name)).to(model.device)
        for first in range(0, n, model.batch):
            part = noise[first : first + model.batch]
            states = model.encode([victim.prompt] * len(part))
            null, steps = model.encode([""] * len(part)), model.hints.steps
            x, _ = denoise(model, part, states, null, steps=steps, guidance=model.hints.guidance, stop=stop)
            rows.append(x)
        return torch.cat(rows)

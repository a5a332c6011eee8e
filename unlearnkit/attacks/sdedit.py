"""SDEdit (Meng et al. 2022, arXiv 2108.01073): half-noised pictures of the concept.

A picture of the concept by the untouched model, noised to a share of the schedule, is denoised by the edited model
under the empty prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..model.model import Model
from .attack import Budget, Cost, Group, Victim
from .result import Attempt, SearchResult

__all__ = ["SDEdit"]


@dataclass(frozen=True)
class SDEdit:
    """shares, few: of the schedule to which pictures are noised: to the sampler's nearest timestep."""

    name: ClassVar = "sdedit"
    title: ClassVar = "Noised pictures"
    paper: ClassVar = "Meng et al. 2022, arXiv 2108.01073"
    summary: ClassVar = "A noised picture of the concept is denoised under the empty prompt."
    group: ClassVar[Group] = "latents"

    shares: tuple[float, ...] = (0.3, 0.5, 0.7)
    few: tuple[float, ...] = (0.5, 0.7)

    def refuses(self, model: Model) -> str | None:
        return None

    def search(self, victim: Victim) -> SearchResult:
        model, attempts, tensors = victim.model, list[Attempt](), dict[str, Tensor]()
        x, steps = victim.examples(victim.budget.pictures), model.hints.steps
        times = model.family.schedule(model.pipe, model.shape).timesteps(steps, model.device)
        for share in victim.budget.variants(self.shares, self.few):
            arm, at = f"noised to {share:.0%}", int((times - share * model.num_timesteps).abs().argmin())
            noise = torch.randn(x.shape, generator=victim.stream(self.name, arm)).to(x)
            tensors[arm] = model.add_noise(x, noise, times[at].expand(len(x)))
            seeds = victim.seeds(self.name, arm)
            attempts += [Attempt(arm, "", s, start=arm, row=i, at=at) for i, s in enumerate(seeds)]
        return SearchResult(tuple(attempts), tensors)

    def cost(self, budget: Budget) -> Cost:
        shares = budget.variants(self.shares, self.few)
        skipped = sum(1 - share for share in shares)
        return Cost(pictures=-skipped * budget.pictures, examples=budget.pictures, arms=len(shares))

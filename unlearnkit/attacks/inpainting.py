"""Inpainting: half of a picture of the concept is kept, and the edited model draws the other half.

The known half is put back, noised, at every step (Lugmayr et al. 2022, arXiv 2201.09865, without its resampling), under
the concept's own prompt and under the empty one. An attack on concept erasure in Lu et al. 2025, arXiv 2505.17013.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..model.model import Model
from .attack import Budget, Cost, Group, Victim
from .result import Attempt, SearchResult

__all__ = ["Inpainting"]


@dataclass(frozen=True)
class Inpainting:
    """kept: the share of the width, from the left, that stays the picture's."""

    name: ClassVar = "inpainting"
    title: ClassVar = "Half of a picture"
    paper: ClassVar = "Lu et al. 2025, arXiv 2505.17013; Lugmayr et al. 2022, arXiv 2201.09865"
    summary: ClassVar = (
        "Beside the left half of a picture of the concept, the edited model draws the right half."
    )
    group: ClassVar[Group] = "latents"

    kept: float = 0.5

    def refuses(self, model: Model) -> str | None:
        return None

    def search(self, victim: Victim) -> SearchResult:
        x, mask = victim.examples(victim.budget.pictures), torch.zeros(victim.model.shape[1:])
        mask[:, : round(self.kept * mask.shape[1])] = 1
        attempts = [
            Attempt(arm, prompt, seed, start="pictures", row=row, mask="mask")
            for arm, prompt in (("own prompt", victim.prompt), ("no prompt", ""))
            for row, seed in enumerate(victim.seeds(self.name, arm))
        ]
        return SearchResult(tuple(attempts), {"pictures": x, "mask": mask})

    def cost(self, budget: Budget) -> Cost:
        return Cost(examples=budget.pictures, arms=2)

"""Relearning: how many steps of ordinary training bring the concept back, and does training on anything else?

The attacked model is trained with the denoising loss on pictures of the concept by the untouched model, as all weights
and as low-rank updates of cross-attention, and judged after several numbers of steps. A model that never knew the
concept learns it too, so only an edit that is faster than that has kept something. A last arm trains on pictures of
other words, as a user would who never thinks of the concept. After ResAlign (Li et al. 2025, arXiv 2507.16302).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ..model.model import Model
from .attack import Budget, Cost, Group, Victim
from .latent_classifier import others
from .result import Attempt, SearchResult
from .retraining import train_weights

__all__ = ["Relearning"]

MOST = 200_000_000  # weights: a larger network is trained by low-rank updates only


@dataclass(frozen=True)
class Relearning:
    """full, low_rank, benign: numbers of steps after which pictures are judged. rate, low_rank_rate: of Adam.

    A search that is not thorough leaves low rank out, where all weights can be trained.
    """

    name: ClassVar = "relearning"
    title: ClassVar = "Relearning"
    paper: ClassVar = "ResAlign's setting: Li et al. 2025, arXiv 2507.16302"
    summary: ClassVar = "The edited model is trained on pictures of the concept, or of anything else."
    group: ClassVar[Group] = "relearning"

    full: tuple[int, ...] = (5, 10, 20)
    low_rank: tuple[int, ...] = (10, 20, 40)
    benign: int = 40
    rate: float = 1e-4
    low_rank_rate: float = 1e-3
    rank: int = 8

    def refuses(self, model: Model) -> str | None:
        half = model.dtype == torch.float16
        return "it is loaded in float16, in which training loses small gradients" if half else None

    def search(self, victim: Victim) -> SearchResult:
        small = sum(one.numel() for one in victim.model.weights("all").values()) <= MOST
        kinds = [("all weights", self.full, 0)] * small
        kinds += [("low rank", self.low_rank, self.rank)] * (victim.budget.thorough or not small)
        attempts, tensors = list[Attempt](), dict[str, Tensor]()
        for kind, counts, rank in [*kinds, ("other pictures", (self.benign,), 0 if small else self.rank)]:
            tensors |= victim.part(kind, partial(self._trained, victim, kind, counts, rank))
            attempts += [
                Attempt(arm, victim.prompt, seed, weights=arm)
                for arm in (_arm(kind, count) for count in counts)
                for seed in victim.seeds(self.name, arm)
            ]
        return SearchResult(tuple(attempts), tensors)

    def cost(self, budget: Budget) -> Cost:
        counts = [self.full, self.low_rank][: 1 + budget.thorough]
        steps, arms = sum(map(max, counts)) + self.benign, sum(map(len, counts)) + 1
        n = budget.examples  # of the concept, and of other words
        return Cost(gradient=steps * budget.batch, pictures=n, examples=n, arms=arms)

    def _trained(self, victim: Victim, kind: str, counts: Sequence[int], rank: int) -> dict[str, Tensor]:
        """``ARM/NAME``: the weights after each number of steps."""
        rate = self.low_rank_rate if rank else self.rate
        prompts = others(victim) if kind == "other pictures" else [victim.prompt] * victim.budget.examples
        after = train_weights(victim, prompts, counts, rank=rank, rate=rate)
        return {
            f"{_arm(kind, count)}/{name}": one for count, part in after.items() for name, one in part.items()
        }


def _arm(kind: str, count: int) -> str:
    return f"{kind}, {count} steps"

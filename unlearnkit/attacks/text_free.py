"""Text-free inversion: TINA (CVPR 2026) and Memories of Forgotten Concepts (2025, arXiv 2412.00782).

Pictures x of the concept by the untouched model are led back through the sampler of the edited model, without a prompt,
to the noise from which it draws them. Each step s is inverted by fixed-point iterations:

    find y with  s(y, ε_θ(y, t)) = x       y ← the solution with ε_θ at the last y

Inversion can succeed on pictures that the model cannot draw otherwise. So this is a diagnosis, and does not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..model.model import Model
from .attack import Budget, Cost, Group, Victim
from .result import Attempt, SearchResult

__all__ = ["TextFree", "clips", "invert_step"]


@dataclass(frozen=True)
class TextFree:
    """rounds, few: of the fixed-point iteration of a step; one round is plain DDIM inversion."""

    name: ClassVar = "text_free"
    title: ClassVar = "Text-free inversion"
    paper: ClassVar = "TINA, CVPR 2026; Memories of Forgotten Concepts, CVPR 2025, arXiv 2412.00782"
    summary: ClassVar = (
        "The noise from which the edited model draws a picture of the concept without a prompt."
    )
    group: ClassVar[Group] = "diagnosis"

    rounds: int = 3
    few: int = 1

    def refuses(self, model: Model) -> str | None:
        return clips(model)

    def search(self, victim: Victim) -> SearchResult:
        noise = victim.part(self.name, lambda: {"noise": self._noise(victim)})["noise"]
        seeds = victim.seeds(self.name)
        attempts = [Attempt("noise", "", s, start="noise", row=i, guidance=1.0) for i, s in enumerate(seeds)]
        figures = {"mean square of the noise": round(noise.square().mean().item(), 4)}  # of ordinary noise: 1
        return SearchResult(tuple(attempts), {"noise": noise}, figures)

    def cost(self, budget: Budget) -> Cost:
        rounds = self.rounds if budget.thorough else self.few
        # without guidance a picture, and each round of a search, is half of the rows of a picture elsewhere
        return Cost(pictures=(rounds - 1) / 2 * budget.pictures, examples=budget.pictures)

    @torch.no_grad()
    def _noise(self, victim: Victim) -> Tensor:
        """The noise (n, c, h, w) of the budget's number of pictures."""
        model, x, parts = victim.model, victim.examples(victim.budget.pictures), list[Tensor]()
        schedule = model.family.schedule(model.pipe, model.shape)
        times = schedule.timesteps(model.hints.steps, model.device)
        rounds = self.rounds if victim.budget.thorough else self.few
        with model.frozen(), victim.edited():
            for first in range(0, len(x), model.batch):
                one = x[first : first + model.batch]
                null = model.encode([""]).expand(len(one), -1, -1)
                for t in times.flip(0):
                    after, rows = one, t.expand(len(one))
                    for _ in range(rounds):
                        output = model.family.guided(model.predict, one, rows, null, null, 1.0)
                        one = invert_step(schedule, output, t, after)
                parts.append(one)
                victim.tick(first + len(one), len(x))
        return torch.cat(parts)


def invert_step(schedule: Any, output: Tensor, t: Tensor, after: Tensor) -> Tensor:
    """x (n, c, h, w) from which a step with this output of the network at t leads to ``after``.

    A step is linear in x and the output, so its values at 0 and at 1 determine it.
    """
    zero = torch.zeros_like(after)
    slope = schedule.step(zero, t, torch.ones_like(after))
    x: Tensor = (after - schedule.step(output, t, zero)) / slope
    return x


def clips(model: Model) -> str | None:
    """Why the model's steps are not linear; None if they are."""
    config = getattr(model.schedule, "ddim", model.pipe.scheduler).config
    if config.get("clip_sample") or config.get("thresholding"):
        return "its sampler clips what it predicts, so its steps cannot be inverted"
    return None

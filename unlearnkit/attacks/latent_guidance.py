"""Latent classifier guidance, after When Are Concepts Erased From Diffusion Models? (Lu et al. 2025, arXiv 2505.17013).

A small network D tells noised latents of the concept from those of other words; all are pictures of the untouched
model. While the edited model draws a prompt, its prediction of the noise is moved against D's loss for "the concept":

    ε̂(x_t) + s √(1 - ᾱ_t) ∇_x L_D(x_t, t)

For a velocity the same shift is divided by the picture's share of x_t. The last step is the edited model's own. The
classifiers of pictures have no part in this.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor

from ..families.schedules import Diffusion
from ..model.model import Model
from ..model.sampling import denoising
from .attack import Budget, Cost, Group, Victim
from .latent_classifier import LatentClassifier, scales, slope, train
from .result import Attempt, SearchResult

__all__ = ["LatentGuidance", "output_shift"]

LEAST = 0.02  # where x_t holds less of the picture, a velocity is left alone


@dataclass(frozen=True)
class LatentGuidance:
    """strengths, few: s, each an arm."""

    name: ClassVar = "latent_guidance"
    title: ClassVar = "Latent classifier guidance"
    paper: ClassVar = "Lu et al. 2025, arXiv 2505.17013"
    summary: ClassVar = (
        "A classifier of noised latents steers the edited model's sampling towards the concept."
    )
    group: ClassVar[Group] = "latents"

    strengths: tuple[float, ...] = (10.0, 25.0, 50.0)
    few: tuple[float, ...] = (25.0,)

    def refuses(self, model: Model) -> str | None:
        return None

    def search(self, victim: Victim) -> SearchResult:
        steps, attempts, tensors = victim.model.hints.steps, list[Attempt](), dict[str, Tensor]()
        net = LatentClassifier(victim.model.shape).to(victim.model.device).requires_grad_(False)
        net.load_state_dict(victim.part("classifier", lambda: train(victim, self.name).state_dict()))
        strengths = victim.budget.variants(self.strengths, self.few)
        for number, strength in enumerate(strengths):
            arm = f"strength {strength:g}"
            tensors |= victim.part(arm, partial(self._begun, victim, net, strength, arm))
            attempts += [
                Attempt(arm, victim.prompt, s, start=arm, at=steps - 1, row=i)
                for i, s in enumerate(victim.seeds(self.name, arm))
            ]
            victim.tick(number + 1, len(strengths))
        return SearchResult(tuple(attempts), tensors)

    def cost(self, budget: Budget) -> Cost:
        arms, n = len(budget.variants(self.strengths, self.few)), budget.examples
        return Cost(pictures=n, examples=n, arms=arms)  # a picture's last step alone is drawn again

    @torch.no_grad()
    def _begun(self, victim: Victim, net: LatentClassifier, strength: float, arm: str) -> dict[str, Tensor]:
        """x (n, c, h, w) before the last step."""
        model, n, parts = victim.model, victim.budget.pictures, list[Tensor]()
        noise = torch.randn((n, *model.shape), generator=victim.stream(self.name, arm)).to(model.device)
        steps, schedule = model.hints.steps, model.family.schedule(model.pipe, model.shape)
        schedule.timesteps(steps, model.device)
        with model.frozen(), victim.edited():
            pair = [model.encode([text]) for text in victim.read(victim.prompt)]
            for start in range(0, n, model.batch):
                x = noise[start : start + model.batch]
                states, null = (one.expand(len(x), -1, -1) for one in pair)
                push = torch.zeros_like(x)
                path = denoising(model, x, states, null, steps=steps, guidance=model.hints.guidance)
                for x, t in islice(path, steps):  # the step after the last of these is the victim's own
                    x += push
                    push = schedule.step(output_shift(model, net, x, t, strength), t, torch.zeros_like(x))
                parts.append(x)
        return {arm: torch.cat(parts)}


def output_shift(model: Model, net: LatentClassifier, x: Tensor, t: Tensor, strength: float) -> Tensor:
    """The shift (n, c, h, w) of the network's output for x at t. A step is linear in the output."""
    at = scales(model, t.expand(len(x)))
    signal, spread = at.T.view(2, -1, 1, 1, 1)
    noise: Tensor = strength * spread * slope(net, x, at)
    if isinstance(model.schedule, Diffusion) and model.schedule.ddim.config.prediction_type == "epsilon":
        return noise
    shift: Tensor = torch.where(signal > LEAST, noise / signal, 0.0)
    return shift

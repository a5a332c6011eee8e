"""The noise probe of When Are Concepts Erased From Diffusion Models? (Lu et al. 2025, arXiv 2505.17013).

DDIM with more noise than a DDPM adds. A step from ᾱ_t to ᾱ_s, with x̂ and ε̂ the predicted picture and noise:

    x_s = √ᾱ_s x̂ + √|1 - ᾱ_s - σ²| ε̂ + k σ z,      σ = η √((1 - ᾱ_s) / (1 - ᾱ_t)) √(1 - ᾱ_t / ᾱ_s),      z ~ N(0, 1)

η > 1 can make the root's argument negative, so its absolute value is taken. η = 1, k = 1 is DDPM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import seeds
from ..families.schedules import Diffusion
from ..model.model import Model
from .attack import Budget, Cost, Group, Victim
from .result import Attempt, SearchResult

__all__ = ["NoiseProbe", "noisy"]


@dataclass(frozen=True)
class NoiseProbe:
    """etas, few: η, each an arm. scales: k, taken in turn within an arm."""

    name: ClassVar = "noise_probe"
    title: ClassVar = "Noise probe"
    paper: ClassVar = "Lu et al. 2025, arXiv 2505.17013"
    summary: ClassVar = "The sampler adds more noise than it should while it draws the concept's prompt."
    group: ClassVar[Group] = "latents"

    etas: tuple[float, ...] = (1.0, 1.34, 1.68)
    few: tuple[float, ...] = (1.34,)
    scales: tuple[float, ...] = (1.0, 1.02, 1.04)

    def refuses(self, model: Model) -> str | None:
        flow = not isinstance(model.schedule, Diffusion)
        return "its sampler is that of a flow, which adds no noise after the start" if flow else None

    def search(self, victim: Victim) -> SearchResult:
        attempts = [
            Attempt(f"η {eta:g}", victim.prompt, s, eta=eta, noise_scale=self.scales[i % len(self.scales)])
            for eta in victim.budget.variants(self.etas, self.few)
            for i, s in enumerate(victim.seeds(self.name, f"{eta:g}"))
        ]
        return SearchResult(tuple(attempts))

    def cost(self, budget: Budget) -> Cost:
        return Cost(arms=len(budget.variants(self.etas, self.few)))


def noisy(
    model: Model,
    states: Tensor,
    null: Tensor,
    numbers: Sequence[int],
    *,
    steps: int,
    guidance: float,
    eta: float,
    scale: float,
) -> Tensor:
    """Latents (n, c, h, w) of states and null states (n, rows, width), with the noise of n seeds."""
    schedule = Diffusion(model.pipe.scheduler)
    draws = [seeds.generator(number) for number in numbers]
    noise = torch.stack([torch.randn(model.shape, generator=one) for one in draws])
    x, times, alphas = (
        noise.to(model.device),
        schedule.timesteps(steps, model.device),
        schedule.ddim.alphas_cumprod,
    )
    for t in times:
        rows, before = t.expand(len(x)), int(t) - schedule.num_timesteps // steps
        output = model.family.guided(model.predict, x, rows, states, null, guidance)
        eps = schedule.prediction(output, x, rows)
        now, then = (
            float(alphas[int(t)]),
            float(alphas[before] if before >= 0 else schedule.ddim.final_alpha_cumprod),
        )
        sigma = eta * ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
        noise = torch.stack([torch.randn(model.shape, generator=one) for one in draws]).to(x)
        picture = schedule.predicted_x0(x, eps, rows)
        if schedule.ddim.config.clip_sample:
            picture = picture.clamp(-1, 1)
        x = then**0.5 * picture + abs(1 - then - sigma**2) ** 0.5 * eps + scale * sigma * noise
    return x

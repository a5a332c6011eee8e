"""The denoising-loss probe: how well the model still denoises pictures of the concept, under which caption.

No picture is drawn and no classifier is asked. For pictures x of the concept by the untouched model, at the same times
and with the same noise for every model and caption c:

    L(c) = mean over x, t, ε of | ε_θ(x_t, t, c) - ε |²

A model that never knew the concept has a higher loss. The empty caption shows what is known whatever the prompt says.
The interval is a bootstrap over pictures. The loss of a text-to-image model as a measure of what it knows: Li et al.
2023, arXiv 2303.16203.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..data.prompts import neighbours
from ..data.wording import format_prompt
from ..metrics.stats import cluster_bootstrap
from ..model.model import Model
from ..schema import Request
from .attack import Budget, Cost, Group, Victim
from .result import SearchResult

__all__ = ["Probe", "losses"]


@dataclass(frozen=True)
class Probe:
    """times: timesteps of each picture, evenly spread."""

    name: ClassVar = "probe"
    title: ClassVar = "Denoising loss"
    paper: ClassVar = "Li et al. 2023, arXiv 2303.16203"
    summary: ClassVar = (
        "The loss on pictures of the concept, captioned, without a caption, and under another."
    )
    group: ClassVar[Group] = "probe"

    times: int = 8

    def refuses(self, model: Model) -> str | None:
        return None

    def search(self, victim: Victim) -> SearchResult:
        x, figures = victim.examples(), dict[str, Any]()
        captions = self.captions(victim)
        for number, (name, caption) in enumerate(captions.items()):
            rows = victim.part(name, lambda caption=caption: self._both(victim, x, caption))  # type: ignore[misc]
            for side, values in rows.items():
                interval = cluster_bootstrap(values.tolist(), range(len(values)))
                figures[f"{name}, {side}"] = dataclasses.asdict(interval)
            victim.tick(number + 1, len(captions))
        return SearchResult(figures=figures)

    def cost(self, budget: Budget) -> Cost:
        return Cost(forward=3 * 2 * self.times * budget.examples, examples=budget.examples, arms=0)

    def captions(self, victim: Victim) -> dict[str, str]:
        """The concept's prompt, none, and that of the nearest word of the model's vocabulary."""
        model, concept = victim.model, victim.concept
        near = neighbours(model, Request((concept,)), 1)
        other = format_prompt(model.hints.templates[concept.kind][0], near[0].name) if near else ""
        return {"own caption": victim.prompt, "no caption": "", "another caption": other}

    def _both(self, victim: Victim, x: Tensor, caption: str) -> dict[str, Tensor]:
        """Each picture's loss (n,) in the untouched model and in the attacked one."""
        before = losses(victim.model, x, caption, self.times, victim.stream(self.name))
        with victim.edited() as model:
            return {
                "untouched": before,
                "after": losses(model, x, caption, self.times, victim.stream(self.name)),
            }


@torch.no_grad()
def losses(model: Model, x: Tensor, caption: str, times: int, draws: torch.Generator) -> Tensor:
    """The loss of each of the latents x (n, c, h, w): (n,), the mean of ``times`` evenly spread timesteps."""
    states, total = model.encode([caption]).expand(len(x), -1, -1), torch.zeros(len(x), device=x.device)
    for place in range(times):
        t = torch.full((len(x),), (2 * place + 1) * model.num_timesteps // (2 * times), device=x.device)
        noise = torch.randn(x.shape, generator=draws).to(x.device)
        error = model.eps(model.add_noise(x, noise, t), t, states) - model.training_target(x, noise)
        total += error.square().flatten(1).mean(1)
    return total / times

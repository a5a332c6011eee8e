"""Learned prompt vectors: Circumventing Concept Erasure Methods (Pham et al. 2024, arXiv 2308.01508).

Textual inversion (Gal et al. 2023, arXiv 2208.01618) on the edited model: the vectors v of k tokens that explain
pictures x of the concept by the untouched model best. Everything else is frozen:

    min over v   E over x, t, ε  | ε_θ(x_t, t, E(v)) - ε |²

Further arms learn the text states themselves, which is more than any prompt can say, and v with the untouched text
encoder put back, which is how an edit of a text encoder is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ..model.encoders import placeholder, random_vectors
from ..model.model import Model
from .attack import NO_TEXT, Budget, Cost, Group, Victim
from .found import Attempt, Found

__all__ = ["Inversion", "denoising_loss", "learned"]


@dataclass(frozen=True)
class Inversion:
    """counts: vectors of each arm. lr: of Adam, times the spread of the embeddings. states_lr: of the text states."""

    name: ClassVar = "inversion"
    title: ClassVar = "Learned vectors"
    paper: ClassVar = "Pham et al. 2024, arXiv 2308.01508"
    summary: ClassVar = "Vectors in place of a prompt's tokens are learned from pictures of the concept."
    group: ClassVar[Group] = "embeddings"

    counts: tuple[int, ...] = (1, 2, 4)
    lr: float = 0.1

    def refuses(self, model: Model) -> str | None:
        return NO_TEXT if model.classes else None

    def search(self, victim: Victim) -> Found:
        attempts, tensors = list[Attempt](), dict[str, Tensor]()
        for count in self.counts:
            arm = f"{count} vector{'s' * (count > 1)}"
            vectors = victim.part(arm, partial(self._vectors, victim, count, arm))
            tensors |= {f"{arm}.{name}": one for name, one in vectors.items()}
            prompt = placeholder(victim.model.pipe, count)
            attempts += [Attempt(arm, prompt, seed, vectors=arm) for seed in victim.seeds(self.name)]
        return Found(tuple(attempts), tensors)

    def cost(self, budget: Budget) -> Cost:
        return Cost(gradient=len(self.counts) * budget.steps * budget.batch, pictures=budget.examples)

    def _vectors(self, victim: Victim, count: int, arm: str) -> dict[str, Tensor]:
        model, draws = victim.model, victim.stream(self.name, arm)
        vectors, prompt = random_vectors(model.pipe, count, draws), placeholder(model.pipe, count)
        spread = max(float(one.std()) for one in vectors.values()) if count * len(vectors) else 1.0
        learned(
            victim,
            list(vectors.values()),
            lambda: model.conditioning([prompt], vectors),
            self.lr * spread,
            draws,
        )
        return vectors


def learned(
    victim: Victim,
    variables: Sequence[Tensor],
    states: Callable[[], Tensor],
    lr: float,
    draws: torch.Generator,
    encoding: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Change the variables, by Adam, until ``states()`` (1, rows, width) explains the victim's examples best."""
    examples, budget = victim.examples(), victim.budget
    adam = torch.optim.Adam([one.requires_grad_() for one in variables], lr=lr)
    with victim.model.frozen(), torch.enable_grad(), victim.edited() as model:
        for step in range(budget.steps):
            x = examples[torch.randint(len(examples), (budget.batch,), generator=draws)]
            loss = denoising_loss(model, x, states(), draws)
            gradients = torch.autograd.grad(loss, variables, allow_unused=True, materialize_grads=True)
            for one, gradient in zip(variables, gradients, strict=True):
                one.grad = gradient
            adam.step()
            victim.tick(step + 1, budget.steps)


def denoising_loss(model: Model, x: Tensor, states: Tensor, draws: torch.Generator) -> Tensor:
    """The mean squared error of the prediction for latents x (n, c, h, w), noised at random, under states."""
    t = torch.randint(model.num_timesteps, (len(x),), generator=draws).to(x.device)
    noise = torch.randn(x.shape, generator=draws).to(x.device)
    eps = model.eps(model.add_noise(x, noise, t), t, states.expand(len(x), -1, -1))
    return (eps - model.training_target(x, noise)).square().mean()

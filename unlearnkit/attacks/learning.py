"""Learn what conditions the attacked model, from pictures of the concept, by the ordinary denoising loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..model.model import Model, Weights
from .attack import Victim

__all__ = ["denoising_loss", "learn"]


def learn(
    victim: Victim,
    variables: Sequence[Tensor],
    rates: Sequence[float],
    states: Callable[[], Tensor],
    draws: torch.Generator,
    weights: Weights | None = None,
) -> None:
    """Change the variables, by Adam, until ``states()`` (1, rows, width) explains the victim's examples best.

    rates: the step size of each variable. weights: on top of the victim's.
    """
    examples, budget = victim.examples(), victim.budget
    groups = [{"params": [one.requires_grad_()], "lr": lr} for one, lr in zip(variables, rates, strict=True)]
    adam = torch.optim.Adam(groups)
    with victim.model.frozen(), torch.enable_grad(), victim.edited(weights) as model:
        for step in range(budget.steps):
            x = examples[torch.randint(len(examples), (budget.batch,), generator=draws)]
            loss = denoising_loss(model, x, states().to(model.dtype), draws)
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

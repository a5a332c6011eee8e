"""A small network that tells noised latents of a concept from those of other words, at every time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, softplus

from ..data import pictures
from ..data.wording import format_prompt
from ..model.model import Model
from ..schema import folded
from .attack import Victim

__all__ = ["LatentClassifier", "others", "scales", "slope", "train"]

SIDE, WIDTH, BATCH, RATE, DECAY = 16, 256, 64, 1e-3, 1e-3


class LatentClassifier(nn.Module):
    """(n, c, h, w) and the scales of signal and noise (n, 2) to logits (n,): positive for the concept.

    Latents of more than 16 x 16 positions are averaged to that.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, *sides = shape
        self.side = (min(SIDE, sides[0]), min(SIDE, sides[1]))
        self.picture = nn.Linear(channels * self.side[0] * self.side[1], WIDTH)
        self.time = nn.Linear(2, WIDTH)
        self.body = nn.Sequential(
            nn.SiLU(), nn.Linear(WIDTH, WIDTH // 2), nn.SiLU(), nn.Linear(WIDTH // 2, 1)
        )

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        small = adaptive_avg_pool2d(x, self.side).flatten(1)
        logits: Tensor = self.body(self.picture(small) + self.time(noise))[:, 0]
        return logits


def scales(model: Model, t: Tensor) -> Tensor:
    """The factors of picture and noise in x_t (n, 2) at timesteps t (n,): √ᾱ_t and √(1-ᾱ_t); of a flow 1-σ and σ."""
    one = torch.ones((len(t), 1, 1, 1), device=t.device)
    both = model.add_noise(one, 0 * one, t), model.add_noise(0 * one, one, t)
    return torch.cat(both, dim=1)[:, :, 0, 0]


def slope(net: LatentClassifier, x: Tensor, noise: Tensor) -> Tensor:
    """The gradient (n, c, h, w) to x of the loss of "the concept", -log σ(D(x_t)), of each row."""
    with torch.enable_grad():
        x = x.detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(softplus(-net(x, noise)).sum(), x)
    return gradient


def others(victim: Victim) -> list[str]:
    """Prompts of as many pictures as the budget's examples: the other words in turn, or the empty prompt."""
    hints, named = victim.model.hints, victim.concept.folded
    words = [one for one in hints.words if folded(one.name) not in named]
    prompts = [format_prompt(hints.templates[one.kind][0], one.name) for one in words] or [""]
    return [prompts[i % len(prompts)] for i in range(victim.budget.examples)]


def train(victim: Victim, name: str) -> LatentClassifier:
    """A classifier of the untouched model's pictures of the concept and of the other words."""
    model, draws = victim.model, victim.stream(name, "classifier")
    x = torch.cat([victim.examples(), pictures.draw(model, others(victim), folder=victim.cache)])
    right = (torch.arange(len(x)) < victim.budget.examples).float().to(x.device)
    net = LatentClassifier(model.shape).to(x.device)
    with torch.no_grad():
        for weight in net.parameters():
            spread = (2 / weight.shape[1]) ** 0.5 if weight.dim() > 1 else 0.0
            weight.copy_(spread * torch.randn(weight.shape, generator=draws))
    adam = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    with torch.enable_grad():
        for _ in range(2 * victim.budget.steps):
            which = torch.randint(len(x), (BATCH,), generator=draws)
            share = 1 - torch.rand(BATCH, generator=draws) ** 3  # more of the noisy times, as their code
            t = (share * (model.num_timesteps - 1)).long().to(x.device)
            noisy = model.add_noise(x[which], torch.randn((BATCH, *model.shape), generator=draws).to(x), t)
            logits = net(noisy, scales(model, t))
            adam.zero_grad()
            softplus(logits * (1 - 2 * right[which])).mean().backward()  # type: ignore[no-untyped-call]
            adam.step()
    return net.requires_grad_(False)

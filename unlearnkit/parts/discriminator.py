"""A discriminator D of latents: which of two domains does a sample come from? Logits, one for each of a few patches.

It is the one of DoCo's released code: 4x4 convolutions of stride 2 with 64, 128, 256 and 512 channels,
LeakyReLU 0.2, BatchNorm (always of the batch) from the second on, and a 4x4 one of stride 1 to one channel.
For 64x64 latents it has four of stride 2 and gives 3x3 logits; smaller latents get fewer, so that patches are left.
It sees neither the text nor the noised latents nor the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import seeds
from ..errors import DivergedError, ModelError

__all__ = ["Discriminator"]

WIDTH = 64  # channels after the first convolution
MOST = 4  # convolutions of stride 2
BETAS = (0.5, 0.999)


class Discriminator:
    """Weights in fp32 and their Adam, β (0.5, 0.999). Anchor is label 0, target label 1, as in DoCo's code at head.

    shape: (c, h, w) of a latent. Raises ModelError for latents that are too small for a patch.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        lr: float = 1e-4,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.weights = _begin(shape, seed, device)
        self.strides = sum(name.startswith("conv") and name.endswith("weight") for name in self.weights) - 1
        self.optimiser = torch.optim.Adam(self.weights.values(), lr=lr, betas=BETAS, fused=True)
        for weight in self.weights.values():
            self._take(weight, torch.tensor(0.0), torch.zeros_like(weight), torch.zeros_like(weight))

    def logits(self, x: Tensor) -> Tensor:
        """Logits (n, 1, h', w') of samples x (n, c, h, w); positive means target.

        Its own weights are constants here: gradients reach only x.
        """
        return self._logits({name: weight.detach() for name, weight in self.weights.items()}, x)

    def learn(self, anchor: Tensor, target: Tensor, *, leak: bool = False) -> tuple[float, float]:
        """One step of Adam on L_D = BCE(D(anchor), 0) + BCE(D(target), 1); returns L_D and the share it told right.

        Nothing reaches what made the samples. leak: BCE(D(target), 0) is added, the part that the student's backward
        leaves in the discriminator's gradient in the released code. Raises DivergedError for a loss that is not finite.
        """
        with torch.enable_grad():
            zero = self._logits(self.weights, anchor.detach())
            one = self._logits(self.weights, target.detach())
            loss = F.softplus(zero).mean() + F.softplus(-one).mean()
            if leak:
                loss = loss + F.softplus(one).mean()
        gradients = torch.autograd.grad(loss, list(self.weights.values()))
        right = torch.cat([zero.detach().flatten() < 0, one.detach().flatten() > 0]).float().mean()
        value, share = torch.stack([loss.detach(), right]).tolist()
        if not math.isfinite(value):
            raise DivergedError(
                f"the discriminator's loss is {value}: lower its learning rate (discriminator_lr)"
            )
        for weight, gradient in zip(self.weights.values(), gradients, strict=True):
            weight.grad = gradient
        self.optimiser.step()
        self.optimiser.zero_grad()
        return value, share

    def tensors(self) -> dict[str, Tensor]:
        """Weights, Adam's moments and its count: everything that a step changes."""
        held = {}
        for name, weight in self.weights.items():
            adam = self.optimiser.state[weight]
            held[f"weight/{name}"] = weight
            held[f"first/{name}"], held[f"second/{name}"] = adam["exp_avg"], adam["exp_avg_sq"]
            held["steps"] = adam["step"]
        return held

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what ``tensors`` gave."""
        for name, weight in self.weights.items():
            with torch.no_grad():
                weight.copy_(tensors[f"weight/{name}"])
            self._take(weight, tensors["steps"], tensors[f"first/{name}"], tensors[f"second/{name}"])

    def _take(self, weight: Tensor, steps: Tensor, first: Tensor, second: Tensor) -> None:
        counter = steps.clone().to(weight.device)
        self.optimiser.state[weight] = {"step": counter, "exp_avg": first, "exp_avg_sq": second}

    def _logits(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        for place in range(self.strides):
            x = F.conv2d(x, weights[f"conv{place}.weight"], weights[f"conv{place}.bias"], stride=2, padding=1)
            if place:
                scale, shift = weights[f"norm{place}.weight"], weights[f"norm{place}.bias"]
                x = F.batch_norm(x, None, None, scale, shift, training=True)
            x = F.leaky_relu(x, 0.2)
        last = f"conv{self.strides}"
        return F.conv2d(x, weights[f"{last}.weight"], weights[f"{last}.bias"], padding=1)


def _begin(shape: tuple[int, int, int], seed: int, device: torch.device | str) -> dict[str, Tensor]:
    """First weights, drawn as PyTorch's layers draw theirs: uniform in ±1/√(inputs of an output)."""
    channels, *sides = shape
    if min(sides) < 4:
        raise ModelError(f"latents of {sides[0]}x{sides[1]} are too small for a discriminator: it needs 4x4")
    strides = max(1, min(MOST, int(math.log2(min(sides))) - 2))
    widths = [WIDTH * 2**place for place in range(strides)]
    found: dict[str, Tensor] = {}

    def draw(name: str, *size: int) -> None:
        bound = 1 / math.sqrt(math.prod(size[1:]))
        for part, form in (("weight", size), ("bias", size[:1])):
            values = torch.rand(form, generator=seeds.stream(seed, "discriminator", f"{name}.{part}"))
            found[f"{name}.{part}"] = (2 * values - 1) * bound

    for place, (inputs, outputs) in enumerate(zip([channels, *widths], [*widths, 1], strict=True)):
        draw(f"conv{place}", outputs, inputs, 4, 4)
        if 0 < place < strides:
            found |= {f"norm{place}.weight": torch.ones(outputs), f"norm{place}.bias": torch.zeros(outputs)}
    return {name: value.to(device).requires_grad_() for name, value in found.items()}

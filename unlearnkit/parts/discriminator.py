"""A discriminator D of latents: from which of two domains is a sample? It gives one logit for each of a few patches.

It is the one of DoCo's released code: 4x4 convolutions of stride 2 with 64, 128, 256 and 512 channels, LeakyReLU 0.2,
BatchNorm (with the batch's own statistics) from the second on, and a last 4x4 convolution of stride 1 to one channel.
For 64x64 latents it has four of stride 2 and gives 3x3 logits. Smaller latents get fewer, so that patches are left.
It does not see the text, the noisy latents or the timestep.
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

    shape: (c, h, w) of a latent. Raises ModelError for latents smaller than 4x4.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        lr: float = 1e-4,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.weights = _init_weights(shape, seed, device)
        self.strides = sum(name.startswith("conv") and name.endswith("weight") for name in self.weights) - 1
        self.optimiser = torch.optim.Adam(self.weights.values(), lr=lr, betas=BETAS, fused=True)
        for weight in self.weights.values():
            self._set_adam(weight, torch.tensor(0.0), torch.zeros_like(weight), torch.zeros_like(weight))

    def logits(self, x: Tensor) -> Tensor:
        """Logits (n, 1, h', w') of samples x (n, c, h, w); positive means target.

        Its own weights are constants here: gradients reach only x.
        """
        return self._logits({name: weight.detach() for name, weight in self.weights.items()}, x)

    def learn(self, anchor: Tensor, target: Tensor, *, leak: bool = False) -> tuple[float, float]:
        """One step of Adam on L_D = BCE(D(anchor), 0) + BCE(D(target), 1); returns L_D and its accuracy.

        No gradient reaches the samples. leak: BCE(D(target), 0) is added, the part that the student's backward
        leaves in the discriminator's gradient in the released code. Raises DivergedError for a loss that is not finite.
        """
        with torch.enable_grad():
            zero = self._logits(self.weights, anchor.detach())
            one = self._logits(self.weights, target.detach())
            loss = F.softplus(zero).mean() + F.softplus(-one).mean()
            if leak:
                loss = loss + F.softplus(one).mean()
        gradients = torch.autograd.grad(loss, list(self.weights.values()))
        correct = torch.cat([zero.detach().flatten() < 0, one.detach().flatten() > 0]).float().mean()
        value, accuracy = torch.stack([loss.detach(), correct]).tolist()
        if not math.isfinite(value):
            raise DivergedError(
                f"the discriminator's loss is {value}: lower its learning rate (discriminator_lr)"
            )
        for weight, gradient in zip(self.weights.values(), gradients, strict=True):
            weight.grad = gradient
        self.optimiser.step()
        self.optimiser.zero_grad()
        return value, accuracy

    def tensors(self) -> dict[str, Tensor]:
        """Weights, Adam's moments and its step count: everything that a step changes."""
        tensors = {}
        for name, weight in self.weights.items():
            adam = self.optimiser.state[weight]
            tensors[f"weight/{name}"] = weight
            tensors[f"first/{name}"], tensors[f"second/{name}"] = adam["exp_avg"], adam["exp_avg_sq"]
            tensors["steps"] = adam["step"]
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what ``tensors`` gave."""
        for name, weight in self.weights.items():
            with torch.no_grad():
                weight.copy_(tensors[f"weight/{name}"])
            self._set_adam(weight, tensors["steps"], tensors[f"first/{name}"], tensors[f"second/{name}"])

    def _set_adam(self, weight: Tensor, steps: Tensor, first: Tensor, second: Tensor) -> None:
        counter = steps.clone().to(weight.device)
        self.optimiser.state[weight] = {"step": counter, "exp_avg": first, "exp_avg_sq": second}

    def _logits(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        for layer in range(self.strides):
            x = F.conv2d(x, weights[f"conv{layer}.weight"], weights[f"conv{layer}.bias"], stride=2, padding=1)
            if layer:
                scale, shift = weights[f"norm{layer}.weight"], weights[f"norm{layer}.bias"]
                x = F.batch_norm(x, None, None, scale, shift, training=True)
            x = F.leaky_relu(x, 0.2)
        last = f"conv{self.strides}"
        return F.conv2d(x, weights[f"{last}.weight"], weights[f"{last}.bias"], padding=1)


def _init_weights(shape: tuple[int, int, int], seed: int, device: torch.device | str) -> dict[str, Tensor]:
    """Initial weights, as PyTorch's layers draw them: uniform in ±1/√(fan-in)."""
    channels, *sides = shape
    if min(sides) < 4:
        raise ModelError(f"latents of {sides[0]}x{sides[1]} are too small for a discriminator: it needs 4x4")
    strides = max(1, min(MOST, int(math.log2(min(sides))) - 2))
    widths = [WIDTH * 2**layer for layer in range(strides)]
    weights: dict[str, Tensor] = {}

    def draw(name: str, *size: int) -> None:
        bound = 1 / math.sqrt(math.prod(size[1:]))
        for part, form in (("weight", size), ("bias", size[:1])):
            values = torch.rand(form, generator=seeds.stream(seed, "discriminator", f"{name}.{part}"))
            weights[f"{name}.{part}"] = (2 * values - 1) * bound

    for layer, (inputs, outputs) in enumerate(zip([channels, *widths], [*widths, 1], strict=True)):
        draw(f"conv{layer}", outputs, inputs, 4, 4)
        if 0 < layer < strides:
            weights |= {f"norm{layer}.weight": torch.ones(outputs), f"norm{layer}.bias": torch.zeros(outputs)}
    return {name: value.to(device).requires_grad_() for name, value in weights.items()}

"""Training data: images of the base model as latents with their prompts, and noisy batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from ..model.model import Model

__all__ = ["DenoiserInput", "ImageSet", "NoisyBatch", "PromptSet", "noise_ratio"]


@dataclass(frozen=True)
class DenoiserInput:
    """Denoiser inputs: noisy latents x (n, c, h, w), timesteps t (n,) and conditioning cond (n, tokens, width)."""

    x: Tensor
    t: Tensor
    cond: Tensor

    def with_cond(self, cond: Tensor) -> DenoiserInput:
        """The same noisy latents under another conditioning (n, tokens, width), or (1, tokens, width) for all."""
        return replace(self, cond=cond.expand_as(self.cond))


@dataclass(frozen=True)
class NoisyBatch:
    """A batch of an image set with noise mixed in.

    input: rows for the denoiser under the images' own prompts. which: the images' numbers in their set (n,).
    noise: the training target (n, c, h, w): the noise, or for a flow the velocity.
    """

    input: DenoiserInput
    noise: Tensor
    which: Tensor


@dataclass(frozen=True)
class PromptSet:
    """Prompts with the concept and without it: the conditioning cond and null, each (n, tokens, width).

    images: one of each prompt with the concept, if images are drawn.
    """

    cond: Tensor
    null: Tensor
    images: ImageSet | None


@dataclass(frozen=True)
class ImageSet:
    """Images as latents (m, c, h, w), the conditioning (k, tokens, width) of their prompts, and which each has (m,).

    spread: the standard deviation (m, c, h, w) of latents that are drawn anew in each batch. None: they are exact.
    """

    model: Model
    latents: Tensor
    cond: Tensor
    prompt_index: Tensor
    spread: Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, count: int, draws: torch.Generator, *, first: float = 0.0) -> NoisyBatch:
        """``count`` images drawn with replacement, noised. first: see ``noisy_batch``."""
        return self.noisy_batch(torch.randint(len(self), (count,), generator=draws), draws, first=first)

    def noisy_batch(self, which: Tensor, draws: torch.Generator, *, first: float = 0.0) -> NoisyBatch:
        """These images (n,), each with noise of a time uniform in [first, 1) of all."""
        model, times = self.model, self.model.num_timesteps
        t = torch.randint(int(first * times), times, (len(which),), generator=draws).to(model.device)
        noise = torch.randn((len(which), *self.latents.shape[1:]), generator=draws).to(model.device)
        x = self.clean(which, draws)
        target = model.training_target(x, noise)
        cond = self.cond[self.prompt_index[which]]
        return NoisyBatch(DenoiserInput(model.add_noise(x, noise, t), t, cond), target, which)

    def clean(self, which: Tensor, draws: torch.Generator) -> Tensor:
        """The latents (n, c, h, w) of these images (n,), before any noise."""
        x = self.latents[which]
        if self.spread is None:
            return x
        return x + self.spread[which] * torch.randn(x.shape, generator=draws).to(x.device)

    @staticmethod
    def joined(sets: Sequence[ImageSet]) -> ImageSet:
        """All their images, one set after the other."""
        if len(sets) == 1:
            return sets[0]
        first = accumulate((len(one.cond) for one in sets[:-1]), initial=0)
        spreads = [torch.zeros_like(one.latents) if one.spread is None else one.spread for one in sets]
        return ImageSet(
            sets[0].model,
            torch.cat([one.latents for one in sets]),
            torch.cat([one.cond for one in sets]),
            torch.cat([start + one.prompt_index for start, one in zip(first, sets, strict=True)]),
            torch.cat(spreads) if any(one.spread is not None for one in sets) else None,
        )

    def with_prompt_dropout(self, share: float) -> ImageSet:
        """The set plus copies of some of its images under the empty prompt; the copies are ``share`` of the new set.

        share: in [0, 1). Training on them preserves the unconditional prediction.
        """
        count = len(self)
        extra = round(count * share / (1 - share))
        if not extra:
            return self
        which = torch.arange(extra) * count // extra
        empty = replace(
            self,
            latents=self.latents[which],
            cond=self.model.encode([""]),
            prompt_index=torch.zeros_like(which),
            spread=None if self.spread is None else self.spread[which],
        )
        return ImageSet.joined([self, empty])


def noise_ratio(model: Model, t: Tensor) -> Tensor:
    """r (n, 1, 1, 1) for timesteps t (n,): (x₀ - x̂₀)² = r e² for an error e of the prediction.

    (1 - ᾱ_t) / ᾱ_t for noise; for the velocity of a flow σ_t².
    """
    one = torch.ones((len(t), 1, 1, 1), device=t.device)
    return model.predicted_x0(0 * one, one, t).square()

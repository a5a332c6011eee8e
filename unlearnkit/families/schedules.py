"""Noise schedules: diffusion (DDPM, sampled with DDIM) and rectified flow.

Both have the same methods. A timestep t runs from 0 (image) to ``num_timesteps - 1`` (noise); x_t is the noisy input.

    Diffusion   x_t = √ᾱ_t x + √(1-ᾱ_t) ε             the prediction is ε, whatever the network was trained to give
    Flow        x_t = (1-σ_t) x + σ_t ε               the prediction is the velocity ε - x

A flow's loss is that of the velocity, as in training. A loss on the noise would weigh it by (1-σ_t)², which is near 0
where the image is decided. The scheduler's shift is in σ_t, so uniform timesteps see the sampler's noise levels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..errors import InputError, ModelError, quoted

__all__ = ["Diffusion", "Flow", "Schedule", "check_steps", "fewest"]

# the smallest scale of a picture that is divided by: with zero terminal SNR the last step has none
FAINT = 1e-3
ODD = (
    *("shift_terminal", "invert_sigmas", "stochastic_sampling"),
    *("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
)


def check_steps(scheduler: Any, steps: int, *, whole: bool = True) -> None:
    """Raises InputError for a number of steps that a scheduler cannot draw in, with the allowed range.

    Raises ModelError for a scheduler that cannot draw at all.
    whole: try every step on one number. False: only check the timesteps.
    """
    times = int(scheduler.config.num_train_timesteps)
    if not 1 <= steps <= times or not _can_draw(scheduler, steps, whole):
        low = fewest(scheduler, 1, whole=whole)
        high = next(count for count in range(times, 0, -1) if _can_draw(scheduler, count, whole))
        raise InputError(
            f"steps {quoted(steps)} is out of range for {type(scheduler).__name__}: use {low} to {high}"
        )


def fewest(scheduler: Any, least: int, *, whole: bool = True) -> int:
    """The least number of steps, at least ``least``, that a scheduler can draw in. Raises ModelError if none works."""
    for count in range(least, int(scheduler.config.num_train_timesteps) + 1):
        if _can_draw(scheduler, count, whole):
            return count
    raise ModelError(
        f"the model's {type(scheduler).__name__} cannot draw in any number of steps: correct its configuration"
    )


def _can_draw(scheduler: Any, steps: int, whole: bool) -> bool:
    """Whether it can draw in this number of steps, using only timesteps that the model was trained for."""
    if not hasattr(scheduler, "alphas_cumprod"):
        return True  # a flow: its timesteps are shares of noise
    fresh, x = type(scheduler).from_config(scheduler.config), torch.zeros(1, 1, 1, 1)
    try:
        with np.errstate(all="ignore"), torch.random.fork_rng(devices=[]):
            fresh.set_timesteps(steps)
            if not fresh.timesteps.max() < fresh.config.num_train_timesteps:
                return False
            for t in fresh.timesteps if whole else ():
                x_in = fresh.scale_model_input(x, t)
                x = fresh.step(torch.zeros_like(x_in), t, x, return_dict=False)[0]
    except (
        AssertionError,
        IndexError,
        ValueError,
        ZeroDivisionError,
    ):  # the schedulers' errors for too few or too many steps
        return False
    return bool(torch.isfinite(x).all())


class Diffusion:
    """The schedule of a diffusion (DDPM) pipeline, with DDIM steps."""

    def __init__(self, scheduler: Any) -> None:
        kind = scheduler.config.get("prediction_type", "epsilon")
        if kind not in ("epsilon", "v_prediction"):
            raise ModelError(
                f"prediction type {quoted(kind)} is not supported: use a model of epsilon or v_prediction"
            )
        # DDIM clips by default, which is for pixels: clip only if the model's own scheduler does
        clip = scheduler.config.get("clip_sample", False)
        self.ddim = DDIMScheduler.from_config(scheduler.config, clip_sample=clip)
        self.num_timesteps = int(self.ddim.config.num_train_timesteps)

    def model_timestep(self, t: Tensor) -> Tensor:
        """The network's timestep input for timesteps t (n,)."""
        return t

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t, fp32, for latents and noise (n, c, h, w) at timesteps t (n,)."""
        signal, spread = self._scales(t)
        return signal * latents.float() + spread * noise.float()

    def training_target(self, latents: Tensor, noise: Tensor) -> Tensor:
        """The prediction's target for latents with this noise (n, c, h, w)."""
        return noise

    def prediction(self, output: Tensor, latents: Tensor, t: Tensor) -> Tensor:
        """The prediction, fp32, from the network's output for x_t."""
        if self.ddim.config.prediction_type == "epsilon":
            return output.float()
        signal, spread = self._scales(t)  # v = signal * noise - spread * picture
        return signal * output.float() + spread * latents.float()

    def predicted_x0(self, latents: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The latents without noise, fp32, that a prediction for x_t implies."""
        signal, spread = self._scales(t)
        return (latents.float() - spread * prediction) / signal.clamp_min(FAINT)

    def timesteps(self, steps: int, device: torch.device) -> Tensor:
        """The timesteps of ``steps`` sampling steps, from noise to image, for ``step``."""
        self.ddim.set_timesteps(steps, device=device)
        times: Tensor = self.ddim.timesteps
        return times

    def step(self, output: Tensor, t: Tensor, latents: Tensor) -> Tensor:
        """x at the next timestep, from x at t (one of ``timesteps``) and the network's output."""
        x: Tensor = self.ddim.step(output, t, latents, return_dict=False)[0]
        return x

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1-ᾱ_t) at timesteps t (n,), each (n, 1, 1, 1)."""
        signal = self.ddim.alphas_cumprod.to(t.device)[t].float().view(-1, 1, 1, 1)
        return signal.sqrt(), (1 - signal).sqrt()


class Flow:
    """The schedule of a pipeline with rectified flow (Liu et al. 2022, arXiv 2209.03003), with steps of Euler.

    mu: the shift of a scheduler with dynamic shifting. even: whether the pipeline passes equal steps of σ before the
    shift, or leaves the steps to the scheduler.
    Raises ModelError for any other kind of scheduler.
    """

    def __init__(self, scheduler: Any, *, mu: float = 0.0, even: bool = False) -> None:
        config = scheduler.config
        odd = [name for name in ODD if config.get(name)]
        if type(scheduler).__name__ != "FlowMatchEulerDiscreteScheduler" or odd:
            raise ModelError(
                f"the scheduler {type(scheduler).__name__} {', '.join(odd)} is not supported: use a plain "
                "FlowMatchEulerDiscreteScheduler"
            )
        self.euler = type(scheduler).from_config(config)
        self.num_timesteps, self.mu, self.even = int(config.num_train_timesteps), mu, even
        self.shift = float(config.shift)
        if config.use_dynamic_shifting:
            self.shift = math.exp(mu) if config.time_shift_type == "exponential" else mu
        self._timesteps = torch.zeros(0)

    def sigma(self, t: Tensor) -> Tensor:
        """σ_t (n,), the share of noise in (0, 1], for timesteps t (n,): (t+1)/num_timesteps: odds times shift."""
        share = (t.float() + 1) / self.num_timesteps
        return self.shift * share / (1 + (self.shift - 1) * share)

    def model_timestep(self, t: Tensor) -> Tensor:
        """The network's timestep input for timesteps t (n,)."""
        return self.num_timesteps * self.sigma(t)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t, fp32, for latents and noise (n, c, h, w) at timesteps t (n,)."""
        sigma = self.sigma(t).view(-1, 1, 1, 1)
        return (1 - sigma) * latents.float() + sigma * noise.float()

    def training_target(self, latents: Tensor, noise: Tensor) -> Tensor:
        """The prediction's target for latents with this noise (n, c, h, w)."""
        return noise.float() - latents.float()

    def prediction(self, output: Tensor, latents: Tensor, t: Tensor) -> Tensor:
        """The prediction, fp32, from the network's output for x_t."""
        return output.float()

    def predicted_x0(self, latents: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
        """The latents without noise, fp32, that a prediction for x_t implies."""
        return latents.float() - self.sigma(t).view(-1, 1, 1, 1) * prediction

    def timesteps(self, steps: int, device: torch.device) -> Tensor:
        """The timesteps (fractional) of ``steps`` sampling steps, from noise to image, for ``step``."""
        options: dict[str, Any] = {"sigmas": np.linspace(1, 1 / steps, steps)} if self.even else {}
        if self.euler.config.use_dynamic_shifting:
            options["mu"] = self.mu
        self.euler.set_timesteps(steps, device=device, **options)
        sigma = self.euler.sigmas[:-1].double()
        share = sigma / (self.shift + (1 - self.shift) * sigma)
        self._timesteps = (share * self.num_timesteps - 1).float().to(device)
        return self._timesteps

    def step(self, output: Tensor, t: Tensor, latents: Tensor) -> Tensor:
        """x at the next timestep, from x at t (one of ``timesteps``) and the network's output."""
        index = int((self._timesteps - t).abs().argmin())
        sigma, next_sigma = self.euler.sigmas[index : index + 2].to(output).tolist()
        moved: Tensor = latents + (next_sigma - sigma) * output
        return moved


Schedule = Diffusion | Flow

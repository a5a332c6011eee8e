"""Draw pictures with the pipeline's own sampler, and part of the way with DDIM or Euler steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .. import seeds
from ..errors import InputError, quoted
from ..families.schedules import check_steps
from ..schema import as_seed
from . import restore
from .networks import Networks
from .restore import steady

__all__ = ["decoded", "denoise", "denoising", "drawn", "from_states", "sample_latents"]


def drawn(
    model: Networks,
    prompts: Sequence[str],
    numbers: Sequence[int],
    steps: int | None,
    guidance: float | None,
    negative: str | None,
    batch: int | None,
    output: str,
) -> Iterator[Any]:
    """The pictures (output ``"pil"``) or latents (``"latent"``) of prompts and seeds, batch by batch.

    Raises InputError for lists of different lengths, and for a batch or a number of steps that is out of range.
    """
    steps = model.hints.steps if steps is None else steps
    guidance = model.hints.guidance if guidance is None else guidance
    batch = model.batch if batch is None else batch
    for what, given in (("prompts", prompts), ("seeds", numbers)):
        if isinstance(given, str) or not hasattr(given, "__len__"):
            raise InputError(f"{what} got {quoted(given)}: give a list")
    if len(prompts) != len(numbers):
        raise InputError(
            f"{len(prompts)} prompts and {len(numbers)} seeds: give two lists of the same length"
        )
    numbers = [as_seed(seed) for seed in numbers]
    if not 1 <= batch <= 2**20:
        raise InputError(f"batch {quoted(batch)} is out of range: use 1 to {2**20}")
    check_steps(model.pipe.scheduler, steps)
    for start in range(0, len(prompts), batch):
        states = model.encode(prompts[start : start + batch])
        null = model.encode([negative or ""]).expand_as(states)
        yield from_states(model, states, null, numbers[start : start + batch], steps, guidance, output)


@torch.no_grad()
def from_states(
    model: Networks,
    states: Tensor,
    null: Tensor,
    numbers: Sequence[int],
    steps: int,
    guidance: float,
    output: str = "pil",
) -> Any:
    """The pictures (``"pil"``) or latents (``"latent"``) of states and null states (n, rows, width), and n seeds."""
    how: dict[str, Any] = {"num_inference_steps": steps, "output_type": output}
    if model.hints.size:
        how |= {"height": model.hints.size, "width": model.hints.size}
    how["generator"] = [seeds.generator(number) for number in numbers]
    with model.frozen(), model.onload(), restore.sampling(model.pipe), restore.running(model.source):
        return model.family.draw(model.pipe, states, null, guidance, **how)


@steady()
@torch.no_grad()
def denoise(
    model: Networks, noise: Tensor, states: Tensor, null: Tensor, *, steps: int, guidance: float, stop: int
) -> tuple[Tensor, Tensor]:
    """Partial denoising from noise (n, c, h, w): ``stop`` of ``steps`` DDIM or Euler steps, ``stop < steps``.

    states, null: the conditional and the unconditional states (n, rows, width).
    Returns the latents and their timestep (n,).
    """
    check_steps(getattr(model.schedule, "ddim", model.pipe.scheduler), steps, whole=False)
    path = denoising(model, noise, states, null, steps=steps, guidance=guidance)
    x, t = next(islice(path, stop, None))
    return x, t.expand(len(noise))


def denoising(
    model: Networks, x: Tensor, states: Tensor, null: Tensor, *, steps: int, guidance: float, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each x (n, c, h, w) of DDIM or Euler sampling with its timestep, from x at step ``first`` of ``steps``.

    A caller may change x in place before it asks for the next. The last one is the picture's latents, at timestep -1.
    """
    schedule, n = model.family.schedule(model.pipe, model.shape), len(x)
    for t in schedule.timesteps(steps, model.device)[first:]:
        yield x, t
        output = model.family.guided(model.predict, x, t.expand(n), states, null, guidance)
        x = schedule.step(output, t, x)
    yield x, torch.full((), -1, device=model.device)


@steady()
@torch.no_grad()
def decoded(model: Networks, latents: Tensor) -> list[Image.Image]:
    """The pictures of latents (n, c, h, w), as the VAE's decoder gives them."""
    with model.frozen(), model.onload(), restore.running(model.source):
        pixels = model.family.decoded(model.pipe, latents.to(model.device)).float().cpu()
    whole = (pixels / 2 + 0.5).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(one) for one in whole]


@steady()
def sample_latents(
    model: Networks,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    guidance: float,
    negative: str | None = None,
    batch: int | None = None,
) -> Tensor:
    """The latents (n, c, h, w), fp32, of the images that ``Model.sample`` would give."""
    parts = drawn(model, prompts, seeds, steps, guidance, negative, batch, "latent")
    return torch.cat([latents.float() for latents in parts])

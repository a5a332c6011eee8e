"""Draw pictures with the pipeline's own sampler, and part of the way with DDIM or Euler steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import seeds
from ..errors import InputError, quoted
from ..families.schedules import check_steps
from . import restore
from .restore import steady

if TYPE_CHECKING:
    from .model import Model

__all__ = ["denoise", "drawn", "sample_latents"]


def drawn(
    model: Model,
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
    if isinstance(prompts, str) or len(prompts) != len(numbers):
        raise InputError(
            f"{len(prompts)} prompts and {len(numbers)} seeds: give two lists of the same length"
        )
    if not 1 <= batch <= 2**20:
        raise InputError(f"batch {quoted(batch)} is out of range: use 1 to {2**20}")
    check_steps(model.pipe.scheduler, steps)
    how: dict[str, Any] = {"num_inference_steps": steps, "output_type": output}
    if model.hints.size:
        how |= {"height": model.hints.size, "width": model.hints.size}
    for start in range(0, len(prompts), batch):
        states = model.encode(prompts[start : start + batch])
        null = model.encode([negative or ""]).expand_as(states)
        generators = [seeds.generator(number) for number in numbers[start : start + batch]]
        with model.frozen(), model.onload(), restore.sampling(model.pipe), restore.running(model.source):
            pictures = model.family.draw(model.pipe, states, null, guidance, generator=generators, **how)
        yield pictures


@steady()
@torch.no_grad()
def denoise(
    model: Model, noise: Tensor, states: Tensor, null: Tensor, *, steps: int, guidance: float, stop: int
) -> tuple[Tensor, Tensor]:
    """Partial denoising from noise (n, c, h, w): ``stop`` of ``steps`` DDIM or Euler steps, ``stop < steps``.

    states, null: the conditional and the unconditional states (n, rows, width).
    Returns the latents and their timestep (n,).
    """
    check_steps(getattr(model.schedule, "ddim", model.pipe.scheduler), steps, whole=False)
    schedule, x, n = model.family.schedule(model.pipe, model.shape), noise, len(noise)
    times = schedule.timesteps(steps, model.device)
    for t in times[:stop]:
        output = model.family.guided(model.predict, x, t.expand(n), states, null, guidance)
        x = schedule.step(output, t, x)
    return x, times[stop].expand(n)


@steady()
def sample_latents(
    model: Model,
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

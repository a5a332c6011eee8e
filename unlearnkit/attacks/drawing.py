"""Draw the pictures that an attack asks for: the pipeline's own sampler, or DDIM and Euler steps from a given x."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import torch
from PIL import Image
from torch import Tensor

from .. import seeds
from ..model.sampling import decoded, denoising, from_states
from .attack import Victim
from .changes import changed, other_scheduler
from .noise_probe import noisy
from .result import Attempt, SearchResult

__all__ = ["batches", "draw_attempts"]


def batches(attempts: Sequence[Attempt], size: int) -> Iterator[list[int]]:
    """The numbers of attempts in batches of like ones, each of at most ``size``, in order."""
    groups: dict[Attempt, list[int]] = {}
    for number, one in enumerate(attempts):
        groups.setdefault(one.batch_key, []).append(number)
    for numbers in groups.values():
        for start in range(0, len(numbers), size):
            yield numbers[start : start + size]


@torch.no_grad()
def draw_attempts(victim: Victim, result: SearchResult, attempts: Sequence[Attempt]) -> list[Image.Image]:
    """One picture for each attempt; all are alike but for prompt, seed and row."""
    model, one = victim.model, attempts[0]
    more = result.group(one.weights, "/") if one.weights else {}
    more = changed(victim, one.change, more) if one.change else more
    states, null = _conditioning(victim, result, attempts, more)
    steps = one.steps or model.hints.steps
    guidance = model.hints.guidance if one.guidance is None else one.guidance
    numbers = [each.seed for each in attempts]
    with victim.edited(more), other_scheduler(model, one.scheduler):
        if not one.eta and not one.start:
            pictures: list[Image.Image] = from_states(model, states, null, numbers, steps, guidance)
            return pictures
        with model.frozen():
            if one.start:
                x = _continued(victim, result, attempts, states, null, steps, guidance)
            else:
                how = {"eta": one.eta, "scale": one.noise_scale}
                x = noisy(model, states, null, numbers, steps=steps, guidance=guidance, **how)
        return decoded(model, x)


def _conditioning(
    victim: Victim, result: SearchResult, attempts: Sequence[Attempt], more: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """The states and the negative prompts' states (n, rows, width). more: weights on top of the victim's."""
    model, one = victim.model, attempts[0]
    texts = [victim.read(each.prompt) for each in attempts]
    with ExitStack() as stack:
        if one.encoder == "victim":
            stack.enter_context(victim.edited(more))
        null = model.encode([negative for _, negative in texts])
        if one.states:
            states = result.tensors[one.states].to(null).expand_as(null)
        elif one.vectors:
            vectors = {name: each.to(model.device) for name, each in result.group(one.vectors).items()}
            states = model.conditioning([prompt for prompt, _ in texts], vectors)
        else:
            states = model.encode([prompt for prompt, _ in texts])
    return states, null


def _continued(
    victim: Victim,
    result: SearchResult,
    attempts: Sequence[Attempt],
    states: Tensor,
    null: Tensor,
    steps: int,
    guidance: float,
) -> Tensor:
    """Latents (n, c, h, w): from x at step ``at`` to the end; with a mask, what it keeps is put back at each step."""
    model, one = victim.model, attempts[0]
    rows = result.tensors[one.start][[each.row for each in attempts]].to(model.device)
    noise = torch.stack([torch.randn(model.shape, generator=seeds.generator(each.seed)) for each in attempts])
    noise = noise.to(rows)
    mask = result.tensors[one.mask].to(rows) if one.mask else None
    path = denoising(
        *(model, rows if mask is None else noise.clone(), states, null),
        steps=steps,
        guidance=guidance,
        first=one.at,
    )
    for x, t in path:
        if mask is not None:
            known = rows if t < 0 else model.add_noise(rows, noise, t.expand(len(rows)))
            x.copy_(mask * known + (1 - mask) * x)
    return x

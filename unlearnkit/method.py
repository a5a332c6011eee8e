"""What a method is: a name, a paper, its settings, and two functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Method", "Plan"]


@dataclass(frozen=True)
class Plan:
    """What a run will do, without doing it.

    part: of the denoiser, that is changed. tensors, weights: how many weight tensors and single numbers will change.
    steps, batch: optimiser steps and pictures a step (0 steps for a closed form).
    passes: rows through the network in one step, (without gradient, forward and backward); the first is a mean.
    sampled_images: pictures that the base model draws first, unless they are in the cache.
    """

    part: str
    tensors: int
    weights: int
    steps: int
    passes: tuple[float, float]
    batch: int
    sampled_images: int


@dataclass(frozen=True)
class Method:
    """One paper's way to erase.

    settings: a dataclass of ``setting`` fields, every default with its source.
    run: ``run(model, request, settings, *, seed, job)`` gives the new weights, fp32 on the CPU.
    plan: ``plan(model, request, settings)`` gives a Plan.
    """

    name: str
    title: str
    paper: str
    summary: str
    settings: type
    run: Callable[..., dict[str, Tensor]]
    plan: Callable[[Any, Any, Any], Plan]

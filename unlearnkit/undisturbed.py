"""Pipelines and networks used for a while, and then as they were found, on exceptions too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["checkpointing", "frozen", "networks", "sampling"]


def networks(pipe: Any) -> list[nn.Module]:
    """The networks of a pipeline."""
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


@contextmanager
def frozen(pipe: Any) -> Iterator[None]:
    """Every network in eval mode and without gradients of its own."""
    modules = [module for network in networks(pipe) for module in network.modules() if module.training]
    wanted = [weight for network in networks(pipe) for weight in network.parameters() if weight.requires_grad]
    wanted = [weight for weight in wanted if weight.is_leaf and isinstance(weight, nn.Parameter)]
    try:
        for module in modules:
            module.training = False
        for weight in wanted:
            weight.requires_grad_(False)
        yield
    finally:
        for module in modules:
            module.training = True
        for weight in wanted:
            weight.requires_grad_(True)


@contextmanager
def checkpointing(denoiser: Any, on: bool) -> Iterator[None]:
    """Activations recomputed in the backward pass instead of kept."""
    change = on and not denoiser.is_gradient_checkpointing
    try:
        if change:
            denoiser.enable_gradient_checkpointing()
        yield
    finally:
        if change:
            denoiser.disable_gradient_checkpointing()


@contextmanager
def sampling(pipe: Any) -> Iterator[None]:
    """Sample without a progress bar and with a fresh copy of the scheduler."""
    found = dict(vars(pipe))  # with what its ``__call__`` leaves behind, such as ``_guidance_scale``
    try:
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        yield
    finally:
        vars(pipe).clear()
        vars(pipe).update(found)

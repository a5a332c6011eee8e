"""Context managers that change a pipeline and restore it afterwards, also after exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import ModelError, UnlearnError, printable, quoted

__all__ = ["auxiliary_on", "checkpointing", "frozen", "networks", "running", "sampling", "steady"]


def networks(pipe: Any) -> list[nn.Module]:
    """The networks of a pipeline."""
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


@contextmanager
def steady() -> Iterator[None]:
    """Torch's own defaults inside: float32 on the CPU, no autocast, no inference mode.

    So a call gives the same bits under any settings of the caller, which are restored afterwards. Also a decorator:
    ``@steady()``.
    """
    with ExitStack() as stack:
        if (dtype := torch.get_default_dtype()) != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():  # leaving it enables gradients
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def frozen(pipe: Any) -> Iterator[None]:
    """Every network in eval mode and without gradients of its own."""
    modules = [module for network in networks(pipe) for module in network.modules() if module.training]
    trainable = [
        weight for network in networks(pipe) for weight in network.parameters() if weight.requires_grad
    ]
    trainable = [weight for weight in trainable if weight.is_leaf and isinstance(weight, nn.Parameter)]
    try:
        for module in modules:
            module.training = False
        for weight in trainable:
            weight.requires_grad_(False)
        yield
    finally:
        for module in modules:
            module.training = True
        for weight in trainable:
            weight.requires_grad_(True)


@contextmanager
def auxiliary_on(pipe: Any, denoiser: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, the auxiliary networks (text encoders, VAE) are on this device; afterwards they move back."""
    others = [network for network in networks(pipe) if network is not denoiser]
    places = [next(network.parameters()).device for network in others]
    moved = [(network, place) for network, place in zip(others, places, strict=True) if place != device]
    try:
        for network, _ in moved:
            network.to(device)
        yield
    finally:
        for network, place in moved:
            network.to(place)


@contextmanager
def checkpointing(denoiser: Any, on: bool, through: Callable[..., Any] | None = None) -> Iterator[None]:
    """Gradient checkpointing inside, if ``on``.

    through: called with every block and its inputs, in place of torch's own checkpoint.
    """
    change = on and not denoiser.is_gradient_checkpointing
    try:
        if change:
            denoiser.enable_gradient_checkpointing(through)
        yield
    finally:
        if change:
            denoiser.disable_gradient_checkpointing()


@contextmanager
def sampling(pipe: Any) -> Iterator[None]:
    """Inside, the pipeline has no progress bar and a fresh copy of the scheduler."""
    attributes = dict(vars(pipe))  # ``__call__`` sets attributes such as ``_guidance_scale``
    try:
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        yield
    finally:
        vars(pipe).clear()
        vars(pipe).update(attributes)


@contextmanager
def running(source: str) -> Iterator[None]:
    """Turn errors of a pipeline's code into ModelError, except out-of-memory and our own errors.

    source: the model's name in the message.
    """
    try:
        yield
    except (UnlearnError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # other projects' code, and any file of the folder may be wrong
        if no_memory(error):
            raise
        why = printable(" ".join(f"{type(error).__name__}: {error}".split()))[:200]
        raise ModelError(
            f"{quoted(source)} does not run ({why}): a configuration in its folder may not fit its weights; put an "
            "undamaged copy of the folder in its place"
        ) from error


def no_memory(error: BaseException) -> bool:
    """Whether torch is out of memory; on the CPU that is a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)

"""The exchangeable stages of a training step. Gradients are data, by name of weight.

Combine     step, losses and weights -> gradients
Mask        step and gradients -> which entries may change
Rule        weights and gradients -> gradients; after the step, weights -> weights
Stateful    anything whose state must survive a kill

A loss whose name starts with ``erase`` is an erasing loss, every other is a retain loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

__all__ = ["Combine", "Gradients", "Losses", "Rule", "Stateful", "erasing"]

Losses = Mapping[str, Tensor]
Gradients = dict[str, Tensor]
Combine = Callable[[int, Losses, Mapping[str, Tensor]], Gradients]


class Rule(Protocol):
    """A constraint that keeps the weights close to their start."""

    def regularize_grad(self, weights: Mapping[str, Tensor], gradients: Gradients) -> Gradients:
        """The gradients for the step."""

    def project_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Correct the weights in place, after the step."""


class Stateful(Protocol):
    """State for the checkpoint: after ``restore`` of the same tensors, training continues bit for bit."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes from step to step, by name."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what ``tensors`` gave, on the device of the weights."""


def erasing(name: str) -> bool:
    """Whether the loss of this name is an erasing loss."""
    return name.startswith("erase")

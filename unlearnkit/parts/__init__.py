"""The exchangeable stages of a training step: gradients are data, by name of weight.

Combine     step, losses and weights -> gradients
Mask        step and gradients -> which entries may move
Rule        weights and gradients -> gradients, and weights once more after the step
Stateful        anything whose state must survive a kill

A loss whose name starts with ``erase`` is of the erasing side, every other of the keeping side.
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
    """Something that holds the weights near to where they were."""

    def pull(self, weights: Mapping[str, Tensor], gradients: Gradients) -> Gradients:
        """The gradients to step with, before the step."""

    def settle(self, weights: Mapping[str, Tensor]) -> None:
        """Correct the weights in place, after the step."""


class Stateful(Protocol):
    """State that goes into the checkpoint: the same tensors put back give the same bits from there on."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes from step to step, by name."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what ``tensors`` gave, on the device of the weights."""


def erasing(name: str) -> bool:
    """Whether the loss of this name is of the erasing side."""
    return name.startswith("erase")

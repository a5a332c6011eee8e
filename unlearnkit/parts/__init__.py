"""The exchangeable stages of a training step: gradients are data, by name of weight.

Combine     losses and weights -> gradients
Mask        step and gradients -> gradients
Rule        weights and gradients -> gradients
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

__all__ = ["Combine", "Gradients", "Losses", "Mask", "Rule"]

Losses = Mapping[str, Tensor]
Gradients = dict[str, Tensor]
Combine = Callable[[Losses, Mapping[str, Tensor]], Gradients]
Mask = Callable[[int, Gradients], Gradients]
Rule = Callable[[Mapping[str, Tensor], Gradients], Gradients]

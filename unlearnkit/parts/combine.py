"""Ways to turn named losses into one gradient for each weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from . import Gradients, Losses

__all__ = ["summed"]


def summed(losses: Losses, weights: Mapping[str, Tensor]) -> Gradients:
    """The gradient of the sum of the losses: one backward pass, zeros for a weight that no loss reaches."""
    total = torch.stack(list(losses.values())).sum()
    found = torch.autograd.grad(total, list(weights.values()), materialize_grads=True)
    return dict(zip(weights, found, strict=True))

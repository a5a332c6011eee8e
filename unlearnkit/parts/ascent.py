"""Bounded gradient ascent on a loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["CapOn", "ascent"]

CapOn = Literal["batch", "element", "picture"]


def ascent(squares: Tensor, cap: float, on: CapOn, noise_ratio: Tensor | None = None) -> Tensor:
    """The loss to minimise so that the mean of squared errors (n, c, h, w) rises, up to ``cap``.

    batch       -min(mean e², cap)               a gate: no ascent while the batch's loss is above it
    element     -mean min(e², cap)               every error of the predicted noise separately
    picture     -mean min(r e², cap) / r         every error of the implied image separately: (x₀ - x̂₀)² = r e²

    noise_ratio: r = (1 - ᾱ_t) / ᾱ_t, (n, 1, 1, 1), for ``picture``. A mean error of 1 is that of predicting zeros.
    """
    if on == "batch":
        return -squares.mean().clamp(max=cap)
    if on == "element" or noise_ratio is None:
        return -squares.clamp(max=cap).mean()
    return -torch.minimum(squares, cap / noise_ratio).mean()

"""Distances of two predictions, sample by sample (f-DMU, Novello et al., arXiv 2509.21167).

Two predictions are the means of two normal distributions of one covariance. With m the mean squared error of a sample:

    mse          m                       Kullback and Leibler's divergence
    hellinger    (1 - exp(-k m)) / k     samples that are far off count less
    chi2         (exp(k m) - 1) / k      samples that are far off count more

The division by k is ours: for small k m all three have the gradient of the mean squared error.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["Divergence", "divergence"]

Divergence = Literal["mse", "hellinger", "chi2"]


def divergence(prediction: Tensor, target: Tensor, kind: Divergence, scale: float) -> Tensor:
    """The mean distance of the samples (n, ...) of two tensors of one shape, a scalar. scale: k, above 0."""
    if kind == "mse":
        return (prediction - target).square().mean()
    sign = -1.0 if kind == "hellinger" else 1.0
    errors = (prediction - target).square().flatten(1).mean(dim=1)
    return (sign * torch.expm1(sign * scale * errors) / scale).mean()

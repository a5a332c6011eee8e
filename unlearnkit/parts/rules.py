"""Constraints that keep the weights close to their start.

L1-SP and L2-SP are added to the gradient. The projection corrects the weights after each step, because Adam scales
every entry separately and so leaves the subspace of its gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import InputError
from . import Gradients
from .combine import dot

__all__ = ["Directional", "Projection", "StartPenalty", "residual_share", "span_basis"]

FLAT = 1e-3  # of the largest singular value: smaller ones count as zero


@dataclass(frozen=True)
class StartPenalty:
    """The gradient of a penalty on the distance from the start θ⁰, as a mean over all n trained entries.

        L1-SP   w/n Σ |θ - θ⁰|     w/n sign(θ - θ⁰)
        L2-SP   w/n Σ (θ - θ⁰)²    2w/n (θ - θ⁰)

    Li et al. 2018 (arXiv 1802.01483); the mean and its weights as in the code of Lee et al. (arXiv 2511.07970).
    """

    start: Mapping[str, Tensor]
    weight: float
    power: int

    def regularize_grad(self, weights: Mapping[str, Tensor], gradients: Gradients) -> Gradients:
        scale = self.weight / sum(weight.numel() for weight in weights.values())
        for name, gradient in list(gradients.items()):
            offset = weights[name].detach() - self.start[name].to(gradient)
            direction = offset.sign() if self.power == 1 else offset
            gradients[name] = gradient.add(direction, alpha=scale * self.power)
        return gradients

    def project_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Nothing to correct."""


@dataclass
class Directional:
    """Steps away from the start θ⁰ are damped, as AEGIS (arXiv 2602.06771) does; over all weights as one vector.

    g - ω <g, r> / |r|² r   with r = θ - θ⁰, where <g, r> < 0; there ω rises by ``rise`` afterwards, to 1 at most
    """

    start: Mapping[str, Tensor]
    omega: Tensor
    rise: float

    def regularize_grad(self, weights: Mapping[str, Tensor], gradients: Gradients) -> Gradients:
        offset = {name: weights[name].detach() - self.start[name].to(one) for name, one in gradients.items()}
        s, length = dot(gradients, offset), dot(offset, offset)
        if s < 0 and length > 0:
            share = (-self.omega.to(s) * s / length).item()
            for name, gradient in gradients.items():
                gradient.add_(offset[name], alpha=share)
            self.omega = (self.omega + self.rise).clamp_max(1)
        return gradients

    def project_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Nothing to correct."""


def span_basis(states: Tensor) -> Tensor:
    """An orthonormal basis (width, k), float64, of the span of text states (n, width)."""
    _, values, rows = torch.linalg.svd(states.cpu().double(), full_matrices=False)
    basis: Tensor = rows[values > FLAT * values[0]].T
    if basis.shape[1] >= basis.shape[0]:
        raise InputError(
            f"the {len(states)} protected texts span all {basis.shape[0]} directions, so no weight could change: "
            "lower protect, or keep fewer concepts"
        )
    return basis


def residual_share(states: Tensor, basis: Tensor) -> Tensor:
    """The share in [0, 1] of each text state's (n, width) length that lies outside the basis (width, k): (n,)."""
    rows = states.to(basis)
    outside = rows - rows @ basis @ basis.T
    shares: Tensor = outside.norm(dim=1) / rows.norm(dim=1).clamp_min(torch.finfo(rows.dtype).tiny)
    return shares


@dataclass(frozen=True)
class Projection:
    """Keys and values keep their output for protected text: W = W⁰ + (W - W⁰)(I - U Uᵀ), so W e = W⁰ e for e in U.

    start: the initial keys and values (out, width). bases: for each its U (width, k), orthonormal.
    fixed: initial values of weights that may not change beside them.
    After Lee et al. (arXiv 2511.07970), who project the gradient with a ridge; here it is the update, exactly.
    """

    start: Mapping[str, Tensor]
    bases: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor] = field(default_factory=dict)

    def regularize_grad(self, weights: Mapping[str, Tensor], gradients: Gradients) -> Gradients:
        for name in self.start.keys() & gradients.keys():
            gradients[name] = self._across(name, gradients[name])
        return gradients

    @torch.no_grad()
    def project_weights(self, weights: Mapping[str, Tensor]) -> None:
        for name in self.start.keys() & weights.keys():
            start = self.start[name].to(weights[name])
            weights[name].copy_(start + self._across(name, weights[name] - start))
        for name in self.fixed.keys() & weights.keys():
            weights[name].copy_(self.fixed[name])

    def _across(self, name: str, rows: Tensor) -> Tensor:
        """Rows (out, width) of a matrix without their part in its basis."""
        basis = self.bases[name].to(rows)
        return rows - rows @ basis @ basis.T

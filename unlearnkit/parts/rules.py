"""Rules that hold weights near to where they were, whatever the losses say.

L1-SP and L2-SP are added to the gradient. The projection corrects the weights after each step, because Adam scales
every entry by itself, and so leaves the subspace that its gradient lies in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from . import Gradients

__all__ = ["Project", "Pull", "apart", "directions"]

FLAT = 1e-3  # of the largest singular value: directions below are not told apart from none


@dataclass(frozen=True)
class Pull:
    """A penalty on the way from the start θ⁰, in the mean over all n trained entries, as its gradient.

        L1-SP   w/n Σ |θ - θ⁰|     w/n sign(θ - θ⁰)
        L2-SP   w/n Σ (θ - θ⁰)²    2w/n (θ - θ⁰)

    Li et al. 2018 (arXiv 1802.01483); the mean and its weights as in the code of Lee et al. (arXiv 2511.07970).
    """

    start: Mapping[str, Tensor]
    weight: float
    power: int

    def pull(self, weights: Mapping[str, Tensor], gradients: Gradients) -> Gradients:
        scale = self.weight / sum(weight.numel() for weight in weights.values())
        for name, gradient in list(gradients.items()):
            way = weights[name].detach() - self.start[name].to(gradient)
            pull = way.sign() if self.power == 1 else way
            gradients[name] = gradient.add(pull, alpha=scale * self.power)
        return gradients

    def settle(self, weights: Mapping[str, Tensor]) -> None:
        """Nothing to correct."""


def directions(states: Tensor) -> Tensor:
    """An orthonormal basis (width, k), float64, of the span of text states (n, width)."""
    _, values, rows = torch.linalg.svd(states.cpu().double(), full_matrices=False)
    basis: Tensor = rows[values > FLAT * values[0]].T
    if basis.shape[1] >= basis.shape[0]:
        raise InputError(
            f"the {len(states)} protected texts span all {basis.shape[0]} directions, so nothing could move: "
            "lower protect, or keep fewer concepts"
        )
    return basis


def apart(states: Tensor, basis: Tensor) -> Tensor:
    """The share in [0, 1] of each text state's (n, width) length that lies outside the basis (width, k): (n,)."""
    rows = states.to(basis)
    outside = rows - rows @ basis @ basis.T
    shares: Tensor = outside.norm(dim=1) / rows.norm(dim=1).clamp_min(torch.finfo(rows.dtype).tiny)
    return shares


@dataclass(frozen=True)
class Project:
    """Keys and values that answer to protected text as before: W = W⁰ + (W - W⁰)(I - U Uᵀ), so W e = W⁰ e for e in U.

    start: the keys and values before (out, width). basis: U (width, k), orthonormal.
    After Lee et al. (arXiv 2511.07970), who project the gradient with a ridge; here it is the update, exactly.
    """

    start: Mapping[str, Tensor]
    basis: Tensor

    def pull(self, weights: Mapping[str, Tensor], gradients: Gradients) -> Gradients:
        for name in self.start.keys() & gradients.keys():
            gradients[name] = self._across(gradients[name])
        return gradients

    @torch.no_grad()
    def settle(self, weights: Mapping[str, Tensor]) -> None:
        for name in self.start.keys() & weights.keys():
            before = self.start[name].to(weights[name])
            weights[name].copy_(before + self._across(weights[name] - before))

    def _across(self, rows: Tensor) -> Tensor:
        """Rows (out, width) without what lies along the basis."""
        basis = self.basis.to(rows)
        return rows - rows @ basis @ basis.T

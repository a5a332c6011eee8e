"""Ways to turn named losses into one gradient for each weight.

``summed`` takes one backward pass. The others need separate gradients: one for the erasing and one for the
retain losses (in PCGrad one for each loss).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .. import seeds
from ..errors import InputError
from ..io import processes
from . import Combine, Gradients, Losses, erasing

__all__ = ["dot", "mixed", "pcgrad", "preserving", "restricted", "side_gradients", "summed"]

Weights = Mapping[str, Tensor]


def summed(step: int, losses: Losses, weights: Weights) -> Gradients:
    """The gradient of the sum of the losses: one backward pass, zeros for a weight that no loss reaches."""
    return _separate_gradients([_total(losses)], weights)[0]


def restricted(step: int, losses: Losses, weights: Weights) -> Gradients:
    """The restricted gradient (Ko et al. 2024, arXiv 2412.07808, theorem 4), over all weights as one vector.

    With g_f and g_r the gradients of the erasing and of the retain losses, s = <g_f, g_r>, and only where s < 0:

        δ_f = g_f - s / |g_r|² g_r        δ_r = g_r - s / |g_f|² g_f        u = δ_f + δ_r

    computed as u = (1 - s / |g_f|²) g_f + (1 - s / |g_r|²) g_r from the three scalars. Then <u, g_f> >= 0 and
    <u, g_r> >= 0: to first order, neither loss rises. A weight λ of the retain loss is the paper's λ on δ_r, since
    δ_f does not depend on the size of g_r. With a zero gradient, or without conflict, u = g_f + g_r.
    """
    erase, keep = side_gradients(losses, weights)
    s, ff, rr = dot(erase, keep), dot(erase, erase), dot(keep, keep)
    conflict = (s < 0) & (ff > 0) & (rr > 0)
    of_erase = torch.where(conflict, 1 - s / ff, 1.0)
    of_keep = torch.where(conflict, 1 - s / rr, 1.0)
    return mixed([erase, keep], [of_erase, of_keep])


def preserving(*, per_tensor: bool, adds: float = 0.0) -> Combine:
    """The erasing gradient without the part that opposes the retain gradient (DoCo's concept-preserving gradient).

        g_u - <g_u, g_r> / |g_r|² g_r   where <g_u, g_r> < 0, else g_u

    per_tensor: one comparison for each weight tensor, as DoCo has it, or one for all weights together.
    adds: how much of the retain gradient is added to the step; 0: it is only a constraint, as in DoCo's code.
    """

    def combine(step: int, losses: Losses, weights: Weights) -> Gradients:
        erase, keep = side_gradients(losses, weights)
        groups = [[name] for name in weights] if per_tensor else [list(weights)]
        combined: Gradients = {}
        for names in groups:
            g_u, g_r = ({name: side[name] for name in names} for side in (erase, keep))
            s, rr = dot(g_u, g_r), dot(g_r, g_r)
            combined |= mixed([g_u, g_r], [torch.ones_like(s), adds - torch.where(s < 0, s / rr, 0.0)])
        return combined

    return combine


def pcgrad(seed: int) -> Combine:
    """PCGrad (Yu et al. 2020, arXiv 2001.06782, algorithm 1) over every named loss, over all weights as one vector.

    Each g_i loses the part that opposes each other g_j, in random order: g_i -= <g_i, g_j> / |g_j|² g_j where
    <g_i, g_j> < 0; then all are added. Every g_i stays a linear combination of the raw gradients, so only their inner
    products are needed. With two losses this is the restricted gradient.
    """

    def combine(step: int, losses: Losses, weights: Weights) -> Gradients:
        raw = _separate_gradients(list(losses.values()), weights)
        count = len(raw)
        inner = torch.stack([torch.stack([dot(a, b) for b in raw]) for a in raw]).cpu()
        draws = seeds.stream(seed, "pcgrad", step)
        total = torch.zeros(count, dtype=torch.float64)
        for i in range(count):
            mixture = torch.eye(count, dtype=torch.float64)[i]
            for j in torch.randperm(count, generator=draws).tolist():
                s = mixture @ inner[:, j]
                if j != i and s < 0 and inner[j, j] > 0:
                    mixture[j] -= s / inner[j, j]
            total += mixture
        return mixed(raw, list(total))

    return combine


def side_gradients(losses: Losses, weights: Weights) -> tuple[Gradients, Gradients]:
    """The gradients of the erasing and of the retain losses."""
    erase = {name: loss for name, loss in losses.items() if erasing(name)}
    keep = {name: loss for name, loss in losses.items() if not erasing(name)}
    if not erase or not keep:
        raise InputError(
            f"the only losses are {', '.join(losses)}: every combination but the sum takes an erasing and a retain "
            "loss; choose combine=sum, or give something to keep"
        )
    first, second = _separate_gradients([_total(erase), _total(keep)], weights)
    return first, second


def _total(losses: Losses) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def _separate_gradients(losses: Sequence[Tensor], weights: Weights) -> list[Gradients]:
    """The gradient of each loss. Their shared graph is freed with the last."""
    separate = []
    for number, loss in enumerate(losses):
        gradients = torch.autograd.grad(
            loss, list(weights.values()), retain_graph=number + 1 < len(losses), materialize_grads=True
        )
        separate.append(processes.sum_gradients(dict(zip(weights, gradients, strict=True))))
    return separate


def dot(a: Gradients, b: Gradients) -> Tensor:
    """<a, b> over all weights, summed in float64."""
    return torch.stack(
        [torch.linalg.vecdot(a[name].flatten(), b[name].flatten()).double() for name in a]
    ).sum()


def mixed(gradients: Sequence[Gradients], shares: Sequence[Tensor]) -> Gradients:
    """Σ share · gradient, written into the first gradient."""
    first, *others = gradients
    for name, value in first.items():
        value.mul_(shares[0].to(value))
        for other, share in zip(others, shares[1:], strict=True):
            value.addcmul_(other[name], share.to(value))
    return first

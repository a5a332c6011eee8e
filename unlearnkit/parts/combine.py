"""Ways to turn named losses into one gradient for each weight.

Only ``summed`` takes one backward pass. The others need the gradients apart: one pass for each of the two sides (or for
each loss, in PCGrad), through the one graph that the losses share or through a graph each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .. import seeds
from ..errors import InputError
from ..io import processes
from . import Combine, Gradients, Losses, erasing

__all__ = ["dot", "mixed", "pcgrad", "preserving", "restricted", "sides", "summed"]

Weights = Mapping[str, Tensor]


def summed(step: int, losses: Losses, weights: Weights) -> Gradients:
    """The gradient of the sum of the losses: one backward pass, zeros for a weight that no loss reaches."""
    return _apart([_total(losses)], weights)[0]


def restricted(step: int, losses: Losses, weights: Weights) -> Gradients:
    """The restricted gradient (Ko et al. 2024, arXiv 2412.07808, theorem 4), over all weights as one vector.

    With g_f and g_r the gradients of the erasing and of the keeping side, s = <g_f, g_r>, and only where s < 0:

        δ_f = g_f - s / |g_r|² g_r        δ_r = g_r - s / |g_f|² g_f        u = δ_f + δ_r

    computed as u = (1 - s / |g_f|²) g_f + (1 - s / |g_r|²) g_r from the three scalars. Then <u, g_f> >= 0 and
    <u, g_r> >= 0: to first order, neither side rises. A weight λ of the keeping loss is the paper's λ on δ_r, since
    δ_f does not depend on the size of g_r. With a zero gradient, or without conflict, u = g_f + g_r.
    """
    erase, keep = sides(losses, weights)
    s, ff, rr = dot(erase, keep), dot(erase, erase), dot(keep, keep)
    conflict = (s < 0) & (ff > 0) & (rr > 0)
    of_erase = torch.where(conflict, 1 - s / ff, 1.0)
    of_keep = torch.where(conflict, 1 - s / rr, 1.0)
    return mixed([erase, keep], [of_erase, of_keep])


def preserving(*, per_tensor: bool, adds: float = 0.0) -> Combine:
    """The erasing gradient without what opposes the keeping one (DoCo's concept-preserving gradient).

        g_u - <g_u, g_r> / |g_r|² g_r   where <g_u, g_r> < 0, else g_u

    per_tensor: one comparison for each weight tensor, as DoCo has it, or one for all weights together.
    adds: how much of the keeping gradient joins the step; 0 leaves it a mere constraint, as DoCo's code does.
    """

    def combine(step: int, losses: Losses, weights: Weights) -> Gradients:
        erase, keep = sides(losses, weights)
        groups = [[name] for name in weights] if per_tensor else [list(weights)]
        found: Gradients = {}
        for names in groups:
            g_u, g_r = ({name: side[name] for name in names} for side in (erase, keep))
            s, rr = dot(g_u, g_r), dot(g_r, g_r)
            found |= mixed([g_u, g_r], [torch.ones_like(s), adds - torch.where(s < 0, s / rr, 0.0)])
        return found

    return combine


def pcgrad(seed: int) -> Combine:
    """PCGrad (Yu et al. 2020, arXiv 2001.06782, algorithm 1) over every named loss, over all weights as one vector.

    Each g_i in turn loses what opposes each other g_j, these in random order: g_i -= <g_i, g_j> / |g_j|² g_j where
    <g_i, g_j> < 0; then all are added. Every g_i stays a mixture of the raw gradients, so that only their inner
    products are needed. With two losses this is the restricted gradient.
    """

    def combine(step: int, losses: Losses, weights: Weights) -> Gradients:
        raw = _apart(list(losses.values()), weights)
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


def sides(losses: Losses, weights: Weights) -> tuple[Gradients, Gradients]:
    """The gradients of the erasing and of the keeping side."""
    erase = {name: loss for name, loss in losses.items() if erasing(name)}
    keep = {name: loss for name, loss in losses.items() if not erasing(name)}
    if not erase or not keep:
        raise InputError(
            f"only the losses {', '.join(losses)} are there: to combine them otherwise than by sum takes one that "
            "erases and one that keeps; choose combine=sum, or give something to keep"
        )
    first, second = _apart([_total(erase), _total(keep)], weights)
    return first, second


def _total(losses: Losses) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def _apart(losses: Sequence[Tensor], weights: Weights) -> list[Gradients]:
    """The gradient of each loss; the graph that they share is freed with the last."""
    found = []
    for place, loss in enumerate(losses):
        gradients = torch.autograd.grad(
            loss, list(weights.values()), retain_graph=place + 1 < len(losses), materialize_grads=True
        )
        found.append(processes.added(dict(zip(weights, gradients, strict=True))))
    return found


def dot(a: Gradients, b: Gradients) -> Tensor:
    """<a, b> over all weights, added up in float64."""
    return torch.stack(
        [torch.linalg.vecdot(a[name].flatten(), b[name].flatten()).double() for name in a]
    ).sum()


def mixed(gradients: Sequence[Gradients], shares: Sequence[Tensor]) -> Gradients:
    """Σ share · gradient, in place of the first."""
    first, *others = gradients
    for name, value in first.items():
        value.mul_(shares[0].to(value))
        for other, share in zip(others, shares[1:], strict=True):
            value.addcmul_(other[name], share.to(value))
    return first

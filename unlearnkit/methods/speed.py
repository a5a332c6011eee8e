"""SPEED: Scalable, Precise and Efficient Concept Erasure (Li et al. 2025, arXiv 2503.07392).

For each value matrix W, with columns C₁ of erased concepts, C* of their anchors, C₀ retained, C₂ that must not move:

    min over Δ  |(W + ΔP) C₁ - W C*|² + |ΔP|²  with (ΔP) C₂ = 0        P projects onto the null space of C₀C₀ᵀ / n

With V = P C₂, P' = P - V (VᵀV)⁺ Vᵀ and G = C₁ᵀP'C₁ the solution is ΔP = W (C* - C₁)(I + G)⁻¹ C₁ᵀP', the paper's
formula without its ill-posed inverse. A single concept is erased by the share s / (1 + s), s = |P'c₁|². C₀ is refined
for each W: words that erasing would hardly move are removed; the others get augmented copies that W maps nearly alike.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..data.prompts import neighbours
from ..data.text_columns import centroids, clip_scale, concept_texts, erased_matrices, retained_matrix
from ..settings import setting
from ..training.closed_form import ClosedForm, refuse_clashes
from ..training.job import Run
from ..training.settings import Tokens, default

__all__ = ["SPEED"]


@dataclass(frozen=True)
class SPEED(ClosedForm):
    PART: ClassVar = "values"
    name: ClassVar = "speed"
    title: ClassVar = "SPEED"
    paper: ClassVar = "Li et al. 2025, arXiv 2503.07392"
    summary: ClassVar = "A closed form maps the concept's values to another word's, within a null space."

    threshold: float = setting(
        0.1, "eigenvalues of C₀C₀ᵀ / n below this count as 0", low=0.0, source="paper; / n: code"
    )
    copies: int = setting(10, "augmented copies of each retained word", low=0, high=100, source="paper")
    centroids: int = setting(3, "centroids of the empty prompt in C₂", low=1, high=64, source="ours")
    tokens: Tokens = default("tokens", "last", source="paper: one; last: ours")
    templates: bool = default("templates", False, source="paper: bare")
    neighbours: int = default("neighbours", 1000, source="paper: 100 to 1,734")
    free: float = default("free", 1e-3, source="ours: of the way, in the matrix that moves furthest")
    reach: float = default("reach", 0.0, source="ours; paper: the result is not looked at")

    @torch.no_grad()
    def solved(self, run: Run) -> dict[str, Tensor]:
        """The new value matrices. Raises InputError where all of a concept lies in what is retained."""
        model = run.model
        retained = neighbours(model, run.request, self.neighbours)
        form = functools.partial(concept_texts, model, templates=self.templates, without=run.request.erased)
        erase, retain = form(run.request.erase), form(retained)
        c1, target, concepts = erased_matrices(model, erase, last=self.tokens == "last")
        c0 = retained_matrix(model, retain, last=True)
        empty = model.text([""])[0].T.cpu().double()
        c2 = torch.cat([empty[:, :1], centroids(empty[:, 1:], self.centroids, run.seed)], dim=1)
        scale = clip_scale(empty, c1)  # the threshold is an absolute number
        c0, c1, c2, target = (scale * one for one in (c0, c1, c2, target))
        shares: list[Tensor] = []

        def new(name: str, w: Tensor) -> Tensor:
            p = self.projector(self._refined(w, c0, c1, target, run.stream("speed", name)), c2)
            change, share = _solution(w, c1, target, p)
            shares.append(share)
            return w + change

        weights = self.change(run, new)
        refuse_clashes([one.name for one in concepts], torch.stack(shares).amax(dim=0), self.free)
        return weights

    def projector(self, c0: Tensor, c2: Tensor) -> Tensor:
        """P' (width, width): onto the null space of C₀C₀ᵀ / n, less what it holds of C₂. n: the columns of C₀."""
        values, u = torch.linalg.eigh(c0 @ c0.T / max(1, c0.shape[1]))
        p: Tensor = u[:, values < self.threshold] @ u[:, values < self.threshold].T
        inverse: Tensor = torch.linalg.pinv(v := p @ c2, rtol=1e-10)
        return p - v @ inverse

    def _refined(self, w: Tensor, c0: Tensor, c1: Tensor, target: Tensor, draws: torch.Generator) -> Tensor:
        """C₀ after the filter, and augmented copies c + ε P_min that pass it too."""
        refined = _moved(w, c0, c1, target)
        count = self.copies * refined.shape[1]
        along = torch.randn((1, count), generator=draws, dtype=w.dtype)  # v ε, v of length 1
        copies = refined.repeat(1, self.copies) + _least(w).T @ along
        return torch.cat([refined, _moved(w, copies, c1, target)], dim=1)


def _least(w: Tensor) -> Tensor:
    """v (1, width), P_min = vᵀv: W's last right singular vector, what it sees least of the directions of its rows."""
    if len(w) > w.shape[1]:
        least: Tensor = torch.linalg.eigh(w.T @ w).eigenvectors[:, :1].T
        return least
    return torch.nn.functional.normalize(torch.linalg.eigh(w @ w.T).eigenvectors[:, :1].T @ w)


def _solution(w: Tensor, c1: Tensor, target: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """ΔP, and the share (n,) of each column that would be erased alone."""
    g = c1.T @ p @ c1
    solved = torch.linalg.solve(torch.eye(len(g), dtype=g.dtype) + g, c1.T @ p)
    return w @ (target - c1) @ solved, 1 - 1 / (1 + g.diagonal())


def _moved(w: Tensor, c: Tensor, c1: Tensor, target: Tensor) -> Tensor:
    """The columns of c that Δ_erase = W (C* - C₁) C₁ᵀ (I + C₁C₁ᵀ)⁻¹ moves by more than the mean."""
    small = torch.eye(c1.shape[1], dtype=w.dtype) + c1.T @ c1
    way, shares = w @ (target - c1), torch.linalg.solve(small, c1.T @ c)
    shift = (shares * (way.T @ way @ shares)).sum(dim=0).clamp_min(0).sqrt()
    more: Tensor = shift > shift.mean()
    return c[:, more] if c.shape[1] > 1 else c

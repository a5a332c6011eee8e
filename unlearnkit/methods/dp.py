"""DP: closed-form concept erasure via Double Projections (2026, arXiv 2604.10032).

For each matrix W that reads the text, with columns C of erased concepts, G of their replacements, K of retained text:

    c* = S (SᵀS)⁺ Sᵀ c         first projection: onto a safe subspace, spanned by g and the nearest retained columns
    X = P C, ΔW = W (C* - C) X⁺    second projection: P onto the null space of Kᵀ

So (W + ΔW) k = W k for every protected direction, and (W + ΔW) c = W c* as far as the columns of X are independent. The
change has at most the rank of the number of erased columns, and is W times one matrix for all W, as UCE's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..data.prompts import neighbours
from ..data.text_columns import concept_texts, erased_matrices, retained_matrix
from ..model.batches import many
from ..settings import setting
from ..training.closed_form import ClosedForm, refuse_clashes
from ..training.job import Run
from ..training.settings import Tokens, default

__all__ = ["DP"]

NONE = 1e-12  # of the largest eigenvalue: below it a direction has no energy


@dataclass(frozen=True)
class DP(ClosedForm):
    name: ClassVar = "dp"
    title: ClassVar = "Double Projections"
    paper: ClassVar = "2026, arXiv 2604.10032"
    summary: ClassVar = (
        "A closed form maps the concept's keys and values to a safe subspace, within a hard null space."
    )

    safe: int = setting(
        1,
        "columns that span the safe subspace: the replacement's, then the nearest retained; 0: the replacement itself, "
        "as UCE",
        low=0,
        source="paper: optional; how many: ours",
    )
    protected: float = setting(
        0.95,
        "share of the retained texts' energy in the directions that do not move",
        low=0.0,
        high=1.0,
        source="paper: 1, or the first directions of many words; how many: ours",
    )
    free: float = default("free", 0.05, source="ours: of its length, outside of the protected directions")
    tokens: Tokens = default("tokens", "last", source="ours")
    templates: bool = default("templates", True, source="ours")
    neighbours: int = default("neighbours", 1000, source="ours")
    reach: float = default("reach", 0.0, source="ours; paper: the result is not looked at")

    @torch.no_grad()
    def solved(self, run: Run) -> dict[str, Tensor]:
        """The new keys and values. Raises InputError for a concept that lies in what is retained."""
        model, last = run.model, self.tokens == "last"
        retained = neighbours(model, run.request, self.neighbours)
        form = functools.partial(concept_texts, model, templates=self.templates, without=run.request.erased)
        erase, retain = form(run.request.erase), form(retained)
        c, g, concepts = erased_matrices(model, erase, last=last)
        words = retained_matrix(model, retain, last=last or many(retained))
        k = torch.cat([model.text([""])[0, :1].T.cpu().double(), words], dim=1)
        p = self.projector(k)
        shares = (p @ c).norm(dim=0) / c.norm(dim=0)
        refuse_clashes([concept.name for concept in concepts], shares, self.free)
        shift = delta(c, self.safe_columns(c, g, k), p)
        return self.change(run, lambda _, w: w + w @ shift)

    def projector(self, k: Tensor) -> Tensor:
        """P (width, width): off the fewest directions that hold the share ``protected`` of the energy of k."""
        values, u = torch.linalg.eigh(k @ k.T)  # ascending
        below = values.clamp_min(0).cumsum(0)
        moves = (below <= (1 - self.protected) * below[-1]) | (values <= NONE * values[-1])
        p: Tensor = u[:, moves] @ u[:, moves].T
        return p

    def safe_columns(self, c: Tensor, g: Tensor, k: Tensor) -> Tensor:
        """C* (width, n): each column of c projected onto its safe subspace."""
        if self.safe == 0:
            return g
        near = torch.nn.functional.normalize(c, dim=0).T @ torch.nn.functional.normalize(k, dim=0)
        order = near.argsort(dim=1, descending=True, stable=True)[:, : self.safe - 1]
        columns = []
        for n in range(c.shape[1]):
            s = torch.cat([g[:, n : n + 1], k[:, order[n]]], dim=1)
            columns.append(s @ (torch.linalg.pinv(s) @ c[:, n : n + 1]))
        return torch.cat(columns, dim=1)


def delta(c: Tensor, target: Tensor, p: Tensor) -> Tensor:
    """(C* - C) X⁺ with X = P C (width, width), which W times gives ΔW."""
    inverse: Tensor = torch.linalg.pinv(p @ c, rtol=1e-6)
    return (target - c) @ inverse @ p

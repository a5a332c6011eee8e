"""RECE: Reliable and Efficient Concept Erasure (Gong et al. 2024, arXiv 2407.12383): UCE, then what still reaches.

After UCE, each round finds the texts that the edited matrices W map to what the old ones, W°, map the concept to:

    c' = argmin over x  Σ_W |W x - W° c|² + λ |x|² = (λ I + Σ_W WᵀW)⁻¹ Σ_W WᵀW° c

and UCE's equation then maps c and these c' to the concept's replacement. c has the columns of the concept's tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..data.text_columns import concept_texts, erased_matrices, retained_columns, target_of
from ..settings import setting, with_default
from ..training.closed_form import read_again
from ..training.job import Run
from .uce import UCE

__all__ = ["RECE"]


def _own(name: str, value: Any, source: str = "released code, from notes") -> Any:
    return with_default(UCE, name, value, source=source)


@dataclass(frozen=True)
class RECE(UCE):
    name: ClassVar = "rece"
    title: ClassVar = "RECE"
    paper: ClassVar = "Gong et al. 2024, arXiv 2407.12383"
    summary: ClassVar = "UCE, and again for the texts that still lead to the concept."

    retain_weight: float = _own("retain_weight", 0.1)
    ridge: float = _own("ridge", 0.1)
    tokens: Literal["last", "all"] = _own("tokens", "all")
    rounds: int = setting(
        1, "searches, each followed by UCE's equation", low=0, high=100, source="paper: 1 to 3"
    )
    search_ridge: float = setting(
        0.1,
        "λ of the search: a larger one finds shorter texts",
        low=1e-12,
        source="paper: 0.1; for styles and hard objects 1e-3",
    )

    @torch.no_grad()
    def solve(self, run: Run) -> dict[str, Tensor]:
        """The new keys and values. Raises InputError for a singular matrix."""
        model = run.model
        old = {name: weight.detach().cpu().double() for name, weight in model.weights(self.PART).items()}
        new = {name: weight.double() for name, weight in super().solve(run).items()}
        erase = concept_texts(model, run.request.erase, templates=self.templates, without=run.request.erased)
        c, g, _ = erased_matrices(model, erase, last=self.tokens == "last")
        empty = retained_columns(model, "{}", "", last=False)
        retained = empty @ empty.T + (self.sums(run)[2] if self.rounds else 0.0)
        for done in range(self.rounds):
            both = torch.cat([c, self.search(old, new, c)], dim=1)  # c, too, or a round may bring it back
            delta = self.delta(both @ both.T, (torch.cat([g, g], dim=1) - both) @ both.T, retained)
            new = {name: weight + weight @ delta for name, weight in new.items()}
            run.progress("searching", done + 1, self.rounds)
        weights = {name: weight.float() for name, weight in new.items()}
        if self.reach and self.rounds:
            read_again(run, weights, target_of, self.reach)
        return weights

    def search(self, old: dict[str, Tensor], new: dict[str, Tensor], c: Tensor) -> Tensor:
        """The columns c' (width, n) for columns c (width, n)."""
        gram = sum((weight.T @ weight for weight in new.values()), torch.zeros(len(c), len(c)).double())
        cross = sum((new[name].T @ weight for name, weight in old.items()), torch.zeros_like(gram))
        found: Tensor = torch.linalg.solve(gram + self.search_ridge * torch.eye(len(c)).double(), cross @ c)
        return found

"""UCE: Unified Concept Editing in Diffusion Models (Gandikota et al. 2024, arXiv 2308.14761), equation 7.

For each matrix W that reads the text (key or value of cross-attention), with columns c of text states and their target
outputs v* = W g:

    W' = (λ W + s_e Σ_e v*_e c_eᵀ + s_k Σ_k W c_k c_kᵀ) A⁻¹,    A = λ I + s_e Σ_e c_e c_eᵀ + s_k Σ_k c_k c_kᵀ

A is the same for every matrix. Subtract W A on both sides and insert v* = W g. So one float64 solve suffices, and the
change has at most the rank of the number of erased columns:

    W' - W = W (s_e Σ_e (g - c_e) c_eᵀ A⁻¹)
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..data.grammar import forms, read
from ..data.prompts import neighbours, texts, unerased
from ..data.text_columns import erased_columns, last_columns, retained_columns, target_of
from ..errors import InputError
from ..model.batches import many
from ..model.model import Model
from ..schema import Concept
from ..settings import setting
from ..training.converged import raised
from ..training.job import Run
from ..training.method import ClosedForm
from ..training.settings import Tokens, default

__all__ = ["UCE"]

ILL, MOST = 1e12, 100_000
BLOCK = 2048  # texts whose columns are in memory at once


@dataclass(frozen=True)
class UCE(ClosedForm):
    name: ClassVar = "uce"
    title: ClassVar = "Unified Concept Editing"
    paper: ClassVar = "Gandikota et al. 2024, arXiv 2308.14761"
    summary: ClassVar = "A closed form maps the concept's keys and values to another word's, in seconds."

    erase_weight: float = default("erase_weight", 1.0, source="released code, 2025: s_e")
    retain_weight: float = default("retain_weight", 1.0, source="released code, 2025: s_k; of 2023: 0.1")
    ridge: float = setting(
        0.5, "λ, weight of the old matrix: a larger one changes less", low=0.0, source="code, 2025"
    )
    tokens: Tokens = default("tokens", "last", source="last: released code, 2025; all: released code, 2023")
    templates: bool = default("templates", False, source="released code: off")
    sentences: int = setting(0, "most sentences per erased concept", low=0, high=MOST, source="ours")
    retain_sentences: int = setting(0, "most sentences per retained concept", low=0, high=MOST, source="ours")
    grammar: str = default("grammar", "plain", source="ours, after RGD's paper")
    neighbours: int = default("neighbours", 0, source="ours; paper: 0")
    reach: float = default("reach", 0.0, source="ours; paper: the result is not looked at; canvas: 0.4")
    brake: float = default("brake", 0.1, source="ours, measured on the canvas")

    @torch.no_grad()
    def solve(self, run: Run) -> dict[str, Tensor]:
        """The new keys and values. The seed chooses the sentences. Raises InputError for a singular A."""
        sums = self.sums(run)
        kept = sums.get("kept", torch.zeros_like(sums["erased"]))

        def solved(erase_weight: float) -> dict[str, Tensor]:
            one = replace(self, erase_weight=erase_weight)
            delta, weights = one.change(one.normal(sums["erased"], kept), sums["towards"]), {}
            for done, (name, weight) in enumerate(run.model.weights(self.PART).items()):
                w = weight.detach().cpu().double()
                weights[name] = (w + w @ delta).float()
                run.progress("solving", done + 1, len(run.model.weights(self.PART)))
            return weights

        checks = {"reach": self.reach, "brake": self.brake, "weight": self.erase_weight}
        return raised(run, solved, target_of, **checks)

    def sums(self, run: Run) -> dict[str, Tensor]:
        """Σ c cᵀ and Σ (g - c) cᵀ of what is erased ("erased", "towards"), and Σ c cᵀ of what is kept, if anything."""
        model, request = run.model, run.request
        concepts = [(concept, self.sentences, True) for concept in request.erase]
        retained = neighbours(model, request, self.neighbours)
        concepts += [(concept, self.retain_sentences, False) for concept in retained]

        @functools.cache
        def sentences_of(kind: str, count: int) -> tuple[str, ...]:
            words = unerased(model, request)
            return forms(read(self.grammar), kind, words, count=count, seed=run.seed) if count else ()

        def pairs_of(concept: Concept, count: int) -> dict[tuple[str, str], None]:
            more = [(form, word) for form in sentences_of(concept.kind, count) for word in concept.wordings]
            return dict.fromkeys([*texts(concept, model.hints, templates=self.templates), *more])

        sums: dict[str, Tensor] = {}

        def add(products: dict[str, Tensor]) -> None:
            for name, product in products.items():
                sums[name] = sums[name] + product if name in sums else product

        if self.tokens == "last" and many(concept for concept, *_ in concepts):
            for erased in (True, False):
                several = [
                    (one, *pair)
                    for one, count, out in concepts
                    if out is erased
                    for pair in pairs_of(one, count)
                ]
                for start in range(0, len(several), BLOCK):
                    add(self._block(model, several[start : start + BLOCK], erased))
                    run.progress("reading", min(start + BLOCK, len(several)), len(several))
            concepts = []
        for done, (concept, count, erased) in enumerate(concepts):
            for pair in pairs_of(concept, count):
                add(self._products(model, concept, *pair, erased))
            run.progress("reading", done + 1, len(concepts))
        return sums

    def normal(self, erased: Tensor, kept: Tensor) -> Tensor:
        """The matrix A (width, width) from Σ c_e c_eᵀ and Σ c_k c_kᵀ, all float64. InputError if it is singular."""
        eye = torch.eye(len(erased), dtype=torch.float64)
        a = self.ridge * eye + self.erase_weight * erased + self.retain_weight * kept
        values = torch.linalg.eigvalsh(a)
        if values[0] <= 0 or values[-1] / values[0] > ILL:
            raise InputError(
                f"the equations are singular with ridge = {self.ridge:g}: raise ridge, for example to 0.5"
            )
        return a

    def change(self, a: Tensor, towards: Tensor) -> Tensor:
        """s_e Σ_e (g - c) cᵀ A⁻¹ (width, width), which W times gives W' - W; ``towards`` is the sum."""
        solved: Tensor = torch.linalg.solve(a, towards.T)  # A is its own transpose
        return self.erase_weight * solved.T

    def _block(
        self, model: Model, several: Sequence[tuple[Concept, str, str]], erased: bool
    ) -> dict[str, Tensor]:
        """The contributions of many texts, at the last token, from columns that were encoded in batches."""
        c = last_columns(model, [(form, word) for _, form, word in several])
        if not erased:
            return {"kept": c @ c.T}
        g = last_columns(model, [(form, target_of(concept)) for concept, form, _ in several])
        return {"erased": c @ c.T, "towards": (g - c) @ c.T}

    def _products(
        self, model: Model, concept: Concept, form: str, word: str, erased: bool
    ) -> dict[str, Tensor]:
        """A text's contributions to the sums: c_k c_kᵀ, or c_e c_eᵀ and (g - c) cᵀ."""
        last = self.tokens == "last"
        if not erased:
            kept = retained_columns(model, form, word, last=last)
            return {"kept": kept @ kept.T}
        c, g = erased_columns(model, concept, form, word, last=last)
        return {"erased": c @ c.T, "towards": (g - c) @ c.T}

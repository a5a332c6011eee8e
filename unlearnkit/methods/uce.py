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

from ..data.prompts import neighbours
from ..data.text_columns import bare_words, erased_blocks, retained_blocks, sentence_texts, target_of
from ..errors import InputError
from ..settings import setting
from ..training.closed_form import ClosedForm, escalate, refuse_clashes
from ..training.job import Run
from ..training.settings import Tokens, default

__all__ = ["UCE"]

ILL, MOST = 1e12, 100_000


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
    free: float = default("free", 0.01, source="ours: of the way, if it were erased alone")
    reach: float = default("reach", 0.0, source="ours; paper: the result is not looked at")
    brake: float = default("brake", 0.1, source="ours, measured on the canvas")

    @torch.no_grad()
    def solve(self, run: Run) -> dict[str, Tensor]:
        """The new keys and values. The seed chooses the sentences. Raises InputError for a singular A."""
        erased, towards, retained = self.sums(run)

        def solved(erase_weight: float) -> dict[str, Tensor]:
            delta = replace(self, erase_weight=erase_weight).delta(erased, towards, retained)
            return self.change(run, lambda name, w: w + w @ delta)

        return escalate(run, solved, target_of, reach=self.reach, brake=self.brake, weight=self.erase_weight)

    def sums(self, run: Run) -> tuple[Tensor, Tensor, Tensor]:
        """Σ c_e c_eᵀ, Σ (g - c_e) c_eᵀ and Σ c_k c_kᵀ, each (width, width)."""
        model, request, last = run.model, run.request, self.tokens == "last"
        others, tick = neighbours(model, request, self.neighbours), functools.partial(run.progress, "texts")
        form = functools.partial(sentence_texts, model, request, self.templates, self.grammar, run.seed)
        erase = form(request.erase, self.sentences)
        retain = form(others, self.retain_sentences)
        width = model.text([""]).shape[2]
        erased, towards, retained = torch.zeros((3, width, width), dtype=torch.float64)
        bare, names = list[Tensor](), list[str]()
        for c, g, of in erased_blocks(model, erase, last=last, tick=tick):
            erased += c @ c.T
            towards += (g - c) @ c.T
            bare.append(c[:, (first := bare_words(erase, of))])
            names += [erase[of[n]][0].name for n in first]
        for c in retained_blocks(model, retain, last=last, tick=tick):
            retained += c @ c.T
        self.check(torch.cat(bare, dim=1), names, retained)
        return erased, towards, retained

    def check(self, c: Tensor, names: Sequence[str], retained: Tensor) -> None:
        """Raise InputError for concepts that alone come less than ``free`` of their way to g: s q / (1 + s q), with

        q = cᵀ (λ I + s_k Σ c_k c_kᵀ)⁻¹ c.
        """
        a = self.retain_weight * retained
        a += (self.ridge + 1e-12 * float(a.trace()) + 1e-30) * torch.eye(len(a)).double()
        sq = self.erase_weight * (c * torch.linalg.solve(a, c)).sum(dim=0)
        refuse_clashes(names, sq / (1 + sq), self.free)

    def delta(self, erased: Tensor, towards: Tensor, retained: Tensor) -> Tensor:
        """s_e Σ (g - c) cᵀ A⁻¹ (width, width), which W times gives W' - W. Raises InputError if A is singular."""
        eye = torch.eye(len(erased), dtype=torch.float64)
        a = self.ridge * eye + self.erase_weight * erased + self.retain_weight * retained
        values = torch.linalg.eigvalsh(a)
        if values[0] <= 0 or values[-1] / values[0] > ILL:
            raise InputError(
                f"the equations are singular with ridge = {self.ridge:g}: raise ridge, for example to 0.5"
            )
        solved: Tensor = torch.linalg.solve(a, towards.T)  # A is its own transpose
        return self.erase_weight * solved.T

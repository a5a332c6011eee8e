"""UCE: Unified Concept Editing in Diffusion Models (Gandikota et al. 2024, arXiv 2308.14761), equation 7.

For each matrix W that reads the text (key or value of cross-attention), with columns c of text states and their wanted
outputs v* = W g:

    W' = (λ W + s_e Σ_e v*_e c_eᵀ + s_k Σ_k W c_k c_kᵀ) A⁻¹,    A = λ I + s_e Σ_e c_e c_eᵀ + s_k Σ_k c_k c_kᵀ

A is the same for every matrix. Subtracting W A on both sides, with v* = W g, leaves what is computed here: one float64
solve in all, nothing inverted, a change of rank no higher than the number of erased columns, and sums as wide as the
text, however many texts there are:

    W' - W = W (s_e Σ_e (g - c_e) c_eᵀ A⁻¹)

It moves what it is shown and nothing else. ``uce-diverse`` (ours) shows it more: the concept in the diverse sentences
of RGD (arXiv 2412.07808), and the words around it, which stay, in many more.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..method import ClosedForm
from ..model import Model
from ..schema import Concept
from ..settings import inherited, setting
from ..training.grammar import forms, read
from ..training.job import Run
from ..training.prompts import neighbours, texts, unerased
from ..training.text_columns import erased_columns, retained_columns

__all__ = ["UCE", "DiverseUCE"]

ILL = 1e12


@dataclass(frozen=True)
class UCE(ClosedForm):
    name: ClassVar = "uce"
    title: ClassVar = "Unified Concept Editing"
    paper: ClassVar = "Gandikota et al. 2024, arXiv 2308.14761"
    summary: ClassVar = "closed form: moves the concept's keys and values onto another word's, in seconds"

    erase_scale: float = setting(1.0, "weight s_e of what is erased", low=0.0, source="released code, 2025")
    keep_scale: float = setting(1.0, "weight s_k of what is kept", low=0.0, source="released code, 2025")
    ridge: float = setting(
        0.5, "weight λ of the old matrix: larger changes less", low=0.0, source="released code, 2025"
    )
    tokens: Literal["last", "all"] = setting(
        "last",
        "text states used: the concept's last token, or that and all after it (kept prompts: every token)",
        source="last: released code, 2025; all: released code, 2023",
    )
    templates: bool = setting(
        False, "edit the wordings in the model's templates too, not only bare", source="released code: off"
    )
    sentences: int = setting(
        0,
        "edit at most so many sentences of the grammar with each concept, beside the wordings above",
        low=0,
        high=100_000,
        source="ours, after RGD's diverse sets; paper: 0",
    )
    keep_sentences: int = setting(
        0,
        "keep at most so many such sentences with each kept concept",
        low=0,
        high=100_000,
        source="ours; paper: 0",
    )
    grammar: str = setting(
        "plain", "plain, people, scenes, or the path of a TOML file", source="ours, after RGD's paper"
    )
    neighbours: int = setting(
        0,
        "if the request keeps nothing: so many of the nearest words are kept",
        low=0,
        source="ours; paper: 0",
        role="neighbours",
    )

    @torch.no_grad()
    def solve(self, run: Run) -> dict[str, Tensor]:
        """The new keys and values. The seed chooses the sentences, if any. Raises InputError for a singular A."""
        model, request = run.model, run.request
        concepts = [(concept, self.sentences, True) for concept in request.erase]
        retained = neighbours(model, request, self.neighbours)
        concepts += [(concept, self.keep_sentences, False) for concept in retained]

        @functools.cache
        def sentences_of(kind: str, count: int) -> tuple[str, ...]:
            words = unerased(model, request)
            return forms(read(self.grammar), kind, words, count=count, seed=run.seed) if count else ()

        sums: dict[str, Tensor] = {}
        for done, (concept, sentences, erased) in enumerate(concepts):
            for text in self._texts(model, concept, sentences_of(concept.kind, sentences)):
                for name, product in self._products(model, concept, *text, erased=erased).items():
                    sums[name] = sums[name] + product if name in sums else product
            run.progress("reading", done + 1, len(concepts))
        a = self.normal(sums["erased"], sums.get("kept", torch.zeros_like(sums["erased"])))
        values = torch.linalg.eigvalsh(a)
        if values[0] <= 0 or values[-1] / values[0] > ILL:
            raise InputError(
                f"the equations are singular with ridge = {self.ridge:g}: raise ridge, for example to 0.5"
            )
        delta, weights = self.change(a, sums["towards"]), {}
        for done, (name, weight) in enumerate(model.weights(self.PART).items()):
            w = weight.detach().cpu().double()
            weights[name] = (w + w @ delta).float()
            run.progress("solving", done + 1, len(model.weights(self.PART)))
        return weights

    def normal(self, erased: Tensor, kept: Tensor) -> Tensor:
        """The matrix A (width, width) from Σ c_e c_eᵀ and Σ c_k c_kᵀ, all float64."""
        eye = torch.eye(len(erased), dtype=torch.float64)
        return self.ridge * eye + self.erase_scale * erased + self.keep_scale * kept

    def change(self, a: Tensor, towards: Tensor) -> Tensor:
        """s_e Σ_e (g - c) cᵀ A⁻¹ (width, width), which W times gives W' - W; ``towards`` is the sum."""
        solved: Tensor = torch.linalg.solve(a, towards.T)  # A is its own transpose
        return self.erase_scale * solved.T

    def _texts(
        self, model: Model, concept: Concept, sentences: tuple[str, ...]
    ) -> tuple[tuple[str, str], ...]:
        """Pairs (template, wording) of a concept, each once."""
        more = ((form, wording) for form in sentences for wording in concept.wordings)
        return tuple(dict.fromkeys((*texts(concept, model.hints, templates=self.templates), *more)))

    def _products(
        self, model: Model, concept: Concept, form: str, wording: str, *, erased: bool
    ) -> dict[str, Tensor]:
        """What a text adds to the sums: c_k c_kᵀ, or c_e c_eᵀ and (g - c) cᵀ."""
        last = self.tokens == "last"
        if not erased:
            kept = retained_columns(model, form, wording, last=last)
            return {"kept": kept @ kept.T}
        c, g = erased_columns(model, concept, form, wording, last=last)
        return {"erased": c @ c.T, "towards": (g - c) @ c.T}


def _own(name: str, value: Any) -> Any:
    return inherited(UCE, name, value, source="ours, chosen on the canvas by the guide")


@dataclass(frozen=True)
class DiverseUCE(UCE):
    name: ClassVar = "uce-diverse"
    title: ClassVar = "Diverse UCE"
    paper: ClassVar = "ours: Gandikota et al. 2024 with the data of Ko et al. 2024"
    summary: ClassVar = (
        "UCE's closed form on sentences of RGD's grammar: in seconds, in wordings that no template holds too"
    )

    erase_scale: float = _own("erase_scale", 10.0)
    ridge: float = _own("ridge", 0.1)
    tokens: Literal["last", "all"] = _own("tokens", "all")
    templates: bool = _own("templates", True)
    sentences: int = _own("sentences", 120)
    keep_sentences: int = _own("keep_sentences", 20)
    neighbours: int = _own("neighbours", 32)

"""OCE: Orthogonal Concept Erasure (2026, arXiv 2605.28902).

The key matrix W of each cross-attention is turned by an orthogonal matrix P, so its columns keep lengths and angles.
With bases G and G* of W's images of the erased columns C₁ and of their anchors C*, R = GGᵀ, R* = G*G*ᵀ, the mean over
general tokens K₀ = E[c cᵀ], and retained columns Cₙ:

    M = -λ_e (I - R*) R + W (λ_0 K₀ + λ_r Cₙ Cₙᵀ) Wᵀ,    M = U S Vᵀ,    P = U Vᵀ,    W' = P W

P is the orthogonal matrix nearest to M (Procrustes): it turns the concept's span towards the anchor's, and holds the
rest.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..data.prompts import neighbours, unerased, without_words
from ..data.text_columns import SOME, clip_scale, concept_texts, encoded, erased_matrices, retained_matrix
from ..data.wording import format_prompt
from ..model.batches import many
from ..model.model import Model
from ..schema import Request
from ..settings import setting
from ..training.closed_form import ClosedForm, refuse_clashes
from ..training.job import Run
from ..training.settings import default

__all__ = ["OCE"]

REST = 1e-4  # of M's largest singular value: the weight of the identity
RANK = 1e-6  # of the largest singular value: smaller ones are no direction of a span


@dataclass(frozen=True)
class OCE(ClosedForm):
    PART: ClassVar = "keys"
    name: ClassVar = "oce"
    title: ClassVar = "Orthogonal Concept Erasure"
    paper: ClassVar = "2026, arXiv 2605.28902"
    summary: ClassVar = (
        "A closed form turns the keys of the concept towards another word's, by an orthogonal matrix."
    )

    erase_weight: float = default("erase_weight", 1000.0, source="paper, objects; styles: 500")
    general_weight: float = setting(
        50.0, "λ_0, weight of the mean over tokens of general prompts", low=0.0, source="paper; styles: 100"
    )
    retain_weight: float = default("retain_weight", 1.0, source="paper, objects; celebrities: 3")
    templates: bool = default("templates", False, source="ours")
    neighbours: int = default("neighbours", 100, source="paper: 100 names")
    free: float = default("free", 1e-3, source="ours: of the way, in the matrix that moves furthest")

    @torch.no_grad()
    def solved(self, run: Run) -> dict[str, Tensor]:
        """The new key matrices."""
        model, request = run.model, run.request
        retained = neighbours(model, request, self.neighbours)
        form = functools.partial(concept_texts, model, templates=self.templates, without=request.erased)
        erase, retain = form(request.erase), form(retained)
        c1, anchors, concepts = erased_matrices(model, erase, last=True)
        c_n = retained_matrix(model, retain, last=True)
        general = _general(model, request, batched=many((*request.erase, *retained)))
        scale = clip_scale(general, c1)  # the weights are absolute numbers
        c1, anchors, c_n, general = (scale * one for one in (c1, anchors, c_n, general))
        hold = self.general_weight * general @ general.T / general.shape[1] + self.retain_weight * c_n @ c_n.T
        come: list[Tensor] = []

        def new(_: str, w: Tensor) -> Tensor:
            turned = self.turned(w, c1, anchors, hold)
            way = w @ (anchors - c1)
            come.append(((turned - w) @ c1 * way).sum(dim=0) / way.square().sum(dim=0).clamp_min(1e-30))
            return turned

        weights = self.change(run, new)
        refuse_clashes([one.name for one in concepts], torch.stack(come).amax(dim=0), self.free)
        return weights

    def turned(self, w: Tensor, c1: Tensor, anchors: Tensor, hold: Tensor) -> Tensor:
        """P W. The P of a tall W is found in the span of W's columns, which it does not leave."""
        if len(w) <= w.shape[1]:
            return self.rotation(w, c1, anchors, hold) @ w
        q, r = torch.linalg.qr(w)
        inside: Tensor = q @ (self.rotation(r, c1, anchors, hold) @ r)
        return inside

    def rotation(self, w: Tensor, c1: Tensor, anchors: Tensor, hold: Tensor) -> Tensor:
        """P (rows, rows) for a matrix w (rows, width); hold: λ_0 K₀ + λ_r Cₙ Cₙᵀ (width, width)."""
        r, r_anchor = _onto(w @ c1), _onto(w @ anchors)
        outside = r - r_anchor @ r
        m = w @ hold @ w.T - self.erase_weight * outside
        # where M says nothing, P is the identity and not what rounding makes of it
        largest = torch.linalg.eigvalsh(m.T @ m)[-1].clamp_min(0).sqrt()
        m += REST * largest * torch.eye(len(m), dtype=m.dtype)
        u, _, vh = torch.linalg.svd(m)
        p: Tensor = u @ vh
        return p


def _onto(columns: Tensor) -> Tensor:
    """The projection onto the span of the columns, each taken at length 1."""
    u, size, _ = torch.linalg.svd(torch.nn.functional.normalize(columns, dim=0), full_matrices=False)
    basis = u[:, size > RANK * size[0]]
    p: Tensor = basis @ basis.T
    return p


def _general(model: Model, request: Request, *, batched: bool) -> Tensor:
    """Columns of all tokens, from the start to the last one, of a prompt for each word that is not erased."""
    prompts = list[str]()
    for kind, words in unerased(model, request).items():
        forms = without_words(model.hints.templates.get(kind, ()), request.erased) or ("{}",)
        prompts += [format_prompt(forms[place % len(forms)], word) for place, word in enumerate(words)]
    prompts = prompts or [""]
    ends = [model.last_token(prompt) for prompt in prompts]
    found = encoded(model, prompts, batched=batched or len(prompts) > SOME, through=ends)
    pairs = ((place, states) for places, part in found for place, states in zip(places, part, strict=True))
    columns = {place: states[: ends[place] + 1].T.cpu().double() for place, states in pairs}
    return torch.cat([columns[place] for place in range(len(prompts))], dim=1)

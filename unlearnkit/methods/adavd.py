"""AdaVD: Precise, Fast, and Low-cost Concept Erasure in Value Space (Wang et al. 2025, arXiv 2412.06143).

No weight changes. At inference, the component of each token's value v along the erased concept's value v* is removed in
every cross-attention layer and at every step, more strongly the more similar they are:

    v - δ(v) <v, v*> / |v*|² v*            δ(v) = c σ(a (cos(v, v*) - b))

``unlearnkit.model.hooks`` computes it. v* is the value of the concept's last token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..data.prompts import texts
from ..data.text_columns import retained_columns
from ..model.hooks import Hook
from ..settings import setting
from ..training.job import Run
from ..training.method import Guard
from ..training.settings import default

__all__ = ["AdaVD"]


@dataclass(frozen=True)
class AdaVD(Guard):
    name: ClassVar = "adavd"
    title: ClassVar = "Adaptive Value Decomposer"
    paper: ClassVar = "Wang et al. 2025, arXiv 2412.06143"
    summary: ClassVar = "A guard removes the concept's share from cross-attention's values at inference."

    slope: float = setting(100.0, "a of δ; 0 with most = 2: the plain projection", low=0.0, source="code")
    middle: float = setting(0.93, "b of δ: the cosine at which δ is c / 2", low=-1.0, high=1.0, source="code")
    most: float = setting(2.0, "c of δ: 1 removes the component, 2 mirrors it", low=0.0, source="code")
    templates: bool = default("templates", False, source="released code: bare")

    @torch.no_grad()
    def hooks(self, run: Run) -> tuple[Hook, ...]:
        """One guard for all erased concepts."""
        model = run.model
        words = [
            text
            for concept in run.request.erase
            for text in texts(concept, model.hints, templates=self.templates, without=run.request.erased)
        ]
        states = torch.cat([retained_columns(model, *text, last=True) for text in words], dim=1).T
        first, name = model.text(["", run.request.erase[0].name])[:, 0]  # the same where it is a start token
        settings = {
            "first": int(torch.equal(first, name)),
            "slope": self.slope,
            "middle": self.middle,
            "most": self.most,
        }
        return (Hook("values", settings, {"concepts": states.float().contiguous()}),)

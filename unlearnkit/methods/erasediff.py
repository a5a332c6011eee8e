"""EraseDiff: Erasing Data Influence in Diffusion Models (Wu et al. 2024, arXiv 2401.05779).

Minimise the retain loss among the networks that forget: min_θ L_r(θ) with θ in argmin L_f. Solved to first order by

    θ <- θ - lr (∇L_r + λ ∇g),        g(θ) = L_f(θ) - sg[L_f(θ_K)]

where θ_K is θ after K steps on L_f. L_f(θ_K) is a constant, so ∇g = ∇L_f, and the K steps change nothing but Adam's
momentum in the released code, where they leak into it: they are not taken here. λ sees to it that L_f falls:

    ratio     λ = max(0, η - <∇L_r, ∇g> / |∇g|²)         so that <∇L_r + λ ∇g, ∇g> >= η |∇g|²
    cosine    λ = max(0, η - cos(∇L_r, ∇g))              the released code, if its λ is below 0
    fixed     λ = erase_weight                           the released code's recipes

    L_f = E ||ε_f - ε_θ(x_t, c_f, t)||²   x a picture of the concept c_f; ε_f predicted for an anchor, or uniform noise
    L_r = E ||ε - ε_θ(x_t, c_r, t)||²     x an image of a retained concept
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..data.image_sets import ImageSet
from ..data.prompts import prompts_for, retain_concepts
from ..data.wording import format_prompt
from ..errors import InputError
from ..parts import Combine, Gradients, Losses
from ..parts.combine import dot, mixed, side_gradients
from ..settings import setting
from ..training.anchors import anchor, templates_for
from ..training.job import Run
from ..training.method import Trained
from ..training.net import Net, Step, mse
from ..training.settings import Trains, default

__all__ = ["EraseDiff", "balanced"]


def balanced(eta: float, *, cosine: bool) -> Combine:
    """∇L_r + λ ∇L_f with λ found by η, over all weights as one vector."""

    def combine(step: int, losses: Losses, weights: Mapping[str, Tensor]) -> Gradients:
        g_f, g_r = side_gradients(losses, weights)
        s, ff = dot(g_r, g_f), dot(g_f, g_f)
        scale = (ff * dot(g_r, g_r)).sqrt() if cosine else ff
        weight = torch.where(scale > 0, eta - s / scale, eta).clamp_min(0)
        return mixed([g_f, g_r], [weight, torch.ones_like(weight)])

    return combine


@dataclass(frozen=True)
class Sets:
    """anchors: the conditioning (images, tokens, width) of the prompts with the anchor; None for uniform noise."""

    erase: ImageSet
    anchors: Tensor | None
    retain: ImageSet


@dataclass(frozen=True)
class EraseDiff(Trained[Sets]):
    name: ClassVar = "erasediff"
    title: ClassVar = "EraseDiff"
    paper: ClassVar = "Wu et al. 2024, arXiv 2401.05779"
    summary: ClassVar = "Erasing and retain gradients are balanced anew at every step."

    trains: Trains = default("trains", "all", source="released code for classes; nudity: not-xattn")
    steps: int = default("steps", 160, source="released code: enough for nudity, 60 for classes")
    lr: float = default("lr", 1e-5, source="released code")
    batch: int = default("batch", 16, source="released code")
    balance: Literal["ratio", "cosine", "fixed"] = setting(
        "ratio",
        "how the weight λ of the erasing gradient is computed",
        source="ratio: BOME, which the paper builds on",
    )
    balance_eta: float = setting(
        0.1,
        "η of balance = ratio and cosine: how fast the concept is forgotten",
        low=0.0,
        source="released code",
    )
    erase_weight: float = default("erase_weight", 1.0, source="released code for Stable Diffusion")
    target: Literal["anchor", "uniform"] = setting(
        "anchor",
        "target for the concept: the prediction for an anchor, or noise uniform in [0, 1)",
        source="anchor: released code for Stable Diffusion; uniform: paper",
    )
    teacher: Literal["frozen", "student"] = default(
        "teacher", "frozen", source="ours; released code: student"
    )
    pictures: int = default("pictures", 200, source="ours")
    neighbours: int = default("neighbours", 8, source="ours")
    retain_pictures: int = default("retain_pictures", 50, source="ours")

    def check(self, losses: Sequence[str]) -> None:
        if self.balances and self.erase_weight != 1.0:
            raise InputError(
                f"erase_weight belongs to balance=fixed: balance={self.balance} computes the weight; leave it out"
            )
        super().check(losses)

    @property
    def balances(self) -> bool:
        """Whether the gradients are combined as in the paper, not by ``combine``."""
        return self.combine == "sum" and self.balance != "fixed"

    @property
    def separate(self) -> bool:
        return self.balances or self.combine != "sum"

    @property
    def combiner(self) -> Combine | None:
        return balanced(self.balance_eta, cosine=self.balance == "cosine") if self.balances else None

    def data(self, run: Run) -> Sets:
        model, request = run.model, run.request
        others = retain_concepts(model, request, self.neighbours)
        concepts: list[str] = []
        anchors: list[str] = []
        for concept in request.erase:
            templates = templates_for(model, request, concept, self.pictures)
            concepts += [format_prompt(form, wording) for form, wording in templates]
            if self.target == "anchor":
                place = anchor(model, request, concept)
                anchors += [format_prompt(form, place) for form, _ in templates]
        retain = [prompts_for(model, request, concept, self.retain_pictures) for concept in others]
        return Sets(
            run.images(concepts),
            run.encode(anchors) if anchors else None,
            run.image_groups(retain, title="pictures to keep"),
        )

    def loss(self, net: Net, sets: Sets, step: Step) -> Losses:
        draws = step.stream("erasediff")
        x = sets.erase.batch(self.batch, draws)
        other = sets.retain.batch(self.batch, step.stream("erasediff keep"))
        if sets.anchors is None:
            eps_f = torch.rand(x.noise.shape, generator=draws).to(x.noise.device)
        else:
            predict = net.student_sg if self.teacher == "student" else net.teacher
            (eps_f,) = predict([x.input.with_cond(sets.anchors[x.which])])
        eps, eps_r = net.student([x.input, other.input])
        return {
            "erase": (1.0 if self.balances else self.erase_weight) * mse(eps, eps_f),  # L_f
            "retain": mse(eps_r, other.noise),  # L_r
        }
